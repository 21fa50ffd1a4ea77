//! Inputs that a request may leave out: the graph has a value for them.

use jitney::proto::{ModelInferRequest, ModelInferResponse, ModelMetadataRequest};
use tokio::task::JoinSet;
use tonic::Code;

use super::node::{Node, infer, refusal};
use super::repository::Repository;
use super::request::{bytes_of, floats, input, raw};

/// Every input of the model `optional`, for which the graph has a scale and a shift.
const INPUTS: &str = r#"
inputs = [
    { name = "x", dtype = "FP32", shape = [4] },
    { name = "scale", dtype = "FP32", shape = [4], optional = true },
    { name = "shift", dtype = "FP32", shape = [1], optional = true },
]
"#;
const OWN_SCALE: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

/// One input of the models in which it alone is optional.
const SCALE: &str = r#"
inputs = [
    { name = "x", dtype = "FP32", shape = [4] },
    { name = "scale", dtype = "FP32", shape = [4], optional = true },
]
"#;

/// A request of one row that brings what `seed` says.
fn request(seed: usize) -> ModelInferRequest {
    let mut request = raw("optional", input("x", "FP32", &[1, 4]), row(seed));
    let mut bring = |name: &str, columns: usize, data: Vec<u8>| {
        request.inputs.push(input(name, "FP32", &[1, columns]));
        request.raw_input_contents.push(data.into());
    };
    if seed & 1 == 1 {
        bring("scale", 4, bytes_of([-1.0; 4].into_iter()));
    }
    if seed & 2 == 2 {
        bring("shift", 1, bytes_of([seed as f32].into_iter()));
    }
    request
}

fn row(seed: usize) -> Vec<u8> {
    bytes_of((0..4).map(|column| (seed * 10 + column) as f32))
}

