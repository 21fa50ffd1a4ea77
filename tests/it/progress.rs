//! While models load, everybody who asks is told how far they are.

use std::fs;
use std::path::PathBuf;

use jitney::config::RawServer;
use jitney::frontend::{LIVE, ProbeError, probe};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::Code;

use super::http::{Wire, get};
use super::node::{HANG, Node, load, within};
use super::repository::{Repository, Simulated, gate};
use super::request::rows;

const INSTANCES: &str = "[[instances]]
count = 2
device = \"simulated:0\"
[padding]
axes.x = 1
axes.y = 1
lengths = [8, 16]";

/// Adds a simulated model that is warmed up, once its gate is open.
fn add(repository: &Repository, name: &str, simulated: Simulated<'_>) -> PathBuf {
    let gate = gate(&repository.path(), name);
    let text = simulated.text().replace("runs = 0", "runs = 1");
    fs::create_dir_all(repository.folder(name).join("1")).unwrap();
    repository.configure(name, &format!("{text}waits_while_exists = {gate:?}\n"));
    gate
}

fn explicit(cache: &TempDir) -> RawServer {
    RawServer {
        model_control: Some("explicit".to_owned()),
        load_threads: Some("3".to_owned()),
        device_memory_bytes: Some("100".to_owned()),
        cache_dir: Some(cache.path().to_owned()),
        ..RawServer::default()
    }
}

async fn told(node: &Node, path: &str) -> Value {
    let mut wire = Wire::to(node.server.address()).await;
    wire.ask(get(path)).await.json()
}

