//! Where a model's time goes, asked for while it serves.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use jitney::config::RawServer;
use jitney::serving::Profile;
use jitney::status::{Code, Status};
use serde_json::Value;

use super::http::{Wire, post};
use super::node::{Node, within};
use super::request::{input, raw};
use super::workers::Isolated;

const PATIENCE: Duration = Duration::from_secs(20);

async fn digits() -> Node {
    Node::start(Path::new("examples/models")).await
}

async fn profile(node: &Node, batches: usize, patience: Duration) -> Result<Profile, Status> {
    let version = node.version("digits");
    let clock = &node.server.machine().clock;
    let profile = version.profile(clock.as_ref(), batches, patience);
    within("a profile", profile).await
}

/// Asks until this is over, and leaves nothing on its way.
async fn while_asked<T>(node: &Node, task: impl Future<Output = T>) -> T {
    let image = raw("digits", input("image", "FP32", &[1, 64]), vec![0; 256]);
    let over = Cell::new(false);
    let asking = async {
        while !over.get() {
            node.infer(image.clone()).await.unwrap();
        }
    };
    let task = async {
        let outcome = task.await;
        over.set(true);
        outcome
    };
    tokio::join!(task, asking).0
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_are_told_of_as_many_batches_as_were_asked_for() {
    told_of_operators(digits().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_in_a_process_of_its_own_has_a_profile_too() {
    let settings = Isolated::new().settings();
    told_of_operators(Node::with(Path::new("examples/models"), settings).await).await;
}

async fn told_of_operators(node: Node) {
    let Profile { trace, batches } = while_asked(&node, profile(&node, 3, PATIENCE))
        .await
        .unwrap();
    assert_eq!(batches, 3);
    let events: Vec<Value> = serde_json::from_slice(&trace).unwrap();
    let named = |name: &str| events.iter().filter(|event| event["name"] == name).count();
    assert_eq!(named("model_run"), 3);
    let of_operators = |event: &&Value| event["cat"] == "Node" && event["dur"].is_u64();
    assert!(events.iter().filter(of_operators).count() >= 3);
    // Its own executor goes on, and another profile can be made.
    let again = while_asked(&node, profile(&node, 1, PATIENCE)).await;
    assert_eq!(again.unwrap().batches, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nothing_runs_there_is_nothing_to_tell() {
    let node = digits().await;
    let nothing = profile(&node, 3, Duration::from_millis(20)).await;
    assert_eq!(nothing.unwrap_err().code, Code::Unavailable);
    // As many as came are told of, if fewer come than were asked for.
    let some = while_asked(&node, profile(&node, 1_000_000, Duration::from_secs(4))).await;
    assert!(some.unwrap().batches >= 1);
    // One at a time; and whoever is gone leaves nothing behind.
    let second = tokio::select! {
        refused = profile(&node, 1, PATIENCE) => refused,
        refused = profile(&node, 1, PATIENCE) => refused,
    };
    assert_eq!(second.unwrap_err().code, Code::FailedPrecondition);
    let after = while_asked(&node, profile(&node, 2, PATIENCE)).await;
    assert_eq!(after.unwrap().batches, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_profile_is_downloaded_where_the_operator_lets_it() {
    let settings = RawServer {
        console: Some("control".to_owned()),
        model_control: Some("explicit".to_owned()),
        load_model: vec!["digits".to_owned()],
        ..RawServer::default()
    };
    let node = Node::with(Path::new("examples/models"), settings).await;
    let path = "/console/profile?model=digits&batches=2";
    let ask = async |node: &Node| {
        let mut wire = Wire::to(node.server.http_address().unwrap()).await;
        wire.ask(post(path, &[], Vec::new())).await
    };
    let answer = while_asked(&node, ask(&node)).await;
    assert_eq!(answer.status, 200);
    assert!(answer.json().as_array().unwrap().len() > 2);
    let refused = ask(&digits().await).await;
    assert_eq!(refused.status, 400);
    assert!(refused.error().contains("--console control"));
}
