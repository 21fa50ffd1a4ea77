//! Metrics: what a scrape counts is what was sent, in either format and on any port.

use std::fs;
use std::net::SocketAddr;

use jitney::config::RawServer;
use jitney::proto::infer_parameter::ParameterChoice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use super::node::{Node, infer, until, within};
use super::occupant::Occupant;
use super::repository::{Repository, Simulated, gate};
use super::request::{input, raw, rows, with_parameter};

const OPEN_METRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";

/// The head and the body of an answer.
async fn get(address: SocketAddr, path: &str, accept: &str) -> (String, String) {
    let asked = format!(
        "GET {path} HTTP/1.1\r\nhost: jitney\r\naccept: {accept}\r\nconnection: close\r\n\r\n"
    );
    let mut answer = String::new();
    within("an answer", async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(asked.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
    })
    .await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

pub(crate) async fn scrape(node: &Node, accept: &str) -> (String, String) {
    let server = &node.server;
    let address = server.metrics_address().or(server.http_address());
    get(address.unwrap(), "/metrics", accept).await
}

/// What is told once so many calls are in progress: one gives its place back after its answer.
pub(crate) async fn scrape_with(node: &Node, calls: usize) -> String {
    within(&format!("{calls} calls are in progress"), async {
        loop {
            let (_, body) = scrape(node, "*/*").await;
            if value(&body, "jitney_in_flight_calls") == Some(calls as f64) {
                return body;
            }
        }
    })
    .await
}

/// What is told once no call is in progress.
pub(crate) async fn scrape_at_rest(node: &Node) -> String {
    scrape_with(node, 0).await
}

/// The value of one line, if it is there.
pub(crate) fn value(body: &str, series: &str) -> Option<f64> {
    let line = body.lines().find_map(|line| line.strip_prefix(series))?;
    line.strip_prefix(' ')?.parse().ok()
}

async fn node(repository: &Repository, metrics_address: &str, http_address: &str) -> Node {
    let settings = RawServer {
        metrics_address: Some(metrics_address.to_owned()),
        http_address: Some(http_address.to_owned()),
        triton_metrics: Some("true".to_owned()),
        response_cache_bytes: Some("1000000".to_owned()),
        ..RawServer::default()
    };
    Node::with(&repository.path(), settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scrape_counts_what_was_sent() {
    let repository = Repository::new();
    let cached = Simulated {
        policy: "response_cache = true\nlatency_objective_ms = 600000",
        ..Simulated::default()
    };
    repository.simulate("m", cached);
    let node = node(&repository, "off", "127.0.0.1:0").await;
    for seed in [0, 1, 2, 0] {
        node.infer(rows("m", seed, 2)).await.unwrap();
    }
    let wrong = raw("m", input("z", "FP32", &[1, 1]), vec![0; 4]);
    let refused = node.infer(wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // The scrape itself is none, or there would be no rest.
    let body = scrape_at_rest(&node).await;
    for (series, expected) in [
        (
            r#"jitney_requests_total{model="m",version="1",code="OK"}"#,
            4.0,
        ),
        (
            r#"jitney_requests_total{model="m",version="1",code="INVALID_ARGUMENT"}"#,
            1.0,
        ),
        (
            r#"jitney_requests_in_time_total{model="m",version="1"}"#,
            4.0,
        ),
        // What the client did wrong is not the server's to answer for.
        (
            r#"jitney_requests_not_in_time_total{model="m",version="1"}"#,
            0.0,
        ),
        (r#"jitney_rows_total{model="m",version="1"}"#, 6.0),
        (r#"jitney_batches_total{model="m",version="1"}"#, 3.0),
        (r#"jitney_cache_hits_total{model="m",version="1"}"#, 1.0),
        (r#"jitney_cache_misses_total{model="m",version="1"}"#, 3.0),
        (r#"jitney_executors{model="m",version="1"}"#, 1.0),
        (r#"jitney_executors_alive{model="m",version="1"}"#, 1.0),
        (r#"jitney_model_load_failed{model="m",version="1"}"#, 0.0),
        (r#"jitney_queued_requests{model="m",version="1"}"#, 0.0),
        (
            r#"jitney_request_duration_seconds_count{model="m",version="1"}"#,
            5.0,
        ),
        (r#"jitney_queue_seconds_count{model="m",version="1"}"#, 3.0),
        (r#"jitney_encode_seconds_count{model="m",version="1"}"#, 4.0),
        (
            r#"jitney_batch_rows_bucket{model="m",version="1",device="cpu",le="1.0"}"#,
            0.0,
        ),
        (
            r#"jitney_batch_rows_bucket{model="m",version="1",device="cpu",le="2.0"}"#,
            3.0,
        ),
        (
            r#"jitney_batch_padding_ratio_bucket{model="m",version="1",device="cpu",le="0.0"}"#,
            3.0,
        ),
        (
            r#"jitney_execute_seconds_bucket{model="m",version="1",device="cpu",le="+Inf"}"#,
            3.0,
        ),
        (
            r#"jitney_model_state{model="m",version="1",state="READY"}"#,
            1.0,
        ),
        ("jitney_cache_entries", 3.0),
        ("jitney_cache_limit_bytes", 1_000_000.0),
        (
            r#"nv_inference_request_success{model="m",version="1"}"#,
            4.0,
        ),
        (
            r#"nv_inference_request_failure{model="m",version="1",reason="OTHER"}"#,
            1.0,
        ),
        (r#"nv_inference_count{model="m",version="1"}"#, 6.0),
        (r#"nv_inference_exec_count{model="m",version="1"}"#, 3.0),
        (
            r#"nv_inference_pending_request_count{model="m",version="1"}"#,
            0.0,
        ),
        (r#"nv_cache_num_hits_per_model{model="m",version="1"}"#, 1.0),
        (
            r#"nv_cache_num_misses_per_model{model="m",version="1"}"#,
            3.0,
        ),
    ] {
        assert_eq!(value(&body, series), Some(expected), "{series}\n{body}");
    }
    assert!(body.contains("# TYPE nv_inference_request_success counter\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_of_a_model_has_its_tags() {
    let repository = Repository::new();
    let text = Simulated::default().text();
    let tags = "[metric_tags]\nteam = \"blue \\\"7\\\"\"\n_a1 = \"b\"\n";
    repository.simulate("m", Simulated::default());
    repository.configure("m", &format!("{text}{tags}"));
    repository.simulate("plain", Simulated::default());
    let node = node(&repository, "off", "127.0.0.1:0").await;
    for model in ["m", "plain"] {
        node.infer(rows(model, 0, 1)).await.unwrap();
    }
    let body = scrape_at_rest(&node).await;
    let tags = r#"_a1="b",team="blue \"7\"""#;
    let own = body.lines().filter(|line| line.contains("model=\"m\""));
    assert!(own.clone().count() > 30);
    assert_eq!(
        own.filter(|line| !line.contains(tags)).collect::<Vec<_>>(),
        [""; 0]
    );
    let tagged = body.lines().filter(|line| line.contains("team="));
    assert!(tagged.clone().all(|line| line.contains("model=\"m\"")));
    let rows = format!(r#"jitney_rows_total{{model="m",version="1",{tags}}}"#);
    assert_eq!(value(&body, &rows), Some(1.0));
    let bucket =
        format!(r#"jitney_queue_seconds_bucket{{model="m",version="1",{tags},le="+Inf"}}"#);
    assert_eq!(value(&body, &bucket), Some(1.0));
    let plain = r#"jitney_rows_total{model="plain",version="1"}"#;
    assert_eq!(value(&body, plain), Some(1.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_after_the_objective_is_not_in_time() {
    let repository = Repository::of("latency_objective_ms = 1", "fixed_ms = 5");
    let node = node(&repository, "off", "127.0.0.1:0").await;
    node.infer(rows("m", 0, 1)).await.unwrap();
    let body = scrape_at_rest(&node).await;
    for (counted, expected) in [("in_time", 0.0), ("not_in_time", 1.0)] {
        let series = format!(r#"jitney_requests_{counted}_total{{model="m",version="1"}}"#);
        assert_eq!(value(&body, &series), Some(expected), "{series}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deadlines_that_were_refused_early_are_told_apart() {
    let repository = Repository::of("max_batch_size = 1", "");
    let slow = Simulated {
        policy: "max_batch_size = 1",
        simulated: "fixed_ms = 3000",
        ..Simulated::default()
    };
    repository.simulate("slow", slow);
    let node = node(&repository, "off", "127.0.0.1:0").await;
    node.infer(rows("slow", 0, 1)).await.unwrap();
    let _occupant = Occupant::with_deadlines(&node, "m", 1).await;
    // The one is known to take longer than that; the other waits in vain.
    for (model, early) in [("slow", 1.0), ("m", 0.0)] {
        let choice = ParameterChoice::Int64Param(1_000_000);
        let late = with_parameter(rows(model, 0, 1), "timeout", choice);
        let refused = node.infer(late).await.unwrap_err();
        assert_eq!(refused.code(), Code::DeadlineExceeded);
        let (_, body) = scrape(&node, "*/*").await;
        let told = |name: &str, more: &str| {
            let series = format!(r#"jitney_{name}_total{{model="{model}",version="1"{more}}}"#);
            value(&body, &series)
        };
        assert_eq!(
            told("deadlines_refused_early", ""),
            Some(early),
            "{refused}"
        );
        let code = r#",code="DEADLINE_EXCEEDED""#;
        assert_eq!(told("requests", code), Some(1.0), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_is_counted_as_that() {
    let repository = Repository::of("max_batch_size = 1", "");
    let node = node(&repository, "off", "127.0.0.1:0").await;
    let version = node.version("m");
    let _occupant = Occupant::with_deadlines(&node, "m", 1).await;
    let waiting = tokio::spawn(infer(node.client(), rows("m", 0, 1)));
    until("it waits", || version.queued() == 2).await;
    waiting.abort();
    let cancelled = r#"jitney_requests_total{model="m",version="1",code="CANCELLED"}"#;
    within("it is counted", async {
        while value(&scrape(&node, "*/*").await.1, cancelled) != Some(1.0) {}
    })
    .await;
    assert_eq!(version.queued(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_goes_away_while_it_runs_has_not_succeeded_too() {
    let repository = Repository::of("max_batch_size = 1", "");
    let node = node(&repository, "off", "127.0.0.1:0").await;
    // One of these runs.
    drop(Occupant::of(&node, "m", 1).await);
    let told = |code| format!(r#"jitney_requests_total{{model="m",version="1",code="{code}"}}"#);
    within("both are counted", async {
        while value(&scrape(&node, "*/*").await.1, &told("CANCELLED")) != Some(2.0) {}
    })
    .await;
    fs::remove_file(gate(node.repository(), "m")).unwrap();
    node.infer(rows("m", 0, 1)).await.unwrap();
    let body = scrape_at_rest(&node).await;
    assert_eq!(value(&body, &told("OK")), Some(1.0));
    assert_eq!(value(&body, &told("CANCELLED")), Some(2.0));
    let batches = r#"jitney_batches_total{model="m",version="1"}"#;
    assert_eq!(value(&body, batches), Some(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_metrics_for_those_who_ask_for_it() {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    let node = node(&repository, "off", "127.0.0.1:0").await;
    node.infer(rows("m", 0, 1)).await.unwrap();
    let (head, body) = scrape(&node, OPEN_METRICS).await;
    assert!(head.contains("content-type: application/openmetrics-text; version=1.0.0"));
    assert!(body.ends_with("# EOF\n"));
    assert!(body.contains("# TYPE jitney_rows counter\n"));
    let own = r#"jitney_rows_total{model="m",version="1"}"#;
    assert_eq!(value(&body, own), Some(1.0));
    assert!(body.contains("# TYPE nv_inference_count unknown\n"));
    let tritons = r#"nv_inference_count{model="m",version="1"}"#;
    assert_eq!(value(&body, tritons), Some(1.0));
    let (head, body) = scrape(&node, "text/plain").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"));
    assert!(!body.contains("# EOF"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_its_own_port_on_rests_and_on_one_for_all() {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    // Another loopback address is another port, whatever its number.
    let apart = node(&repository, "127.0.0.2:0", "127.0.0.3:0").await;
    let own = apart.server.metrics_address().unwrap();
    let rest = apart.server.http_address().unwrap();
    assert_eq!(own.ip().to_string(), "127.0.0.2");
    for (address, path, status) in [
        (own, "/metrics", "200"),
        (rest, "/metrics", "200"),
        (own, "/v2/health/live", "404"),
        (rest, "/v2/health/live", "200"),
    ] {
        let (head, _) = get(address, path, "*/*").await;
        assert!(
            head.starts_with(&format!("http/1.1 {status}")),
            "{path}: {head}"
        );
    }
    let together = node(&repository, "127.0.0.1:0", "127.0.0.1:0").await;
    let address = together.server.address();
    assert_eq!(together.server.metrics_address(), Some(address));
    assert_eq!(together.server.http_address(), Some(address));
    together.infer(rows("m", 0, 1)).await.unwrap();
    let (head, _) = get(address, "/metrics", "*/*").await;
    assert!(head.starts_with("http/1.1 200"));
    // Metrics beside gRPC, without REST.
    let few = node(&repository, "127.0.0.1:0", "off").await;
    few.infer(rows("m", 0, 1)).await.unwrap();
    let (head, _) = get(few.server.address(), "/metrics", "*/*").await;
    assert!(head.starts_with("http/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_names_alone_unless_tritons_are_asked_for() {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    let node = Node::start(&repository.path()).await;
    let (_, body) = scrape(&node, "*/*").await;
    assert!(body.contains("jitney_executors_alive{"));
    assert!(!body.contains("nv_"));
}