fn assert_right(seed: usize, answer: &ModelInferResponse) {
    let scale = [OWN_SCALE, [-1.0; 4]][seed & 1];
    let shift = [0.5, seed as f32][seed >> 1 & 1];
    let expected: Vec<f32> = (0..4)
        .map(|column| (seed * 10 + column) as f32 * scale[column] + shift)
        .collect();
    assert_eq!(floats(&answer.raw_output_contents[0]), expected, "{seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_out_the_same_travels_together_and_nobody_else() {
    // A batch leaves when it is full: four requests of each kind.
    let configuration = format!("max_batch_size = 4\nmax_queue_delay_ms = 60000\n{INPUTS}");
    let (_repository, node) = Node::of("optional", &configuration).await;
    let mut answers = JoinSet::new();
    for seed in 0..16 {
        let answer = infer(node.client(), request(seed));
        answers.spawn(async move { (seed, answer.await.unwrap()) });
    }
    for (seed, answer) in answers.join_all().await {
        assert_right(seed, &answer);
    }
    let statistics = node.statistics("optional").await;
    assert_eq!(statistics.execution_count, 4);
    assert_eq!(statistics.batch_stats[0].batch_size, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_are_told_what_they_may_leave_out() {
    let (_repository, node) = Node::of("optional", INPUTS).await;
    let metadata = ModelMetadataRequest {
        name: "optional".to_owned(),
        ..ModelMetadataRequest::default()
    };
    let metadata = node.client().model_metadata(metadata).await.unwrap();
    let inputs = metadata.into_inner().inputs;
    let inputs: Vec<(&str, &[i64])> = inputs
        .iter()
        .map(|input| (input.name.as_str(), &input.shape[..]))
        .collect();
    let expected: [(&str, &[i64]); 3] = [("x", &[-1, 4]), ("scale", &[-1, 4]), ("shift", &[-1, 1])];
    assert_eq!(inputs, expected);
    let config = node.config("optional").await;
    let optional: Vec<bool> = config.input.iter().map(|input| input.optional).collect();
    assert_eq!(optional, [false, true, true]);
    assert_eq!(config.max_batch_size, 32);
    let missing = ModelInferRequest {
        inputs: vec![input("scale", "FP32", &[1, 4])],
        ..raw("optional", input("scale", "FP32", &[1, 4]), row(1))
    };
    let missing = node.infer(missing).await.unwrap_err();
    assert_eq!(missing.code(), Code::InvalidArgument);
    assert!(
        missing.message().contains("input x FP32 [-1,4] is missing"),
        "{missing:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_the_graph_has_no_value_for_cannot_be_optional() {
    let inputs = INPUTS.replace("shape = [4] }", "shape = [4], optional = true }");
    let reason = refusal("optional", &inputs).await;
    assert!(
        reason.contains("input \"x\" cannot be optional: the graph has no value for it"),
        "{reason}"
    );
    assert!(
        reason.contains("it has one for scale, shift alone"),
        "{reason}"
    );
    let inputs = INPUTS.replace("\"scale\"", "\"nobody\"");
    let reason = refusal("optional", &inputs).await;
    assert!(
        reason.contains("input \"nobody\" cannot be optional: the graph has no such input"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_the_same_for_every_row_keeps_requests_apart_or_the_model_away() {
    let (_repository, node) = Node::of("optional_uneven", SCALE).await;
    let batching = &node.version("optional_uneven").batching;
    let reason = format!("{batching:?}");
    assert!(
        reason.contains("without scale output y of two rows together differs from each alone"),
        "{reason}"
    );
    let first = format!("batch_axis = \"first\"\n{SCALE}");
    let reason = refusal("optional_uneven", &first).await;
    assert!(
        reason.contains("without scale output y of two rows together differs"),
        "{reason}"
    );
    // One that has no rows is nobody else's either.
    let (_repository, node) = Node::of("optional_alone", SCALE_OF_ALL).await;
    let batching = format!("{:?}", node.version("optional_alone").batching);
    assert!(
        batching.contains("the first dimension of scale FP32 [4] does not vary"),
        "{batching}"
    );
    let mut sent = raw(
        "optional_alone",
        input("x", "FP32", &[2, 4]),
        [row(1), row(2)].concat(),
    );
    let own = node.infer(sent.clone()).await.unwrap();
    assert_eq!(floats(&own.raw_output_contents[0])[..2], [10.0, 22.0]);
    sent.inputs.push(input("scale", "FP32", &[4]));
    let scale = bytes_of([3.0; 4].into_iter());
    sent.raw_input_contents.push(scale.into());
    let given = node.infer(sent).await.unwrap();
    assert_eq!(floats(&given.raw_output_contents[0])[..2], [30.0, 33.0]);
    let first = format!("batch_axis = \"first\"\n{SCALE}");
    let reason = refusal("optional_alone", &first).await;
    assert!(
        reason.contains("the first dimension of scale FP32 [4] does not vary"),
        "{reason}"
    );
}

/// The same without a batch dimension.
const SCALE_OF_ALL: &str = r#"
inputs = [
    { name = "x", dtype = "FP32", shape = [-1, 4] },
    { name = "scale", dtype = "FP32", shape = [4], optional = true },
]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_an_ensemble_may_leave_out_what_a_request_may() {
    let repository = Repository::new();
    repository.add("optional", 1);
    repository.configure("optional", INPUTS);
    std::fs::create_dir_all(repository.folder("pipe").join("1")).unwrap();
    repository.configure(
        "pipe",
        r#"
[ensemble]
inputs = [{ name = "x", dtype = "FP32", shape = [-1, 4] }, { name = "by", dtype = "FP32", shape = [-1, 1] }]
outputs = [{ name = "y", dtype = "FP32", shape = [-1, 4] }]
[[ensemble.steps]]
model = "optional"
inputs = { x = "x", shift = "by" }
outputs = { y = "y" }
"#,
    );
    let node = Node::start(&repository.path()).await;
    let mut sent = raw("pipe", input("x", "FP32", &[1, 4]), row(1));
    sent.inputs.push(input("by", "FP32", &[1, 1]));
    sent.raw_input_contents
        .push(bytes_of([7.0].into_iter()).into());
    let answer = node.infer(sent).await.unwrap();
    let expected = [10.0 + 7.0, 22.0 + 7.0, 36.0 + 7.0, 52.0 + 7.0];
    assert_eq!(floats(&answer.raw_output_contents[0]), expected);
}
