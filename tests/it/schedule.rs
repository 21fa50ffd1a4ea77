//! What was learned of a model decides who leaves, and priorities decide who leaves first.

use jitney::proto::infer_parameter::ParameterChoice;
use tonic::Code;

use super::node::Node;
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows, with_parameter};

async fn slow(policy: &str, fixed_ms: usize) -> (Repository, Node) {
    let repository = Repository::new();
    let model = Simulated {
        policy,
        simulated: &format!("fixed_ms = {fixed_ms}"),
        ..Simulated::default()
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    (repository, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_in_time_is_told_at_once_and_costs_nothing() {
    // Half a second is enough for a request to come to the queue, and not for it to run.
    let (_repository, node) = slow("", 1000).await;
    assert_echo(
        &node.infer(rows("m", 1, 1)).await.unwrap(),
        &rows("m", 1, 1),
    );
    let hurried = with_parameter(
        rows("m", 2, 1),
        "timeout",
        ParameterChoice::Int64Param(500_000),
    );
    let status = node.infer(hurried).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("expected to take "), "{status:?}");
    let patient = with_parameter(
        rows("m", 3, 1),
        "timeout",
        ParameterChoice::Int64Param(60_000_000),
    );
    assert!(node.infer(patient).await.is_ok());
    assert_eq!(node.statistics("m").await.execution_count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_more_urgent_leave_first() {
    let (_repository, node) = slow("max_batch_size = 1\ndefault_priority = 3", 0).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    let with_priority = |seed: usize, priority: i64| {
        let choice = ParameterChoice::Int64Param(priority);
        with_parameter(rows("m", seed, 1), "priority", choice)
    };
    // In the order in which they come; the second has the default.
    let requests = [with_priority(9, 10), rows("m", 3, 1), with_priority(1, 1)];
    let waiting = enqueue(&node, requests).await;
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    // By what the server says, an occupant first: answers that are close together come in any order.
    let trips = node.version("m").recent();
    let levels: Vec<u32> = trips.iter().map(|trip| trip.members[0].level).collect();
    assert_eq!(levels, [2, 0, 2, 2, 9]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preferred_size_leaves_before_the_delay_is_over() {
    let policy = "max_queue_delay_ms = 60000\npreferred_batch_sizes = [4]";
    let (_repository, node) = slow(policy, 1).await;
    assert_echo(
        &node.infer(rows("m", 1, 4)).await.unwrap(),
        &rows("m", 1, 4),
    );
}
