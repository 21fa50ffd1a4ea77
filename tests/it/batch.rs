//! Requests that wait together travel together, and each gets its own answer back.

use jitney::proto::{ModelInferRequest, ModelInferResponse, ModelStatistics};
use tokio::task::JoinSet;

use super::node::{Node, infer, until};
use super::occupant::{Gate, Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_doubled, assert_echo, rows, sequence};

/// Sends all at once and gives each request with its answer.
async fn at_once(
    node: &Node,
    requests: impl Iterator<Item = ModelInferRequest>,
) -> Vec<(ModelInferRequest, ModelInferResponse)> {
    let mut answers = JoinSet::new();
    for request in requests {
        let client = node.client();
        answers.spawn(async move {
            let answer = infer(client, request.clone()).await.unwrap();
            (request, answer)
        });
    }
    answers.join_all().await
}

/// Every row is in exactly one batch, none of which is larger than it may be.
fn assert_accounts(statistics: &ModelStatistics, rows: usize, requests: usize, largest: u64) {
    let batches = || {
        statistics
            .batch_stats
            .iter()
            .map(|batch| (batch.batch_size, batch.compute_infer.unwrap().count))
    };
    let in_batches: u64 = batches().map(|(size, count)| size * count).sum();
    let count: u64 = batches().map(|(_, count)| count).sum();
    assert_eq!(in_batches, rows as u64);
    assert_eq!(count, statistics.execution_count);
    assert_eq!(statistics.inference_count, rows as u64);
    let success = statistics.inference_stats.unwrap().success.unwrap();
    assert_eq!(success.count, requests as u64);
    assert!(batches().all(|(size, _)| (1..=largest).contains(&size)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_leave_in_full_batches() {
    let repository = Repository::new();
    let simulated = Simulated {
        policy: "max_batch_size = 32",
        ..Simulated::default()
    };
    repository.simulate("m", simulated);
    let node = Node::start(&repository.path()).await;
    let occupant = Occupant::of(&node, "m", 32).await;
    let waiting = enqueue(&node, (0..64).map(|seed| rows("m", seed, 1))).await;
    let occupied = occupant.rows;
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    let statistics = node.statistics("m").await;
    assert_accounts(&statistics, occupied + 64, 66, 32);
    // Two occupants and two full batches.
    assert_eq!(statistics.execution_count, 4, "{statistics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_of_several_rows_are_never_torn_or_mixed_up() {
    let repository = Repository::new();
    let simulated = Simulated {
        policy: "max_batch_size = 8",
        simulated: "fixed_ms = 2",
        ..Simulated::default()
    };
    repository.simulate("m", simulated);
    let node = Node::start(&repository.path()).await;
    let sizes = |index: usize| 1 + index % 8;
    let answers = at_once(&node, (0..160).map(|seed| rows("m", seed, sizes(seed)))).await;
    for (sent, answer) in &answers {
        assert_echo(answer, sent);
    }
    let total = (0..160).map(sizes).sum();
    assert_accounts(&node.statistics("m").await, total, 160, 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn different_shapes_never_share_a_batch() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.configure("variable_shape", "max_queue_delay_ms = 20");
    let node = Node::start(&repository.path()).await;
    let numbers = |seed: usize| -> Vec<f32> {
        let length = seed % 7;
        (0..length).map(|index| (seed + index) as f32).collect()
    };
    let mut answers = JoinSet::new();
    for seed in 0..280 {
        let answer = infer(node.client(), sequence(&numbers(seed)));
        answers.spawn(async move { (seed, answer.await.unwrap()) });
    }
    for (seed, answer) in answers.join_all().await {
        assert_doubled(&answer, &numbers(seed));
    }
    let statistics = node.statistics("variable_shape").await;
    assert_accounts(&statistics, 280, 280, 32);
    // Seven shapes, forty each: at best 14 batches. That they form at all is the point.
    assert!(statistics.execution_count < 280, "{statistics:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instance_on_every_device_gets_work() {
    let repository = Repository::new();
    let instances: String = (0..4)
        .map(|device| format!("[[instances]]\ncount = 2\ndevice = \"simulated:{device}\"\n"))
        .collect();
    let simulated = Simulated {
        policy: "max_batch_size = 1",
        instances: &instances,
        ..Simulated::default()
    };
    repository.simulate("m", simulated);
    let node = Node::start(&repository.path()).await;
    let _gate = Gate::close(&node, "m");
    let version = node.version("m");
    let devices = ["simulated:0", "simulated:1", "simulated:2", "simulated:3"];
    assert_eq!(version.devices, devices.map(|device| [device; 2]).concat());
    let mut answers = JoinSet::new();
    for seed in 0..9 {
        answers.spawn(infer(node.client(), rows("m", seed, 1)));
    }
    // Nine requests of which none ends: eight run, one waits.
    let eight = || version.queued() == 1;
    until("eight of nine have left the queue", eight).await;
    assert!(answers.try_join_next().is_none());
}