/// Waits until the index says of a model that its load is at a phase.
async fn until_at(node: &Node, model: &str, phase: &str) {
    within(phase, async {
        loop {
            if let Some(entry) = node.index_of(model, "1").await {
                assert_eq!(entry.state, "LOADING", "{entry:?}");
                if entry.reason.contains(phase) {
                    return;
                }
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_are_answered_while_models_load() {
    let repository = Repository::new();
    let gate = add(&repository, "m", Simulated::default());
    fs::write(&gate, "").unwrap();
    let node = Node::starting(&repository.path(), RawServer::default()).await;
    let address = node.server.address();
    probe(address, None, LIVE, HANG).await.unwrap();
    let said = probe(address, None, "", HANG).await.unwrap_err();
    assert!(matches!(said, ProbeError::NotServing(_)), "{said}");
    until_at(&node, "m", "warming up, 0 of 2 batches").await;
    let ready = told(&node, "/v2/health/ready").await;
    assert_eq!(ready["reason"], "m 1: warming up, 0 of 2 batches");
    fs::remove_file(&gate).unwrap();
    within("the start", node.server.started()).await;
    assert_eq!(
        told(&node, "/v2/health/ready").await,
        json!({"ready": true})
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_that_does_not_end_keeps_no_other_waiting_while_a_thread_is_left() {
    let repository = Repository::new();
    let gates = ["stuck", "stuck_too"].map(|model| add(&repository, model, Simulated::default()));
    for gate in &gates {
        fs::write(gate, "").unwrap();
    }
    for model in ["one", "two"] {
        add(&repository, model, Simulated::default());
    }
    let settings = RawServer {
        model_control: Some("explicit".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let first = tokio::spawn(load(node.client(), "stuck"));
    until_at(&node, "stuck", "warming up").await;
    node.load("one").await.unwrap();
    let second = tokio::spawn(load(node.client(), "stuck_too"));
    until_at(&node, "stuck_too", "warming up").await;
    // Now none is left, and that is said.
    let third = tokio::spawn(load(node.client(), "two"));
    until_at(&node, "two", "waiting for its turn (load_threads)").await;
    for gate in &gates {
        fs::remove_file(gate).unwrap();
    }
    for load in [first, second, third] {
        load.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_says_how_far_it_is_until_every_bucket_is_warm() {
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 4\nbatch_sizes = [1, 2, 4]",
        instances: INSTANCES,
        ..Simulated::default()
    };
    let gate = add(&repository, "m", model);
    let cache = TempDir::new().unwrap();
    let settings = RawServer {
        device_memory_bytes: None,
        ..explicit(&cache)
    };
    let node = Node::with(&repository.path(), settings).await;
    fs::write(&gate, "").unwrap();
    let (load, client) = (node.client(), node.client());
    let load = tokio::spawn(super::node::load(load, "m"));
    until_at(&node, "m", "trying it").await;
    // Whoever asks is answered, and told why not.
    let refused = super::node::infer(client, rows("m", 1, 1))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(
        refused
            .message()
            .contains("m\" version 1 is LOADING: trying it"),
        "{refused:?}"
    );
    let ready = told(&node, "/v2/models/m/ready").await;
    assert_eq!(ready["ready"], false);
    assert!(ready["reason"].as_str().unwrap().contains("trying it"));
    let state = told(&node, "/console/state").await;
    assert_eq!(state["models"][0]["loading"]["phase"], "warm_up");
    let mut wire = Wire::to(node.server.address()).await;
    let metrics = wire.ask(get("/metrics")).await.body;
    let metrics = String::from_utf8(metrics).unwrap();
    let line = r#"jitney_model_load_phase{model="m",version="1",phase="warm_up"} 1"#;
    assert!(metrics.contains(line), "{metrics}");

    fs::remove_file(&gate).unwrap();
    within("the load", load).await.unwrap().unwrap();
    assert!(node.is_ready("m", "").await);
    assert_eq!(node.index_of("m", "1").await.unwrap().reason, "");
    // Both instances, each with three numbers of rows of two lengths.
    let learned: Vec<_> = node.version("m").service_times().collect();
    let [(_, times)] = &learned[..] else {
        panic!("one device: {learned:?}")
    };
    assert_eq!(times.batches, 12);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_known_to_fit_is_loaded_side_by_side() {
    let repository = Repository::new();
    let model = Simulated {
        instances: "[[instances]]\ndevice = \"simulated:0\"",
        simulated: "memory_bytes = 40",
        ..Simulated::default()
    };
    let gates = ["a", "b", "c"].map(|name| add(&repository, name, model));
    let cache = TempDir::new().unwrap();
    // Each is measured once.
    let node = Node::with(&repository.path(), explicit(&cache)).await;
    for name in ["a", "b", "c"] {
        node.load(name).await.unwrap_or_else(|error| {
            assert!(name == "c", "{error}");
        });
    }
    node.unload("a").await.unwrap();
    within("c fits", async { while node.load("c").await.is_err() {} }).await;
    drop(node);

    let node = Node::with(&repository.path(), explicit(&cache)).await;
    gates.iter().for_each(|gate| fs::write(gate, "").unwrap());
    let a = tokio::spawn(super::node::load(node.client(), "a"));
    let b = tokio::spawn(super::node::load(node.client(), "b"));
    until_at(&node, "a", "warming up").await;
    until_at(&node, "b", "warming up").await;
    // What they will take counts before they have it.
    let refused = node.load("c").await.unwrap_err();
    let numbers = "simulated:0: 40 bytes are needed, and models have taken 80 of 100";
    assert!(refused.message().contains(numbers), "{refused:?}");
    gates.iter().for_each(|gate| fs::remove_file(gate).unwrap());
    for load in [a, b] {
        within("a load", load).await.unwrap().unwrap();
    }
    // What did not come to be gives its memory back.
    node.unload("a").await.unwrap();
    within("c fits", async { while node.load("c").await.is_err() {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_known_is_measured_alone() {
    let repository = Repository::new();
    let model = Simulated {
        instances: "[[instances]]\ndevice = \"simulated:0\"",
        simulated: "memory_bytes = 40",
        ..Simulated::default()
    };
    let gates = ["a", "b"].map(|name| add(&repository, name, model));
    let cache = TempDir::new().unwrap();
    let node = Node::with(&repository.path(), explicit(&cache)).await;
    gates.iter().for_each(|gate| fs::write(gate, "").unwrap());
    let a = tokio::spawn(super::node::load(node.client(), "a"));
    until_at(&node, "a", "warming up").await;
    let b = tokio::spawn(super::node::load(node.client(), "b"));
    until_at(&node, "b", "waiting for memory").await;
    gates.iter().for_each(|gate| fs::remove_file(gate).unwrap());
    for load in [a, b] {
        within("a load", load).await.unwrap().unwrap();
    }
}
