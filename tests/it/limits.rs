//! Instances run only while they hold what they need, and by their priority where they wait for it.

use jitney::config::RawServer;

use super::node::Node;
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};
use super::sharing::{send, share};

async fn node(repository: &Repository, resources: &[&str]) -> Node {
    let settings = RawServer {
        rate_limit: Some("execution_count".to_owned()),
        rate_limit_resource: resources.iter().map(|one| (*one).to_owned()).collect(),
        ..RawServer::default()
    };
    Node::with(&repository.path(), settings).await
}

/// A model that needs one slot of all for each batch of one request, on a device of its own.
fn simulate(repository: &Repository, model: &str, device: u32, priority: u32) {
    let instances = format!(
        "[[instances]]\ncount = 2\ndevice = \"simulated:{device}\"\npriority = {priority}\n\
         resources = [{{ name = \"slots\", count = 1, global = true }}]"
    );
    let simulated = Simulated {
        policy: "max_batch_size = 1",
        instances: &instances,
        simulated: "fixed_ms = 30",
    };
    repository.simulate(model, simulated);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_twice_the_priority_half_the_chances() {
    let repository = Repository::new();
    simulate(&repository, "first", 0, 1);
    simulate(&repository, "second", 1, 2);
    let node = node(&repository, &["slots:1"]).await;
    let share = share(&node, "first", "second").await;
    assert!((1.7..=2.6).contains(&share), "{share} for each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_resources_is_woken() {
    let repository = Repository::new();
    for model in 0..4 {
        simulate(&repository, &format!("m{model}"), model, 1 + model);
    }
    let node = node(&repository, &["slots:2"]).await;
    let sent = (0..4).map(|model| send(&node, &format!("m{model}"), 40));
    for answers in sent.collect::<Vec<_>>() {
        for (sent, answer) in answers.join_all().await {
            assert_echo(&answer.unwrap(), &sent);
        }
    }
    // One that comes when all is quiet finds everything given back.
    let asked = rows("m0", 1, 1);
    assert_echo(&node.infer(asked.clone()).await.unwrap(), &asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_there_is_is_refused_at_load() {
    let repository = Repository::new();
    let needs = |count: u32| {
        format!(
            "[[instances]]\ndevice = \"simulated:0\"\n\
             resources = [{{ name = \"slots\", count = {count} }}]"
        )
    };
    for (model, count) in [("modest", 2), ("greedy", 3)] {
        let instances = needs(count);
        let simulated = Simulated {
            instances: &instances,
            ..Simulated::default()
        };
        repository.simulate(model, simulated);
    }
    let node = node(&repository, &["slots:2"]).await;
    assert!(node.is_ready("modest", "1").await);
    let refused = node.index_of("greedy", "1").await.unwrap();
    assert_eq!(refused.state, "UNAVAILABLE");
    let said = "asks for 3 of resource \"slots\", of which there are 2 on simulated:0";
    assert!(refused.reason.contains(said), "{}", refused.reason);
    // Nobody counts where the limiter is off.
    let off = Node::start(&repository.path()).await;
    assert!(off.is_ready("greedy", "1").await);
}
