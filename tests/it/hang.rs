//! Executors in threads that hang are given up, and whoever waits for them is told.

use jitney::config::RawServer;
use tonic::Code;

use super::node::{Node, infer, until};
use super::occupant::Gate;
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};

fn impatient() -> RawServer {
    RawServer {
        executor_timeout_ms: Some("3000".to_owned()),
        ..RawServer::default()
    }
}

fn hangs(node: &Node) -> u64 {
    node.version("m").casualties().hangs.values().sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_hangs_is_given_up_and_welcomed_back() {
    let repository = Repository::of("max_batch_size = 1", "");
    repository.add("add_sub", 1);
    let node = Node::with(&repository.path(), impatient()).await;
    let (mut server, mut model) = (node.health("").await, node.health("m").await);
    server.until(true).await;
    model.until(true).await;
    for life in 1..=2 {
        let gate = Gate::close(&node, "m");
        let version = node.version("m");
        let offered = || version.demand().unwrap().offered;
        let before = offered();
        let first = tokio::spawn(infer(node.client(), rows("m", 0, 1)));
        let runs = || offered() == before + 1 && version.queued() == 0;
        until("the first runs", runs).await;
        let second = tokio::spawn(infer(node.client(), rows("m", 1, 1)));
        let first = first.await.unwrap().unwrap_err();
        assert_eq!(first.code(), Code::Internal);
        assert!(first.message().contains("hangs"), "{first:?}");
        assert_eq!(second.await.unwrap().unwrap_err().code(), Code::Unavailable);
        model.until(false).await;
        server.until(false).await;
        let refused = node.infer(rows("m", 2, 1)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        let entry = node.index_of("m", "1").await.unwrap();
        assert_eq!(entry.state, "UNAVAILABLE");
        assert!(entry.reason.contains("executor_timeout_ms"), "{entry:?}");
        assert!(node.is_ready("add_sub", "").await);
        assert_eq!(hangs(&node), life);
        gate.open();
        model.until(true).await;
        server.until(true).await;
        let sent = rows("m", 3, 1);
        assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_go_on_while_one_hangs() {
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 1\nexecutor_timeout_ms = 3000",
        instances: "[[instances]]\ncount = 2\ndevice = \"simulated:0\"",
        simulated: "hang_on = 1000",
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    // The first number of the rows with seed 1.
    let poison = node.infer(rows("m", 1, 1)).await.unwrap_err();
    assert_eq!(poison.code(), Code::Internal);
    assert!(node.is_ready("m", "").await);
    for seed in 2..10 {
        let sent = rows("m", seed, 1);
        assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
    }
    assert_eq!((hangs(&node), node.version("m").executors_alive()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_bound_a_run_may_take_as_long_as_it_likes() {
    let repository = Repository::of(
        "max_batch_size = 1\nexecutor_timeout_ms = 0",
        "fixed_ms = 5000",
    );
    let node = Node::with(&repository.path(), impatient()).await;
    let sent = rows("m", 1, 1);
    assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
    assert_eq!(hangs(&node), 0);
}
