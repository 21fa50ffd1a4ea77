//! Models share a device's time by their weights, however many instances they have.

use tokio::task::JoinSet;

use super::node::{Node, infer, until};
use super::occupant::Waiting;
use super::repository::{Repository, Simulated};
use super::request::rows;

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

/// How many batches of the first model run for each of the second. Both have requests waiting all the
/// while, and are counted inside the server: how fast requests come plays no part, and one look that
/// comes late finds more of both. Of three counts it is the one between: when a thread stands still, the
/// device's time is charged to whoever has it.
pub(crate) async fn share(node: &Node, first: &str, second: &str) -> f64 {
    let _few = send(node, second, 300);
    let _many = send(node, first, 700);
    let (first, second) = (node.version(first), node.version(second));
    let both_wait = || first.queued() > 420 && second.queued() > 170;
    until("requests of both wait", both_wait).await;
    let ran = || (first.statistics().batches, second.statistics().batches);
    let mut shares = Vec::new();
    for _ in 0..3 {
        let before = ran();
        until("fifty more have run", || ran().1 >= before.1 + 50).await;
        let after = ran();
        shares.push((after.0 - before.0) as f64 / (after.1 - before.1) as f64);
    }
    shares.sort_by(f64::total_cmp);
    shares[1]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_model_does_not_starve_a_quiet_one() {
    let (_repository, node) = shared(1).await;
    // By instances it would be 8.
    let busy = share(&node, "busy", "quiet").await;
    assert!((0.6..=1.8).contains(&busy), "{busy} for each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_has_its_weight_of_the_device() {
    let (_repository, node) = shared(4).await;
    let busy = share(&node, "busy", "quiet").await;
    assert!((0.1..=0.9).contains(&busy), "{busy} for each");
}
