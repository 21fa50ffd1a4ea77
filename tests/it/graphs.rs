//! What ONNX Runtime makes of a model at load is kept, and used while it is as it was written.

use std::fs;
use std::path::{Path, PathBuf};

use jitney::config::RawServer;
use tempfile::TempDir;

use super::node::Node;
use super::repository::Repository;
use super::request::{bytes_of, input, raw};

fn settings(cache: &TempDir) -> RawServer {
    RawServer {
        graph_cache_bytes: Some("1000000".to_owned()),
        cache_dir: Some(cache.path().to_owned()),
        ..RawServer::default()
    }
}

/// The graphs that are kept.
fn graphs(cache: &TempDir) -> Vec<PathBuf> {
    let folder = fs::read_dir(cache.path().join("graphs"));
    let entries = folder.into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Serves the sample digits, and gives what the model answers.
async fn answer(repository: &Path, cache: &TempDir) -> Vec<u8> {
    let node = Node::with(repository, settings(cache)).await;
    assert!(node.is_ready("digits", "").await);
    let image = bytes_of((0..64).map(|pixel| (pixel % 17) as f32));
    let request = raw("digits", input("image", "FP32", &[1, 64]), image);
    let answer = node.infer(request).await.unwrap();
    answer.raw_output_contents.concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_that_is_kept_answers_as_the_model_does() {
    let repository = Repository::new();
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/models/digits/1/model.onnx");
    repository.add_file("digits", 1, &fs::read(digits).unwrap());
    let cache = TempDir::new().unwrap();
    let first = answer(&repository.path(), &cache).await;
    let kept = graphs(&cache);
    let [graph] = &kept[..] else {
        panic!("one graph: {kept:?}")
    };
    let written = fs::metadata(graph).unwrap().modified().unwrap();
    assert_eq!(answer(&repository.path(), &cache).await, first);
    // It was used.
    assert_eq!(graphs(&cache), kept);
    assert!(fs::metadata(graph).unwrap().modified().unwrap() > written);

    // What is no longer what was written is made anew.
    let whole = fs::read(graph).unwrap();
    fs::write(graph, &whole[..whole.len() / 2]).unwrap();
    assert_eq!(answer(&repository.path(), &cache).await, first);
    assert_eq!(graphs(&cache), kept);
    assert_eq!(fs::read(graph).unwrap(), whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_graph_that_does_not_load_is_made_anew() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    let cache = TempDir::new().unwrap();
    drop(Node::with(&repository.path(), settings(&cache)).await);
    let kept = graphs(&cache);
    let [graph] = &kept[..] else {
        panic!("one graph: {kept:?}")
    };
    // As it was written, by its name, and no model.
    let name = graph.file_name().unwrap().to_str().unwrap();
    let (key, _) = name.split_once('-').unwrap();
    let digest = blake3::hash(b"no model").to_hex();
    fs::write(
        graph.with_file_name(format!("{key}-{digest}.onnx")),
        "no model",
    )
    .unwrap();
    fs::remove_file(graph).unwrap();
    let node = Node::with(&repository.path(), settings(&cache)).await;
    assert!(node.is_ready("add_sub", "").await);
    assert_eq!(graphs(&cache), kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_does_not_load_says_why_and_keeps_nothing() {
    let repository = Repository::new();
    repository.add_file("broken", 1, b"not a model");
    let cache = TempDir::new().unwrap();
    let node = Node::with(&repository.path(), settings(&cache)).await;
    let broken = node.index_of("broken", "1").await.unwrap();
    assert!(broken.reason.contains("broken/1/model.onnx"), "{broken:?}");
    assert_eq!(graphs(&cache), Vec::<PathBuf>::new());
}
