//! Requests of different lengths travel together laid end to end, and get back what is theirs.

use std::fs;

use jitney::proto::batch_input::Kind;
use jitney::proto::{ModelInferRequest, ModelInferResponse, ModelMetadataRequest};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::node::{Node, infer, refusal};
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, gate};
use super::request::{assert_doubled, assert_echo, bytes_of, floats, input, raw, sequence};

/// Everything that the model `ragged` can be told of its `values`, which are rows of pairs.
const RAGGED: &str = r#"
inputs = [{ name = "values", dtype = "FP32", shape = [-1, 2] }]
outputs = [
    { name = "doubled", dtype = "FP32", shape = [-1, 2] },
    { name = "sum", dtype = "FP32", shape = [] },
    { name = "same_sum", dtype = "FP32", shape = [] },
    { name = "count", dtype = "INT64", shape = [] },
    { name = "shape", dtype = "INT32", shape = [2] },
    { name = "same_shape", dtype = "INT32", shape = [2] },
]
[ragged]
inputs = ["values"]
batch_inputs = [
    { kind = "element_count", targets = ["counts"], source = "values" },
    { kind = "accumulated_element_count", targets = ["ends"], dtype = "FP32", source = "values" },
    { kind = "accumulated_element_count_with_zero", targets = ["bounds"], source = "values" },
    { kind = "max_element_count_as_shape", targets = ["longest"], dtype = "FP32", source = "values" },
    { kind = "item_shape", targets = ["shapes"], source = "values" },
    { kind = "item_shape_flatten", targets = ["flat"], source = "values" },
]
batch_outputs = [{ targets = ["doubled"], source = "values" }]
"#;

/// A batch leaves when it is full.
const FULL: &str = "max_batch_size = 4\nmax_queue_delay_ms = 60000\n";

/// So many pairs of numbers, no two alike, in rows.
fn pairs(seed: usize, rows: usize, pairs: usize) -> ModelInferRequest {
    let shape = [rows, pairs, 2];
    raw(
        "ragged",
        input("values", "FP32", &shape),
        bytes_of(numbers(seed, rows * pairs).into_iter()),
    )
}

fn numbers(seed: usize, pairs: usize) -> Vec<f32> {
    (0..pairs * 2)
        .map(|index| (seed * 20 + index) as f32)
        .collect()
}

fn assert_right(seed: usize, count: usize, answer: &ModelInferResponse) {
    let own = numbers(seed, count);
    let outputs = &answer.raw_output_contents;
    let doubled: Vec<f32> = own.iter().map(|number| number * 2.0).collect();
    assert_eq!(floats(&outputs[0]), doubled);
    assert_eq!(answer.outputs[0].shape, [1, count as i64, 2]);
    let sum = [own.iter().sum::<f32>()];
    assert_eq!(
        (floats(&outputs[1]), floats(&outputs[2])),
        (sum.to_vec(), sum.to_vec())
    );
    assert_eq!(outputs[3][..], (count as i64 * 2).to_le_bytes());
    let shape = [count as i32, 2].map(i32::to_le_bytes).concat();
    assert_eq!((&outputs[4][..], &outputs[5][..]), (&shape[..], &shape[..]));
}

type Answers = JoinSet<(usize, Result<ModelInferResponse, Status>)>;

