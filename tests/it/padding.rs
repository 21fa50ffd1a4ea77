//! Rows of different lengths travel together, and get back what is theirs.

use jitney::proto::ModelInferRequest;
use tokio::task::JoinSet;
use tonic::Code;

use super::node::{Node, infer};
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_doubled, assert_echo, bytes_of, input, raw, sequence};

const AXES: &str = "axes = { x = 1, y = 1 }";

/// Rows of such a length, no two alike.
fn long(seed: usize, rows: usize, length: usize) -> ModelInferRequest {
    let numbers = (0..rows * length).map(|index| (seed * 10_000 + index) as f32);
    raw("m", input("x", "FP32", &[rows, length]), bytes_of(numbers))
}

async fn padded(padding: &str, simulated: &str) -> (Repository, Node) {
    let repository = Repository::new();
    let instances = format!("[padding]\n{padding}");
    let model = Simulated {
        policy: "max_batch_size = 16",
        instances: &instances,
        simulated,
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    (repository, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_different_lengths_share_a_batch() {
    let (_repository, node) = padded(AXES, "fixed_ms = 500").await;
    // One row and sixteen take the same time: that is how it is known what a row costs. Of what has been
    // seen so often the time at the gate, which counts as a stall, changes little.
    for seed in 0..4 {
        node.infer(long(seed, 1, 4)).await.unwrap();
        node.infer(long(seed, 16, 4)).await.unwrap();
    }
    let occupant = Occupant::of(&node, "m", 16).await;
    let sent = (0..8).map(|seed| long(seed, 1 + seed % 2, 3 + seed));
    let waiting = enqueue(&node, sent).await;
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    // A batch costs so much that everybody goes together.
    let statistics = node.statistics("m").await;
    assert_eq!(statistics.execution_count, 8 + 2 + 1);
    let before = 4 * (1 + 16) * 4 + 2 * 16 * 4;
    let own: usize = before
        + (0..8)
            .map(|seed| (1 + seed % 2) * (3 + seed))
            .sum::<usize>();
    assert_eq!(statistics.own_tokens, own as u64);
    assert_eq!(statistics.run_tokens, before as u64 + 12 * 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_short_do_not_pay_for_the_long() {
    // A batch costs what an element costs: nobody is padded to twice his length.
    let (_repository, node) = padded(AXES, "fixed_ms = 0.1\nper_element_ms = 1").await;
    let occupant = Occupant::of(&node, "m", 16).await;
    let sent = [4, 64, 4, 64].map(|length| long(length, 1, length));
    let waiting = enqueue(&node, sent).await;
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    let statistics = node.statistics("m").await;
    assert_eq!(statistics.own_tokens, statistics.run_tokens);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn given_lengths_and_tokens_are_kept() {
    let padding = format!("{AXES}\nlengths = [8, 16]\nmax_batch_tokens = 64");
    let (_repository, node) = padded(&padding, "").await;
    assert_echo(&node.infer(long(1, 2, 3)).await.unwrap(), &long(1, 2, 3));
    let statistics = node.statistics("m").await;
    assert_eq!((statistics.own_tokens, statistics.run_tokens), (6, 16));
    let longer = node.infer(long(1, 1, 17)).await.unwrap_err();
    assert_eq!(longer.code(), Code::InvalidArgument);
    assert!(longer.message().contains("padding.lengths"), "{longer:?}");
    let more = node.infer(long(1, 5, 9)).await.unwrap_err();
    assert_eq!(more.code(), Code::InvalidArgument);
    assert!(more.message().contains("max_batch_tokens"), "{more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn onnx_runtime_sees_what_is_padded_and_nobody_else_does() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    // Until a batch is full it waits for company, but not for ever: some are of a length of their own.
    repository.configure(
        "variable_shape",
        "max_batch_size = 8\nmax_queue_delay_ms = 300\n[padding]\ndimension = \"sequence\"",
    );
    let node = Node::start(&repository.path()).await;
    let mut answers = JoinSet::new();
    for seed in 0..32 {
        let numbers: Vec<f32> = (0..=seed % 5)
            .map(|index| (seed * 8 + index) as f32)
            .collect();
        let answer = infer(node.client(), sequence(&numbers));
        answers.spawn(async move { (numbers, answer.await.unwrap()) });
    }
    for (numbers, answer) in answers.join_all().await {
        assert_doubled(&answer, &numbers);
    }
    assert!(node.statistics("variable_shape").await.execution_count < 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn padding_that_would_change_an_answer_is_refused_at_load() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.configure(
        "variable_shape",
        "[padding]\ndimension = \"sequence\"\nvalues = { x = 1 }",
    );
    let node = Node::start(&repository.path()).await;
    let index = node.index_of("variable_shape", "1").await.unwrap();
    assert_eq!(index.state, "UNAVAILABLE");
    assert!(
        index
            .reason
            .contains("output sum of a row changes when the row is padded"),
        "{index:?}"
    );
}
