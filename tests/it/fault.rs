//! What fails, fails alone, and what went down comes back.

use jitney::proto::{ModelInferRequest, ServerReadyRequest};
use tonic::Code;

use super::node::Node;
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, bytes_of, input, raw, rows};

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
    let repository = faulty("fail_every = 3");
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
async fn an_executor_that_panics_is_made_again_and_nobody_sees() {
    let repository = faulty("panic_every = 3");
    let node = Node::start(&repository.path()).await;
    for seed in 0..9 {
        assert_eq!(outcome(&node, seed).await, Code::Ok);
    }
    let requests = node.statistics("m").await.inference_stats.unwrap();
    assert_eq!(requests.success.unwrap().count, 9);
    assert_eq!(requests.fail.unwrap().count, 0);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_device_had_is_run_by_another() {
    let repository = Repository::new();
    let lost = repository.beside("lost");
    let simulated = format!("lost_while_exists = {lost:?}");
    let model = Simulated {
        policy: "max_batch_size = 1",
        instances: "[[instances]]\ndevice = \"simulated:0\"\n[[instances]]\ndevice = \"simulated:1\"",
        simulated: &simulated,
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    let version = node.version("m");
    // Both devices have one, and one waits.
    let occupant = Occupant::of_all(&node, "m", 1, 2).await;
    let one = repository.beside("lost.0");
    std::fs::write(&one, "").unwrap();
    occupant.leaves().await;
    assert_eq!(node.statistics("m").await.inference_count, 3);
    assert_eq!(version.executors_alive(), 1);
    assert!(node.is_ready("m", "").await);
    std::fs::remove_file(&one).unwrap();
    let back = || async { version.executors_alive() == 2 };
    node.changes_until("the device is back", back).await;
}

/// Four requests travel together, and an executor panics on one of them.
async fn poisoned(instances: &str, executors: usize) {
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 4",
        instances,
        simulated: "panic_on = 13000",
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    let busy = Occupant::of_all(&node, "m", 4, executors).await;
    let seeds = [10, 11, 12, 13];
    let waiting = enqueue(&node, seeds.map(|seed| rows("m", seed, 1))).await;
    busy.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        if sent == rows("m", 13, 1) {
            assert_eq!(answer.unwrap_err().code(), Code::Internal);
        } else {
            assert_echo(&answer.unwrap(), &sent);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_an_executor_twice_fails_alone() {
    poisoned("[[instances]]\ndevice = \"simulated:0\"", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_breaks_two_executors_fails_alone() {
    let instances =
        "[[instances]]\ndevice = \"simulated:0\"\n[[instances]]\ndevice = \"simulated:1\"";
    poisoned(instances, 2).await;
}

/// A row of another shape than an occupant's.
fn wider(seed: usize) -> ModelInferRequest {
    let numbers = (0..7).map(|index| (seed * 10 + index) as f32);
    raw("m", input("x", "FP32", &[1, 7]), bytes_of(numbers))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_does_not_fit_into_memory_runs_in_parts() {
    let repository = faulty("device_memory_bytes = 100\nmemory_per_row_bytes = 20");
    let node = Node::start(&repository.path()).await;
    // Eight do not fit, so four and four run; and from then on no more than four leave together.
    for _ in 0..2 {
        let occupant = Occupant::of(&node, "m", 5).await;
        let members = enqueue(&node, (0..8).map(wider)).await;
        occupant.leaves().await;
        for (sent, answer) in members.join_all().await {
            assert_echo(&answer.unwrap(), &sent);
        }
    }
    let statistics = node.statistics("m").await;
    let sizes = statistics.batch_stats.iter();
    let sizes: Vec<_> = sizes
        .map(|batch| (batch.batch_size, batch.compute_infer.unwrap().count))
        .collect();
    assert_eq!(sizes, [(4, 4), (5, 4)]);
    // One that does not fit alone is told so, and nobody else.
    let large = node.infer(rows("m", 1, 6)).await.unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted);
    assert!(large.message().contains("out of memory"), "{large:?}");
}
