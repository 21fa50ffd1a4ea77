//! A device's memory is shared out among models, and who does not fit is told the numbers.

use jitney::config::RawServer;
use tonic::Code;

use super::node::{Node, until, within};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};
use super::workers::Isolated;

/// Models of 40 bytes each on a device of which models may take 100; their instances share them.
async fn crowded(models: &[&str], settings: RawServer) -> (Repository, Node) {
    let repository = Repository::new();
    for name in models {
        let model = Simulated {
            instances: "[[instances]]\ncount = 3\ndevice = \"simulated:0\"",
            simulated: "memory_bytes = 40",
            ..Simulated::default()
        };
        repository.simulate(name, model);
    }
    let settings = RawServer {
        device_memory_bytes: Some("100".to_owned()),
        model_control: Some("explicit".to_owned()),
        ..settings
    };
    let node = Node::with(&repository.path(), settings).await;
    (repository, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_does_not_fit_is_refused_with_the_numbers() {
    let (_repository, node) = crowded(&["a", "b", "c"], RawServer::default()).await;
    node.load("a").await.unwrap();
    node.load("b").await.unwrap();
    let refused = node.load("c").await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let numbers = "simulated:0: 40 bytes are needed, and models have taken 80 of 100";
    assert!(refused.message().contains(numbers), "{refused:?}");
    let [memory] = &node.statistics("a").await.memory_usage[..] else {
        panic!("one device")
    };
    assert_eq!(memory.byte_size, 40);
    // What is unloaded makes room.
    node.unload("a").await.unwrap();
    loop {
        match node.load("c").await {
            Ok(()) => break,
            // The last who knew it may still be leaving.
            Err(refused) => assert!(refused.message().contains("taken 80"), "{refused:?}"),
        }
    }
    assert_echo(
        &node.infer(rows("c", 1, 1)).await.unwrap(),
        &rows("c", 1, 1),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_recently_used_makes_room_where_it_may() {
    let settings = RawServer {
        unload_least_used: Some("true".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = crowded(&["a", "b", "c"], settings).await;
    node.load("a").await.unwrap();
    node.load("b").await.unwrap();
    // Of two, b has never run.
    node.infer(rows("a", 1, 1)).await.unwrap();
    node.load("c").await.unwrap();
    assert!(node.is_ready("a", "").await && node.is_ready("c", "").await);
    let gone = node.index_of("b", "1").await.unwrap();
    assert_eq!(gone.state, "UNAVAILABLE");
    assert!(
        gone.reason.contains("unloaded to make room for c"),
        "{gone:?}"
    );
    // And comes back when it is asked for, in the place of one of the others.
    node.load("b").await.unwrap();
    assert_echo(
        &node.infer(rows("b", 1, 1)).await.unwrap(),
        &rows("b", 1, 1),
    );
    assert_eq!(node.server.catalog().serving().len(), 2);
}

/// Bytes that a process has resident for itself.
fn resident(process: i32) -> i64 {
    let about = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let of = |key| {
        let line = about.lines().find_map(|line| line.strip_prefix(key));
        let count = line.unwrap().split_whitespace().next().unwrap();
        count.parse::<i64>().unwrap() * 1024
    };
    of("RssAnon:") + of("RssFile:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_counts_with_what_it_has_resident() {
    let repository = Repository::new();
    repository.add("tiny_mlp", 1);
    let isolated = Isolated::new();
    let settings = RawServer {
        device_memory_bytes: Some((1_u64 << 40).to_string()),
        model_control: Some("explicit".to_owned()),
        ..isolated.settings()
    };
    let node = Node::with(&repository.path(), settings).await;
    let counted = async || {
        node.load("tiny_mlp").await.unwrap();
        let [memory] = &node.statistics("tiny_mlp").await.memory_usage[..] else {
            panic!("one device")
        };
        // The worker grew a little since; the model's file has 3 kB.
        let worker = resident(isolated.worker());
        memory.byte_size as i64 > worker / 2
    };
    // Others here give memory back now and then, and the server's own is counted with it.
    within("a worker is counted", async {
        while !counted().await {
            node.unload("tiny_mlp").await.unwrap();
            until("it has ended", || isolated.workers().is_empty()).await;
        }
    })
    .await;
}
