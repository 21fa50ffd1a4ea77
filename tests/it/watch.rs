//! With `watch`, what is served follows the repository by itself.

use std::os::unix::fs::symlink;

use jitney::config::RawServer;
use tonic::Code;

use super::node::Node;
use super::repository::Repository;
use super::request::{assert_doubled, sequence};

const NUMBERS: [f32; 3] = [1.0, 2.0, 4.0];

async fn watching(repository: &Repository) -> Node {
    let settings = RawServer {
        model_control: Some("watch".to_owned()),
        watch_interval_ms: Some("20".to_owned()),
        ..RawServer::default()
    };
    Node::with(&repository.path(), settings).await
}

async fn version_that_answers(node: &Node) -> String {
    let answer = node.infer(sequence(&NUMBERS)).await.unwrap();
    assert_doubled(&answer, &NUMBERS);
    answer.model_version
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_appears_is_served_and_what_goes_is_gone() {
    let repository = Repository::new();
    let node = watching(&repository).await;
    node.health("").await.until(true).await;
    repository.add("variable_shape", 1);
    node.until_ready("variable_shape", "1").await;
    assert_eq!(version_that_answers(&node).await, "1");
    repository.add("variable_shape", 2);
    node.until_ready("variable_shape", "2").await;
    assert_eq!(version_that_answers(&node).await, "2");
    let mut health = node.health("variable_shape").await;
    health.until(true).await;
    repository.remove("variable_shape");
    health.until_ended().await;
    assert!(!node.is_ready("variable_shape", "").await);
    let status = node.infer(sequence(&NUMBERS)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(node.index().await.is_empty());
    // What went may come back.
    repository.add("variable_shape", 1);
    node.until_ready("variable_shape", "1").await;
    assert_eq!(version_that_answers(&node).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_is_taken_away_gives_place_to_the_one_before() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.add("variable_shape", 2);
    let node = watching(&repository).await;
    assert_eq!(version_that_answers(&node).await, "2");
    std::fs::remove_dir_all(repository.folder("variable_shape").join("2")).unwrap();
    node.until_ready("variable_shape", "1").await;
    node.changes_until("version 2 is gone", async || {
        !node.is_ready("variable_shape", "2").await
    })
    .await;
    assert_eq!(version_that_answers(&node).await, "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_version_is_explained_and_the_old_one_serves() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = watching(&repository).await;
    repository.add_file("variable_shape", 2, b"not a model");
    node.changes_until("the index says why", async || {
        let entry = node.index_of("variable_shape", "2").await;
        entry.is_some_and(|entry| entry.reason.contains("variable_shape/2/model.onnx"))
    })
    .await;
    assert_eq!(version_that_answers(&node).await, "1");
    // A sound one after it is taken as any other.
    repository.add("variable_shape", 3);
    node.until_ready("variable_shape", "3").await;
    assert_eq!(version_that_answers(&node).await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mistake_in_model_toml_is_explained_and_the_old_one_serves() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = watching(&repository).await;
    repository.configure("variable_shape", "max_batch_size = 0\nversion = 3");
    node.changes_until("the index says every mistake", async || {
        let index = node.index().await;
        let says = |mistake: &str| index.iter().any(|entry| entry.reason.contains(mistake));
        says("toml:1: max_batch_size") && says("toml:2: version")
    })
    .await;
    assert_eq!(version_that_answers(&node).await, "1");
    repository.configure("variable_shape", "max_batch_size = 5");
    node.changes_until("the mistakes are corrected", async || {
        node.version("variable_shape").max_batch_size() == 5
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_may_not_be_looked_at_is_explained_and_the_old_one_serves() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = watching(&repository).await;
    std::fs::write(repository.beside("secret"), "").unwrap();
    let link = repository.folder("variable_shape").join("link");
    symlink(repository.beside("secret"), &link).unwrap();
    symlink(repository.beside("elsewhere"), repository.folder("other")).unwrap();
    std::fs::create_dir(repository.beside("elsewhere")).unwrap();
    let reason = async |model: &str, version: &str| {
        let entry = node.index_of(model, version).await;
        entry.map(|entry| entry.reason).unwrap_or_default()
    };
    let outside = "which is not in the repository";
    node.changes_until("both are explained", async || {
        reason("variable_shape", "1").await.contains(outside)
            && reason("other", "").await.contains(outside)
    })
    .await;
    assert_eq!(version_that_answers(&node).await, "1");
    // As it was before, it is well again, though nothing has to be loaded.
    std::fs::remove_file(link).unwrap();
    node.changes_until("there is nothing to say", async || {
        reason("variable_shape", "1").await.is_empty()
    })
    .await;
    assert_eq!(version_that_answers(&node).await, "1");
}
