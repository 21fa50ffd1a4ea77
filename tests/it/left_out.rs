//! Inputs that a request may leave out, of models that keep a state, and of requests laid end to end.

use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::{ModelInferRequest, ModelInferResponse};
use tokio::task::JoinSet;

use super::node::{Node, infer};
use super::repository::Repository;
use super::request::{bytes_of, floats, input, raw, with_parameter};

/// What the graphs have in the place of a factor.
const OWN: f32 = 10.0;

const STATEFUL: &str = r#"
max_batch_size = 4
max_queue_delay_ms = 60000
inputs = [
    { name = "x", dtype = "FP32", shape = [1] },
    { name = "factor", dtype = "FP32", shape = [1], optional = true },
]
[sequence]
states = [{ input = "kept", output = "kept_out" }]
max_idle_ms = 3600000
"#;

const RAGGED: &str = r#"
max_batch_size = 4
max_queue_delay_ms = 60000
inputs = [
    { name = "values", dtype = "FP32", shape = [-1] },
    { name = "factor", dtype = "FP32", shape = [1], optional = true },
]
[ragged]
inputs = ["values"]
batch_inputs = [{ kind = "accumulated_element_count_with_zero", targets = ["bounds"], source = "values" }]
"#;

async fn serve(model: &str, configuration: &str) -> (Repository, Node) {
    let (repository, node) = Node::of(model, configuration).await;
    let index = node.index_of(model, "1").await.unwrap();
    assert_eq!(index.state, "READY", "{index:?}");
    (repository, node)
}

fn with_factor(mut request: ModelInferRequest, factor: Option<f32>) -> ModelInferRequest {
    if let Some(factor) = factor {
        request.inputs.push(input("factor", "FP32", &[1, 1]));
        let data = bytes_of([factor].into_iter());
        request.raw_input_contents.push(data.into());
    }
    request
}

/// One number of a sequence, whose first it may be.
fn number(id: i64, x: f32, factor: Option<f32>, is_first: bool) -> ModelInferRequest {
    let data = bytes_of([x].into_iter());
    let request = with_factor(
        raw("optional_sum", input("x", "FP32", &[1, 1]), data),
        factor,
    );
    let request = with_parameter(request, "sequence_id", ParameterChoice::Int64Param(id));
    with_parameter(
        request,
        "sequence_start",
        ParameterChoice::BoolParam(is_first),
    )
}

fn sum(answer: &ModelInferResponse) -> f32 {
    floats(&answer.raw_output_contents[0])[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_goes_on_whatever_its_requests_leave_out() {
    let (_repository, node) = serve("optional_sum", STATEFUL).await;
    let before = node.statistics("optional_sum").await.execution_count;
    let mut expected = [0.0; 8];
    for step in 0..4 {
        let mut answers = JoinSet::new();
        for (place, expected) in expected.iter_mut().enumerate() {
            let x = (place * 10 + step) as f32;
            // Half of them bring it, each time others.
            let factor = ((place + step) % 2 == 1).then_some(-1.0 - step as f32);
            *expected += x * factor.unwrap_or(OWN);
            let request = number(place as i64 + 1, x, factor, step == 0);
            let answer = infer(node.client(), request);
            answers.spawn(async move { (place, sum(&answer.await.unwrap())) });
        }
        while let Some(answer) = answers.join_next().await {
            let (place, told) = answer.unwrap();
            assert_eq!(told, expected[place], "{place} {step}");
        }
    }
    // Those of a step share two batches: with a factor, and without.
    let after = node.statistics("optional_sum").await.execution_count;
    assert_eq!(after - before, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_laid_end_to_end_share_a_batch_with_those_that_leave_out_the_same() {
    let (_repository, node) = serve("optional_ragged", RAGGED).await;
    let before = node.statistics("optional_ragged").await.execution_count;
    let mut answers = JoinSet::new();
    for seed in 0..8_usize {
        let values: Vec<f32> = (0..=seed).map(|at| (seed * 10 + at) as f32).collect();
        let factor = (seed % 2 == 1).then_some(seed as f32);
        let expected = values.iter().sum::<f32>() * factor.unwrap_or(OWN);
        let data = bytes_of(values.iter().copied());
        let values = input("values", "FP32", &[1, values.len()]);
        let request = with_factor(raw("optional_ragged", values, data), factor);
        let answer = infer(node.client(), request);
        answers.spawn(async move { (expected, sum(&answer.await.unwrap())) });
    }
    while let Some(answer) = answers.join_next().await {
        let (expected, told) = answer.unwrap();
        assert_eq!(told, expected);
    }
    // Four each: those with a factor, and those without.
    let after = node.statistics("optional_ragged").await.execution_count;
    assert_eq!(after - before, 2);
}
