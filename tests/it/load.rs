//! The load harness drives this server, while others misbehave.

use std::path::Path;

use jitney::config::RawServer;
use jitney_load::Session;
use jitney_load::report::{Report, Verdict, read_report, write_html, write_report};
use jitney_load::scenario::{Server, read_scenario};

use super::node::Node;
use super::repository::{Repository, Simulated};

async fn driven(node: &Node, scenario: &str) -> Report {
    let mut scenario = read_scenario(Path::new("scenario.toml"), scenario).unwrap();
    scenario.server = Server::At(node.server.address().to_string());
    // On a busy machine the generator may lag, which is not what is looked at here.
    scenario.max_lag = std::time::Duration::from_secs(10);
    let session = Session::open(scenario).await.unwrap();
    session.run("scenario.toml", |_| |_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_misbehave_harm_nobody_else() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    let settings = RawServer {
        model_control: Some("explicit".to_owned()),
        load_model: vec!["add_sub".to_owned()],
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let faults = [
        "cancel",
        "vanish",
        "churn",
        "half_open",
        "malformed",
        "huge",
    ];
    let faults = faults.map(|kind| format!("{{ kind = \"{kind}\", every_ms = 20 }}"));
    let report = driven(
        &node,
        &format!(
            "[[requests]]\nmodel = \"add_sub\"\ncheck = {{}}\n\
             [[steps]]\narrivals = \"poisson\"\nrate = 200\nwarm_up_s = 0\nduration_s = 2\n\
             faults = [{{ kind = \"reload\", model = \"add_sub\", every_ms = 300 }}, {}]\n\
             slo = {{ max_error_share = 0 }}",
            faults.join(", ")
        ),
    )
    .await;
    let outcomes = &report.steps[0].recording.outcomes;
    assert_eq!(outcomes.ok, outcomes.all(), "{outcomes:?}");
    assert!(outcomes.all() > 300, "{outcomes:?}");
    assert_eq!(report.verdict(), Verdict::Met);
    assert!(node.is_ready("add_sub", "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_server_that_fails_is_told_so() {
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 4",
        simulated: "fail_every = 5",
        ..Simulated::default()
    };
    repository.simulate("m", model);
    let node = Node::start(&repository.path()).await;
    let report = driven(
        &node,
        "[[requests]]\nmodel = \"m\"\ndimensions = { default = 4 }\n\
         [[steps]]\narrivals = \"closed\"\nin_flight = 1\nwarm_up_s = 0\nduration_s = 1\n\
         slo = { max_error_share = 0.01, percentile = 50, latency_ms = 10000 }",
    )
    .await;
    assert_eq!(report.verdict(), Verdict::Missed);
    let step = &report.steps[0];
    let failed = step.recording.outcomes.failed.get("INTERNAL").copied();
    let share = failed.unwrap() as f64 / step.recording.outcomes.all() as f64;
    // One in five runs fails, and with it its one request.
    assert!((share - 0.2).abs() < 0.05, "{share}");
    let missed: Vec<&str> = step
        .findings
        .iter()
        .filter(|finding| !finding.met)
        .map(|finding| finding.text.as_str())
        .collect();
    assert!(
        missed[0].contains("of requests failed, 1.000 % allowed"),
        "{missed:?}"
    );
    assert_eq!(missed.len(), 1);
    let read = read_report(&write_report(&report)).unwrap();
    assert_eq!(read.verdict(), Verdict::Missed);
    assert!(write_html(&report).contains("MISSED"));
}
