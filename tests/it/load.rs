//! The load harness drives this server, while others misbehave.

use std::collections::BTreeMap;
use std::path::Path;

use jitney::config::RawServer;
use jitney_load::report::{Report, Verdict, read_report, write_html, write_report};
use jitney_load::scenario::{Server, read_scenario};
use jitney_load::{Recovery, Session};

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
        ("cancel", 20),
        ("vanish", 20),
        ("churn", 20),
        ("half_open", 20),
        // Who does not read asks 64 times, and all of that is served: more often it is a rush.
        ("slow_reader", 700),
        ("malformed", 20),
        ("huge", 20),
    ];
    let faults = faults.map(|(kind, every)| format!("{{ kind = \"{kind}\", every_ms = {every} }}"));
    let report = driven(
        &node,
        &format!(
            // On a busy machine an answer may take long, and must come all the same.
            "timeout_ms = 300000\n[[requests]]\nmodel = \"add_sub\"\ncheck = {{}}\n\
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
         [[steps]]\narrivals = \"closed\"\nin_flight = 1\nwarm_up_s = 0\nduration_s = 3\n\
         slo = { max_error_share = 0.01, percentile = 50, latency_ms = 10000 }",
    )
    .await;
    assert_eq!(report.verdict(), Verdict::Missed);
    let step = &report.steps[0];
    let failed = step.recording.outcomes.failed["INTERNAL"];
    let runs = step.recording.outcomes.all();
    // One in five runs fails, and with it its one request.
    assert!(failed.abs_diff(runs / 5) <= 1, "{failed} of {runs}");
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_serves_again() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    for kind in ["terminate", "kill"] {
        let scenario = format!(
            "max_lag_ms = 10000\n[server]\n\
             command = [{:?}, \"serve\", {:?}, \"--grpc-address\", \"127.0.0.1:{{port}}\", \
             \"--http-address\", \"off\", \"--metrics-address\", \"off\", \
             \"--lame-duck-ms\", \"0\"]\n\
             [[requests]]\nmodel = \"add_sub\"\ncheck = {{}}\n\
             [[steps]]\narrivals = \"constant\"\nrate = 50\nwarm_up_s = 0\nduration_s = 11\n\
             faults = [{{ kind = \"{kind}\", every_ms = 6000 }}]\n\
             slo = {{ max_recovery_ms = 60000, max_error_share = 0.9 }}",
            env!("CARGO_BIN_EXE_jitney"),
            repository.path(),
        );
        let scenario = read_scenario(Path::new("s.toml"), &scenario).unwrap();
        let session = Session::open(scenario).await.unwrap();
        let report = session.run("s.toml", |_| |_| {}).await.unwrap();
        let step = &report.steps[0];
        assert!(!step.recording.recoveries.is_empty(), "{kind}");
        assert_eq!(report.verdict(), Verdict::Met, "{:?}", step.findings);
        // Nobody is served while there is nobody to serve.
        let failed = step.recording.outcomes.failed.get("UNAVAILABLE");
        assert!(failed.is_some(), "{kind}: {:?}", step.recording.outcomes);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_gone_comes_back() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    let settings = RawServer {
        model_control: Some("explicit".to_owned()),
        load_model: vec!["add_sub".to_owned()],
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let report = driven(
        &node,
        "[server]\nprotocol = \"grpc_stream\"\n[[requests]]\nmodel = \"add_sub\"\n\
         [[steps]]\narrivals = \"constant\"\nrate = 100\nwarm_up_s = 0\nduration_s = 10\n\
         faults = [{ kind = \"unload\", model = \"add_sub\", every_ms = 6000, lasts_ms = 300 }]\n\
         slo = { max_recovery_ms = 20000 }",
    )
    .await;
    let recording = &report.steps[0].recording;
    let [Recovery::Served(recovery)] = recording.recoveries[..] else {
        panic!("{:?}", recording.recoveries)
    };
    assert!(recovery.as_millis() >= 290, "{recovery:?}");
    // A stream says why, and no code.
    assert!(recording.outcomes.failed["UNKNOWN"] >= 1);
    assert_eq!(report.verdict(), Verdict::Met);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_is_played_with_its_sizes() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    // No two fit into a batch, though they may come at once.
    repository.configure("add_sub", "max_batch_size = 4");
    let node = Node::start(&repository.path()).await;
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("day.csv");
    let lines: Vec<String> = (0..10)
        .map(|number| format!("{},{}", 100 + number, 3 + number % 2))
        .collect();
    std::fs::write(&trace, lines.join("\n")).unwrap();
    let report = driven(
        &node,
        &format!(
            "[[requests]]\nmodel = \"add_sub\"\ncheck = {{}}\n\
             [[steps]]\narrivals = \"trace\"\ntrace = {trace:?}\nspeed = 4\nwarm_up_s = 0\n\
             duration_s = 3\nslo = {{ max_error_share = 0 }}"
        ),
    )
    .await;
    assert_eq!(report.verdict(), Verdict::Met);
    let counted = &report.steps[0].counted[0];
    assert_eq!(counted.batches, BTreeMap::from([(3, 5), (4, 5)]));
    assert_eq!((counted.model.as_str(), counted.requests), ("add_sub", 10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_without_a_duration_is_played_to_its_last_request() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    // No two fit into a batch, though they may come at once.
    repository.configure("add_sub", "max_batch_size = 5");
    let node = Node::start(&repository.path()).await;
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("day.csv");
    // The last is the only one of four rows.
    std::fs::write(&trace, "7,3\n7.5,5\n8,4\n").unwrap();
    let report = driven(
        &node,
        &format!(
            "[[requests]]\nmodel = \"add_sub\"\ncheck = {{}}\n\
             [[steps]]\narrivals = \"trace\"\ntrace = {trace:?}\nwarm_up_s = 0"
        ),
    )
    .await;
    let step = &report.steps[0];
    assert_eq!(step.recording.outcomes.all(), 3);
    let counted = &step.counted[0];
    assert_eq!(counted.batches, BTreeMap::from([(3, 1), (4, 1), (5, 1)]));
    assert_eq!(counted.requests, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_compared_with_those_of_a_file() {
    let repository = Repository::new();
    repository.add("add_sub", 1);
    let node = Node::start(&repository.path()).await;
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    // OUTPUT0 is the sum of the two, element by element.
    let tensor = |name: &str, number: i32| {
        let data = [number; 16];
        format!(r#"{{"name":"{name}","datatype":"INT32","shape":[1,16],"data":{data:?}}}"#)
    };
    let (left, right) = (tensor("INPUT0", 3), tensor("INPUT1", 4));
    write("in.json", &format!(r#"{{"inputs":[{left},{right}]}}"#));
    for (sum, verdict) in [(7, Verdict::Met), (8, Verdict::Missed)] {
        write(
            "out.json",
            &format!(r#"{{"outputs":[{}]}}"#, tensor("OUTPUT0", sum)),
        );
        let folder = folder.path().display();
        let report = driven(
            &node,
            &format!(
                "[[requests]]\nmodel = \"add_sub\"\nfile = \"{folder}/in.json\"\n\
                 expected = \"{folder}/out.json\"\n\
                 [[steps]]\narrivals = \"closed\"\nin_flight = 1\nwarm_up_s = 0\nduration_s = 2"
            ),
        )
        .await;
        assert_eq!(report.verdict(), verdict, "{:?}", report.steps[0].findings);
    }
}
