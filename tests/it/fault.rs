//! What fails, fails alone, and what went down comes back.

use jitney::proto::ServerReadyRequest;
use tonic::Code;

use super::node::Node;
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};

fn faulty(simulated: &str) -> Repository {
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 8",
        instances: "[[instances]]\ndevice = \"simulated:0\"",
        simulated,
    };
    repository.simulate("m", model);
    repository
}

/// Sends one row and says how it ended, having checked the answer if there is one.
async fn outcome(node: &Node, seed: usize) -> Code {
    match node.infer(rows("m", seed, 1)).await {
        Ok(answer) => {
            assert_echo(&answer, &rows("m", seed, 1));
            Code::Ok
        }
        Err(status) => status.code(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_run_fails_its_request_and_no_other() {
    let repository = faulty("fail_every = 3");
    let node = Node::start(&repository.path()).await;
    for run in 1..=9 {
        let expected = if run % 3 == 0 {
            Code::Internal
        } else {
            Code::Ok
        };
        assert_eq!(outcome(&node, run).await, expected, "run {run}");
    }
    let statistics = node.statistics("m").await;
    let requests = statistics.inference_stats.unwrap();
    assert_eq!(requests.success.unwrap().count, 6);
    assert_eq!(requests.fail.unwrap().count, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_a_failed_batch_are_tried_one_by_one() {
    let repository = faulty("fail_every = 3\nfixed_ms = 300");
    let node = Node::start(&repository.path()).await;
    // Runs 1 and 2 are the occupant's, run 3 fails with four members, who become runs 4 to 7.
    let occupant = Occupant::of(&node, "m", 8).await;
    let members = enqueue(&node, (0..4).map(|seed| rows("m", seed, 1))).await;
    occupant.leaves().await;
    let mut failed = 0;
    for (sent, answer) in members.join_all().await {
        match answer {
            Ok(answer) => assert_echo(&answer, &sent),
            Err(status) => {
                assert_eq!(status.code(), Code::Internal);
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 1);
    assert!(node.is_ready("m", "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_that_panics_comes_back() {
    let repository = faulty("panic_every = 3");
    let node = Node::start(&repository.path()).await;
    for life in 0..3 {
        assert_eq!(outcome(&node, life).await, Code::Ok);
        assert_eq!(outcome(&node, life).await, Code::Ok);
        assert_eq!(outcome(&node, life).await, Code::Internal);
        node.until_ready("m", "").await;
    }
    let requests = node.statistics("m").await.inference_stats.unwrap();
    assert_eq!(requests.success.unwrap().count, 6);
    assert_eq!(requests.fail.unwrap().count, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_fails_the_members_of_its_batch() {
    let repository = faulty("panic_every = 3\nfixed_ms = 300");
    let node = Node::start(&repository.path()).await;
    let occupant = Occupant::of(&node, "m", 8).await;
    let members = enqueue(&node, (0..8).map(|seed| rows("m", seed, 1))).await;
    occupant.leaves().await;
    for (_, answer) in members.join_all().await {
        assert_eq!(answer.unwrap_err().code(), Code::Internal);
    }
    node.until_ready("m", "").await;
    assert_eq!(outcome(&node, 9).await, Code::Ok);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_device_is_told_to_everyone_and_comes_back() {
    let repository = Repository::new();
    let lost = repository.beside("lost");
    let simulated = format!("lost_while_exists = {lost:?}");
    let model = Simulated {
        instances: "[[instances]]\ndevice = \"simulated:0\"",
        simulated: &simulated,
        ..Simulated::default()
    };
    repository.simulate("m", model);
    repository.add("add_sub", 1);
    let node = Node::start(&repository.path()).await;
    let (mut server, mut model) = (node.health("").await, node.health("m").await);
    let ready = async |node: &Node| {
        let answer = node.client().server_ready(ServerReadyRequest {}).await;
        answer.unwrap().into_inner().ready
    };
    server.until(true).await;
    model.until(true).await;
    for life in 0..2 {
        assert_eq!(outcome(&node, life).await, Code::Ok);
        std::fs::write(&lost, "").unwrap();
        // The first finds out; the second is told at once.
        assert_eq!(outcome(&node, life).await, Code::Unavailable);
        model.until(false).await;
        server.until(false).await;
        assert_eq!(outcome(&node, life).await, Code::Unavailable);
        assert!(!node.is_ready("m", "").await);
        assert!(!ready(&node).await);
        assert!(node.is_ready("add_sub", "").await);
        std::fs::remove_file(&lost).unwrap();
        model.until(true).await;
        server.until(true).await;
        assert!(node.is_ready("m", "").await);
        assert!(ready(&node).await);
    }
    assert_eq!(outcome(&node, 9).await, Code::Ok);
}
