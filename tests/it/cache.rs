//! Answers that are given again: the same as the first time, to whoever asks the same, and to nobody
//! else.

use jitney::config::RawServer;
use jitney::proto::ModelStatistics;
use tonic::Code;

use super::node::Node;
use super::repository::{Repository, Simulated};
use super::request::{assert_doubled, assert_echo, rows, sequence};

const CACHED: Simulated<'_> = Simulated {
    policy: "response_cache = true",
    instances: "",
    simulated: "",
};

async fn node(repository: &Repository, bytes: usize) -> Node {
    let settings = RawServer {
        response_cache_bytes: Some(bytes.to_string()),
        model_control: Some("explicit".to_owned()),
        ..RawServer::default()
    };
    Node::with(&repository.path(), settings).await
}

/// Hits, misses, and batches that ran.
fn counts(statistics: &ModelStatistics) -> (u64, u64, u64) {
    let durations = statistics.inference_stats.as_ref().unwrap();
    let hits = durations.cache_hit.as_ref().unwrap().count;
    let misses = durations.cache_miss.as_ref().unwrap().count;
    (hits, misses, statistics.execution_count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_asked_before_is_answered_without_a_run() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.configure("variable_shape", "response_cache = true");
    let node = node(&repository, 1 << 20).await;
    node.load("variable_shape").await.unwrap();
    let numbers = [1.0, 2.5, -3.0];
    let mut asked = sequence(&numbers);
    let ran = node.statistics("variable_shape").await.execution_count;
    asked.id = "first".to_owned();
    let first = node.infer(asked.clone()).await.unwrap();
    asked.id = "second".to_owned();
    let mut second = node.infer(asked).await.unwrap();
    assert_doubled(&second, &numbers);
    assert_eq!((&first.id[..], &second.id[..]), ("first", "second"));
    second.id.clone_from(&first.id);
    assert_eq!(second, first);
    let others = node.infer(sequence(&[1.0, 2.5])).await.unwrap();
    assert_doubled(&others, &[1.0, 2.5]);
    let statistics = node.statistics("variable_shape").await;
    assert_eq!(counts(&statistics), (1, 2, ran + 2));
    let durations = statistics.inference_stats.unwrap();
    assert_eq!(durations.success.unwrap().count, 3);
    assert_eq!(durations.queue.unwrap().count, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_forgets_what_the_former_version_said() {
    let repository = Repository::new();
    repository.simulate("m", CACHED);
    let node = node(&repository, 1 << 20).await;
    for _ in 0..2 {
        node.load("m").await.unwrap();
        let before = counts(&node.statistics("m").await);
        let asked = rows("m", 1, 1);
        for _ in 0..2 {
            assert_echo(&node.infer(asked.clone()).await.unwrap(), &asked);
        }
        let (hits, misses, runs) = counts(&node.statistics("m").await);
        let new = (hits - before.0, misses - before.1, runs - before.2);
        assert_eq!(new, (1, 1, 1));
        // What makes the next load a new one.
        repository.configure("m", &CACHED.text().replace("runs = 0", "runs = 0\n# anew"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hit_is_checked_as_a_miss_is_and_errors_are_not_kept() {
    let repository = Repository::new();
    let failing = Simulated {
        simulated: "fail_every = 2",
        ..CACHED
    };
    repository.simulate("m", failing);
    let node = node(&repository, 1 << 20).await;
    node.load("m").await.unwrap();
    let asked = rows("m", 1, 1);
    assert_echo(&node.infer(asked.clone()).await.unwrap(), &asked);
    let mut wrong = asked.clone();
    wrong.inputs[0].name = "z".to_owned();
    let refused = node.infer(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // The second run fails, the third does not; there is no third if the failure is kept.
    let other = rows("m", 2, 1);
    assert_eq!(
        node.infer(other.clone()).await.unwrap_err().code(),
        Code::Internal
    );
    for _ in 0..2 {
        assert_echo(&node.infer(other.clone()).await.unwrap(), &other);
    }
    assert_eq!(counts(&node.statistics("m").await), (1, 3, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn off_unless_the_server_and_the_model_say_so() {
    let repository = Repository::new();
    repository.simulate("cached", CACHED);
    repository.simulate("plain", Simulated::default());
    for (bytes, model) in [(0, "cached"), (1 << 20, "plain")] {
        let node = node(&repository, bytes).await;
        node.load(model).await.unwrap();
        let asked = rows(model, 1, 1);
        for _ in 0..2 {
            assert_echo(&node.infer(asked.clone()).await.unwrap(), &asked);
        }
        assert_eq!(counts(&node.statistics(model).await), (0, 0, 2));
    }
}
