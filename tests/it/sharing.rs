//! Models share a device's time by their weights, however many instances they have.

use tokio::task::JoinSet;

use super::node::{Node, infer, until};
use super::occupant::Waiting;
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};

/// Two models on a device that slices its time, 30 ms of which each batch needs, beside which the time
/// until a thread runs does not count: one that has many
/// instances and more requests than anybody wants, and one that has a single instance.
async fn shared(weight: u32) -> (Repository, Node) {
    let repository = Repository::new();
    let policy = format!("max_batch_size = 1\nweight = {weight}");
    let busy = Simulated {
        policy: "max_batch_size = 1",
        instances: "[[instances]]\ncount = 8\ndevice = \"simulated:0\"",
        simulated: "fixed_ms = 30\ntime_sliced = true",
    };
    let quiet = Simulated {
        policy: &policy,
        instances: "[[instances]]\ncount = 1\ndevice = \"simulated:0\"",
        ..busy
    };
    repository.simulate("busy", busy);
    repository.simulate("quiet", quiet);
    let node = Node::start(&repository.path()).await;
    (repository, node)
}

pub(crate) fn send(node: &Node, model: &str, requests: usize) -> Waiting {
    let mut answers = JoinSet::new();
    for request in (0..requests).map(|seed| rows(model, seed, 1)) {
        let answer = infer(node.client(), request.clone());
        answers.spawn(async move { (request, answer.await) });
    }
    answers
}

/// How many batches of the busy model run while fifty of the quiet one do. Both have more waiting all
/// the while, and are counted inside the server: how fast requests come plays no part.
async fn run_beside_fifty(node: &Node) -> u64 {
    let answers = send(node, "quiet", 120);
    let _flood = send(node, "busy", 600);
    let (busy, quiet) = (node.version("busy"), node.version("quiet"));
    let both_wait = || busy.queued() > 420 && quiet.queued() > 60;
    until("requests of both wait", both_wait).await;
    let ran = || (busy.statistics().batches, quiet.statistics().batches);
    let before = ran();
    until("fifty more have run", || ran().1 >= before.1 + 50).await;
    let beside = ran().0 - before.0;
    for (sent, answer) in answers.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    beside
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_model_does_not_starve_a_quiet_one() {
    let (_repository, node) = shared(1).await;
    // By instances it would be 400.
    let busy = run_beside_fifty(&node).await;
    assert!((30..=90).contains(&busy), "{busy} beside 50");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_has_its_weight_of_the_device() {
    let (_repository, node) = shared(4).await;
    let busy = run_beside_fifty(&node).await;
    assert!((5..=45).contains(&busy), "{busy} beside 50");
}