/// Sends all at once; each answer comes with its place.
fn at_once(node: &Node, requests: impl IntoIterator<Item = ModelInferRequest>) -> Answers {
    let mut answers = Answers::new();
    for (place, request) in requests.into_iter().enumerate() {
        let answer = infer(node.client(), request);
        answers.spawn(async move { (place, answer.await) });
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_any_length_share_a_batch() {
    let (_repository, node) = Node::of("ragged", &format!("{FULL}{RAGGED}")).await;
    // Some have nothing at all.
    let lengths = |seed: usize| seed * 5 % 7;
    let answers = at_once(&node, (0..16).map(|seed| pairs(seed, 1, lengths(seed))));
    for (seed, answer) in answers.join_all().await {
        assert_right(seed, lengths(seed), &answer.unwrap());
    }
    let statistics = node.statistics("ragged").await;
    assert_eq!(statistics.execution_count, 4);
    assert_eq!(statistics.batch_stats[0].batch_size, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_several_rows_fails_alone_where_the_model_counts_requests() {
    let (_repository, node) = Node::of("ragged", &format!("{FULL}{RAGGED}")).await;
    let requests = [pairs(0, 1, 3), pairs(1, 2, 2), pairs(2, 1, 1)];
    for (place, answer) in at_once(&node, requests).join_all().await {
        if place != 1 {
            assert_right(place, 3 - place, &answer.unwrap());
            continue;
        }
        let refused = answer.unwrap_err();
        let message = refused.message();
        assert!(
            message
                .contains("1 rows came out where 2 went in; of what is counted for each request"),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_neither_what_is_made_nor_that_batches_have_no_rows() {
    let (_repository, node) = Node::of("ragged", RAGGED).await;
    let metadata = ModelMetadataRequest {
        name: "ragged".to_owned(),
        ..ModelMetadataRequest::default()
    };
    let metadata = node.client().model_metadata(metadata).await.unwrap();
    let metadata = metadata.into_inner();
    assert_eq!(metadata.inputs.len(), 1);
    assert_eq!(metadata.inputs[0].shape, [-1, -1, 2]);
    assert_eq!(metadata.outputs[0].shape, [-1, -1, 2]);
    let config = node.config("ragged").await;
    assert_eq!((config.max_batch_size, config.input.len()), (32, 1));
    assert!(config.input[0].allow_ragged_batch);
    let kinds: Vec<Kind> = config.batch_input.iter().map(|made| made.kind()).collect();
    let expected = [
        Kind::BatchElementCount,
        Kind::BatchAccumulatedElementCount,
        Kind::BatchAccumulatedElementCountWithZero,
        Kind::BatchMaxElementCountAsShape,
        Kind::BatchItemShape,
        Kind::BatchItemShapeFlatten,
    ];
    assert_eq!(kinds, expected);
    assert_eq!(config.batch_input[2].target_name, ["bounds"]);
    assert_eq!(config.batch_output[0].source_input, ["values"]);
    let mut made = pairs(0, 1, 2);
    made.inputs.push(input("counts", "INT32", &[1]));
    made.raw_input_contents.push(vec![4, 0, 0, 0].into());
    let refused = node.infer(made).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("there is no input \"counts\""));
}

/// A simulated model that echoes what is laid end to end, and says where requests end.
fn simulate(repository: &Repository, outputs: &str, behaviour: &str) {
    fs::create_dir_all(repository.folder("m").join("1")).unwrap();
    let gate = gate(&repository.path(), "m");
    let text = format!(
        r#"max_batch_size = 16
[warm_up]
runs = 0
[ragged]
inputs = ["x"]
batch_inputs = [{{ kind = "accumulated_element_count", targets = ["ends"], source = "x" }}]
batch_outputs = [{{ targets = ["y"], source = "x" }}]
[simulated]
inputs = [{{ name = "x", dtype = "FP32", shape = [-1] }}, {{ name = "ends", dtype = "INT32", shape = [-1] }}]
outputs = [{{ name = "y", dtype = "FP32", shape = [-1] }}{outputs}]
waits_while_exists = {gate:?}
{behaviour}
"#
    );
    repository.configure("m", &text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_together_leaves_together() {
    let repository = Repository::new();
    simulate(&repository, "", "fixed_ms = 100");
    let node = Node::start(&repository.path()).await;
    let long = |seed: usize, rows: usize, length: usize| {
        let numbers = (0..rows * length).map(|index| (seed * 100 + index) as f32);
        raw("m", input("x", "FP32", &[rows, length]), bytes_of(numbers))
    };
    let occupant = Occupant::of(&node, "m", 16).await;
    let sent = (0..8).map(|seed| long(seed, 1 + seed % 2, 3 + seed));
    let waiting = enqueue(&node, sent).await;
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    let statistics = node.statistics("m").await;
    assert_eq!(statistics.inference_count, 2 * 16 + 12);
    assert_eq!(statistics.execution_count, 2 + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_whose_answers_depend_on_company_is_refused_at_load() {
    let repository = Repository::new();
    let ends = r#", { name = "ends", dtype = "INT32", shape = [-1] }"#;
    simulate(&repository, ends, "");
    let node = Node::start(&repository.path()).await;
    let reason = node.refusal().await;
    assert!(
        reason.contains("output ends of two requests together differs from each alone"),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_model_does_not_have_is_told() {
    for (from, to, expected) in [
        (
            "targets = [\"flat\"]",
            "targets = [\"nobody\"]",
            "there is no input \"nobody\"; the model has values FP32 [-1], counts INT32 [-1]",
        ),
        (
            "dtype = \"FP32\", source",
            "dtype = \"INT32\", source",
            "batch input \"ends\" is made as INT32, and the model takes ends FP32 [-1]",
        ),
        (
            "kind = \"item_shape\"",
            "kind = \"element_count\"",
            "batch input \"shapes\" is made as [-1], and the model takes shapes INT32 [-1,2]",
        ),
        (
            "shape = [-1, 2] }]\noutputs",
            "shape = [-1, 2], reshape = [-1, 2, 1] }]\noutputs",
            "\"values\" has a reshape, and no shape in a batch",
        ),
    ] {
        let changed = RAGGED.replacen(from, to, 1);
        assert_ne!(changed, RAGGED);
        let reason = refusal("ragged", &changed).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

/// As Triton's users write it for a model that keeps its batch dimension. Nobody waits for ever: some
/// may be of a length of their own.
const PADDED: &str = r#"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ -1 ] }, { name: "sum" data_type: TYPE_FP32 dims: [ ] } ]
dynamic_batching { max_queue_delay_microseconds: 300000 }
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_model_keeps_its_batch_dimension_the_shorter_are_padded() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    fs::write(
        repository.folder("variable_shape").join("config.pbtxt"),
        PADDED,
    )
    .unwrap();
    let node = Node::start(&repository.path()).await;
    let own = |place: usize| {
        (0..=place % 5)
            .map(|index| index as f32)
            .collect::<Vec<_>>()
    };
    let answers = at_once(&node, (0..32).map(|place| sequence(&own(place))));
    for (place, answer) in answers.join_all().await {
        assert_doubled(&answer.unwrap(), &own(place));
    }
    let statistics = node.statistics("variable_shape").await;
    assert!(statistics.execution_count < 32);
    assert!(node.config("variable_shape").await.input[0].allow_ragged_batch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding_is_of_others_or_of_the_same_and_never_of_what_is_laid() {
    let ragged = "[ragged]\ninputs = [\"x\"]\n";
    let named = format!("{ragged}[padding]\ndimension = \"sequence\"\n");
    let (_repository, node) = Node::of("variable_shape", &named).await;
    assert_doubled(
        &node.infer(sequence(&[1.0, 2.0])).await.unwrap(),
        &[1.0, 2.0],
    );
    let cut = "batch_outputs = [{ targets = [\"OUTPUT0\"], source = \"INPUT0\" }]";
    let fixed = format!("[ragged]\ninputs = [\"INPUT0\"]\n{cut}\n");
    let fixed = refusal("identity_fp32", &fixed).await;
    assert!(
        fixed.contains("input INPUT0 FP32 [-1,-1] has a batch dimension"),
        "{fixed}"
    );
    let both = format!("{RAGGED}[padding]\ndimension = \"total\"\n");
    let both = refusal("ragged", &both).await;
    assert!(both.contains("[padding] pads others"), "{both}");
}
