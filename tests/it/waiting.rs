//! How long requests wait, and how many, where the configuration bounds it.

use jitney::proto::ModelInferRequest;
use jitney::proto::infer_parameter::ParameterChoice;
use tonic::Code;

use super::node::{Node, within};
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

fn asking(request: ModelInferRequest, name: &str, number: i64) -> ModelInferRequest {
    with_parameter(request, name, ParameterChoice::Int64Param(number))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_is_refused_and_who_runs_is_not() {
    let policy = "max_batch_size = 1\nqueue_timeout = { allow_override = true }";
    let (_repository, node) = slow(policy, 2000).await;
    // Takes longer than it may wait, and does not wait; the second time that is known.
    for seed in [1, 2] {
        let request = asking(rows("m", seed, 1), "timeout", 1_800_000);
        assert_echo(&node.infer(request.clone()).await.unwrap(), &request);
    }
    let occupant = Occupant::of(&node, "m", 1).await;
    let refused = node.infer(asking(rows("m", 3, 1), "timeout", 1000)).await;
    let status = refused.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(
        status
            .message()
            .contains("the queue's timeout passed after"),
        "{status:?}"
    );
    occupant.leaves().await;
    assert_eq!(node.statistics("m").await.execution_count, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_too_long_lets_all_others_go_first() {
    let policy = "max_batch_size = 1\n\
        queue_timeout = { after_ms = 3600000, action = \"delay\", allow_override = true }";
    // Nothing tells that one has been put behind the others. It is long before the last batch of the
    // occupant ends.
    let (_repository, node) = slow(policy, 1500).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    // The first has waited too long at once.
    let requests = [
        asking(rows("m", 1, 1), "timeout", 1),
        rows("m", 2, 1),
        rows("m", 3, 1),
    ];
    let waiting = enqueue(&node, requests).await;
    occupant.leaves().await;
    for (request, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &request);
    }
    let trips = node.version("m").recent();
    let levels: Vec<u32> = trips.iter().map(|trip| trip.members[0].level).collect();
    let (last, others) = levels.split_last().unwrap();
    assert!(others.iter().all(|level| level < last), "{levels:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_priority_has_its_own_bound() {
    let policy = "max_batch_size = 1\npriority_levels = 2\ndefault_priority = 1\n\
        priorities = [{ level = 2, max_queue_size = 1 }]";
    let (_repository, node) = slow(policy, 0).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    let requests = [asking(rows("m", 1, 1), "priority", 2), rows("m", 2, 1)];
    let mut waiting = enqueue(&node, requests).await;
    let refused = node.infer(asking(rows("m", 3, 1), "priority", 2)).await;
    assert_eq!(refused.unwrap_err().code(), Code::ResourceExhausted);
    occupant.leaves().await;
    while let Some(answer) = within("an answer", waiting.join_next()).await {
        assert!(answer.unwrap().1.is_ok());
    }
    // Nobody waits any longer, so there is room.
    assert!(
        node.infer(asking(rows("m", 4, 1), "priority", 2))
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_leave_in_the_order_of_their_requests() {
    let policy = "max_batch_size = 1\npreserve_ordering = true";
    let (_repository, node) = slow(policy, 0).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    let mut waiting = enqueue(&node, [asking(rows("m", 1, 1), "priority", 10)]).await;
    let version = node.version("m");
    let urgent = asking(rows("m", 2, 1), "priority", 1);
    let urgent = super::node::infer(node.client(), urgent.clone());
    waiting.spawn(async move { (rows("m", 2, 1), urgent.await) });
    super::node::until("both wait", || version.queued() == 3).await;
    occupant.leaves().await;
    // The urgent one runs first, and its answer waits for the other's.
    let next = within("the first answer", waiting.join_next()).await;
    assert!(next.unwrap().unwrap().1.is_ok());
    assert_eq!(node.statistics("m").await.execution_count, 4);
    let next = within("the other answer", waiting.join_next()).await;
    assert!(next.unwrap().unwrap().1.is_ok());
}
