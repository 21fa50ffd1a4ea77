//! Traces: what a receiver gets is what happened, and no request waits for it.

use std::collections::HashSet;
use std::time::Duration;

use jitney::config::RawServer;
use jitney::proto::trace_setting_request::SettingValue;
use jitney::proto::{ModelInferRequest, ModelInferResponse, TraceSettingRequest};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::{TcpListener, TcpSocket};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

use super::http::{Wire, post, row};
use super::metrics::{scrape, value as metric};
use super::node::{Node, within};
use super::occupant::{Occupant, enqueue};
use super::receiver::{Receiver, value};
use super::repository::{Repository, Simulated};
use super::request::rows;
use super::shutdown::Running;

const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;
/// The policy of a model whose requests are not slow, whatever delays them.
const PATIENT: &str = "latency_objective_ms = 600000";
/// What a request of one batch goes through.
const STAGES: [&str; 7] = [
    "decode", "queue", "stack", "execute", "slice", "deliver", "encode",
];

fn parent(flags: &str) -> String {
    format!("00-{TRACE:032x}-{PARENT:016x}-{flags}")
}

fn traced(url: &str, ratio: &str) -> RawServer {
    RawServer {
        otlp_endpoint: Some(url.to_owned()),
        otlp_protocol: url.ends_with('/').then(|| "http".to_owned()),
        trace_ratio: Some(ratio.to_owned()),
        metrics_address: Some("127.0.0.1:0".to_owned()),
        lame_duck_ms: Some("0".to_owned()),
        ..RawServer::default()
    }
}

/// Ends a server in good order: whatever it had to tell has been sent.
async fn ends(node: Node) {
    let running = Running::new(node.server);
    running.stop();
    running.ends().await.unwrap();
}

async fn ask(
    node: &Node,
    request: ModelInferRequest,
    headers: &[(&'static str, &str)],
) -> Result<Response<ModelInferResponse>, Status> {
    let mut request = Request::new(request);
    for (name, value) in headers {
        request.metadata_mut().insert(*name, value.parse().unwrap());
    }
    within("an answer", node.client().model_infer(request)).await
}

fn text<'a>(metadata: &'a MetadataMap, name: &str) -> Option<&'a str> {
    metadata.get(name).map(|value| value.to_str().unwrap())
}

/// The span that a `traceresponse` names.
fn named(response: &str) -> Vec<u8> {
    let span = u64::from_str_radix(&response[36..52], 16).unwrap();
    span.to_be_bytes().to_vec()
}

fn all<'a>(spans: &'a [Span], name: &str) -> Vec<&'a Span> {
    spans.iter().filter(|span| span.name == name).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found = all(spans, name);
    assert_eq!(found.len(), 1, "{name}: {spans:#?}");
    found[0]
}

/// The parts of a span, in order of time.
fn parts<'a>(spans: &'a [Span], whole: &Span) -> Vec<&'a Span> {
    let is_part = |span: &&Span| span.parent_span_id == whole.span_id;
    let mut parts: Vec<&Span> = spans.iter().filter(is_part).collect();
    parts.sort_by_key(|part| (part.start_time_unix_nano, part.end_time_unix_nano));
    assert!(parts.iter().all(|part| part.trace_id == whole.trace_id));
    parts
}

fn said(span: &Span, key: &str) -> String {
    value(&span.attributes, key).unwrap_or_else(|| panic!("{key}: {span:#?}"))
}

/// Whether the stages of a request are all there, follow each other and add up.
#[track_caller]
fn assert_stages(spans: &[Span], request: &Span, stages: &[&str]) {
    let mut parts = parts(spans, request);
    // Those that took no time may be told in any order.
    let place = |part: &&Span| stages.iter().position(|stage| *stage == part.name);
    parts.sort_by_key(place);
    let names: Vec<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(names, stages);
    let mut now = request.start_time_unix_nano;
    for part in parts {
        assert_eq!(part.start_time_unix_nano, now, "{part:#?}");
        now = part.end_time_unix_nano;
    }
    assert_eq!(now, request.end_time_unix_nano);
}

async fn a_batch_is_told(http: bool) {
    let mut receiver = Receiver::start(http).await;
    let repository = Repository::of("max_batch_size = 4", "fixed_ms = 200");
    let node = Node::with(&repository.path(), traced(&receiver.url, "1")).await;
    let occupant = Occupant::of(&node, "m", 4).await;
    let names = ["a", "b", "c"];
    let requests = names
        .iter()
        .enumerate()
        .map(|(seed, id)| ModelInferRequest {
            id: (*id).to_owned(),
            ..rows("m", seed, 1)
        });
    let waiting = enqueue(&node, requests).await;
    occupant.leaves().await;
    waiting.join_all().await;
    ends(node).await;

    let spans = receiver.rest();
    let mine: Vec<&Span> = all(spans, "infer m")
        .into_iter()
        .filter(|span| value(&span.attributes, "jitney.request.id").is_some())
        .collect();
    assert_eq!(mine.len(), 3);
    let traces: HashSet<_> = mine.iter().map(|span| &span.trace_id).collect();
    assert_eq!(traces.len(), 3);
    let batches = all(spans, "batch m");
    assert_eq!(batches.len(), 3);
    let batch = batches.into_iter().find(|batch| batch.links.len() == 3);
    let batch = batch.unwrap();
    assert!(batch.parent_span_id.is_empty() && !traces.contains(&batch.trace_id));
    let linked: HashSet<_> = batch.links.iter().map(|link| &link.span_id).collect();
    assert_eq!(linked, mine.iter().map(|span| &span.span_id).collect());
    for (key, expected) in [
        ("jitney.model", "m"),
        ("jitney.version", "1"),
        ("jitney.device", "cpu"),
        ("jitney.batch.number", "3"),
        ("jitney.batch.rows", "3"),
        ("jitney.batch.members", "3"),
        ("jitney.batch.reason", "free"),
    ] {
        assert_eq!(said(batch, key), expected, "{key}");
    }
    for request in mine {
        assert_eq!(request.kind, SpanKind::Server as i32);
        assert!(request.parent_span_id.is_empty());
        assert_eq!(said(request, "jitney.rows"), "1");
        assert_eq!(said(request, "jitney.batch.number"), "3");
        assert_eq!(said(request, "jitney.batch.rows"), "3");
        assert_eq!(said(request, "jitney.code"), "OK");
        assert_stages(spans, request, &STAGES);
        let parts = parts(spans, request);
        let execute = parts.iter().find(|part| part.name == "execute").unwrap();
        assert_eq!(execute.links.len(), 1);
        assert_eq!(execute.links[0].span_id, batch.span_id);
        assert_eq!(execute.links[0].trace_id, batch.trace_id);
        let ran = execute.end_time_unix_nano - execute.start_time_unix_nano;
        assert!(ran >= 200_000_000, "{ran}");
        assert!(
            parts
                .iter()
                .all(|part| part.name == "execute" || part.links.is_empty())
        );
    }
    assert_eq!(
        value(&receiver.resource.attributes, "service.name").unwrap(),
        "jitney"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_and_its_members_are_told_over_grpc() {
    a_batch_is_told(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_and_its_members_are_told_over_http() {
    a_batch_is_told(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_from_who_asks_and_its_place_is_answered() {
    let mut receiver = Receiver::start(false).await;
    let repository = Repository::of(PATIENT, "");
    let node = Node::with(&repository.path(), traced(&receiver.url, "0")).await;
    let headers = [("traceparent", parent("01"))];
    let headers = headers
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let answer = ask(&node, rows("m", 1, 1), &headers).await.unwrap();
    let by_grpc = text(answer.metadata(), "traceresponse").unwrap().to_owned();
    let refused = ask(&node, rows("nowhere", 1, 1), &headers)
        .await
        .unwrap_err();
    let of_refused = text(refused.metadata(), "traceresponse")
        .unwrap()
        .to_owned();
    let mut wire = Wire::to(node.server.address()).await;
    let header = format!("traceparent: {}", parent("01"));
    let answer = wire
        .ask(post("/v2/models/m/infer", &[&header], row(&[1.0])))
        .await;
    let by_rest = answer.header("traceresponse").unwrap().to_owned();
    // Who has chosen not to tell is not told of, and neither are others at this ratio.
    let quiet = [("traceparent", parent("00"))];
    let quiet = quiet
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let answer = ask(&node, rows("m", 2, 1), &quiet).await.unwrap();
    assert!(
        text(answer.metadata(), "traceresponse")
            .unwrap()
            .ends_with("-00")
    );
    let answer = ask(&node, rows("m", 3, 1), &[("traceparent", "nonsense")])
        .await
        .unwrap();
    assert_eq!(text(answer.metadata(), "traceresponse"), None);
    ends(node).await;

    let spans = receiver.rest();
    let requests = [
        (by_grpc, "infer m", true),
        (of_refused, "infer", false),
        (by_rest, "infer m", true),
    ];
    for (response, name, is_well) in &requests {
        assert!(
            response.starts_with(&format!("00-{TRACE:032x}-")),
            "{response}"
        );
        assert!(response.ends_with("-01"), "{response}");
        let span = spans
            .iter()
            .find(|span| span.span_id == named(response))
            .unwrap();
        assert_eq!(span.name, *name);
        assert_eq!(span.trace_id, TRACE.to_be_bytes());
        assert_eq!(span.parent_span_id, PARENT.to_be_bytes());
        if *is_well {
            assert_stages(spans, span, &STAGES);
        } else {
            assert_eq!(said(span, "error.type"), "NOT_FOUND");
            // The client's mistake is none of the server's.
            assert!(span.status.is_none());
        }
    }
    let servers = spans
        .iter()
        .filter(|span| span.kind == SpanKind::Server as i32);
    assert_eq!(servers.count(), requests.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_slow_or_fails_is_told_though_nobody_chose_it() {
    let mut receiver = Receiver::start(false).await;
    let repository = Repository::of(PATIENT, "");
    let slow = Simulated {
        policy: "latency_objective_ms = 0.001",
        ..Simulated::default()
    };
    repository.simulate("slow", slow);
    let broken = Simulated {
        simulated: "fail_every = 1",
        ..Simulated::default()
    };
    repository.simulate("broken", broken);
    let node = Node::with(&repository.path(), traced(&receiver.url, "0")).await;
    let plain = ask(&node, rows("m", 1, 1), &[]).await.unwrap();
    assert_eq!(text(plain.metadata(), "traceresponse"), None);
    let late = ask(&node, rows("slow", 1, 1), &[]).await.unwrap();
    let late = text(late.metadata(), "traceresponse").unwrap().to_owned();
    let failed = ask(&node, rows("broken", 1, 1), &[]).await.unwrap_err();
    assert_eq!(failed.code(), Code::Internal);
    let failed = text(failed.metadata(), "traceresponse").unwrap().to_owned();
    ends(node).await;

    let spans = receiver.rest();
    assert!(all(spans, "infer m").is_empty());
    let slow = one(spans, "infer slow");
    assert_eq!(slow.span_id, named(&late));
    assert_eq!(said(slow, "jitney.slow"), "true");
    assert!(slow.status.is_none());
    assert_stages(spans, slow, &STAGES);
    let broken = one(spans, "infer broken");
    assert_eq!(broken.span_id, named(&failed));
    assert_eq!(said(broken, "error.type"), "INTERNAL");
    let status = broken.status.clone().unwrap();
    assert_eq!(status.code, StatusCode::Error as i32);
    let decode = parts(spans, broken)[0];
    assert_eq!(decode.name, "decode");
    assert!(decode.end_time_unix_nano <= broken.end_time_unix_nano);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_of_an_ensemble_are_parts_of_its_request() {
    let mut receiver = Receiver::start(false).await;
    let repository = Repository::new();
    repository.simulate("one", Simulated::default());
    repository.simulate("two", Simulated::default());
    super::ensemble::pair(&repository, "");
    let node = Node::with(&repository.path(), traced(&receiver.url, "1")).await;
    node.infer(rows("both", 1, 2)).await.unwrap();
    ends(node).await;

    let spans = receiver.rest();
    let whole = one(spans, "infer both");
    let mut names: Vec<&str> = parts(spans, whole)
        .iter()
        .map(|part| part.name.as_str())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["decode", "encode", "step 1 (one)", "step 2 (two)"]);
    for (name, step) in [("step 1 (one)", "one"), ("step 2 (two)", "two")] {
        let span = one(spans, name);
        assert_eq!(span.kind, SpanKind::Internal as i32);
        assert_eq!(said(span, "jitney.model"), step);
        assert_stages(spans, span, &STAGES[1..6]);
        let batch = one(spans, &format!("batch {step}"));
        assert_eq!(batch.links[0].span_id, span.span_id);
        assert!(span.start_time_unix_nano >= whole.start_time_unix_nano);
        assert!(span.end_time_unix_nano <= whole.end_time_unix_nano);
    }
    let (first, second) = (one(spans, "step 1 (one)"), one(spans, "step 2 (two)"));
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
}

/// Spans of one request of a batch of its own, with that of the batch.
const SPANS: f64 = 9.0;

async fn outcomes(node: &Node, outcome: &str) -> f64 {
    let series = format!("jitney_trace_spans_total{{outcome=\"{outcome}\"}}");
    metric(&scrape(node, "*/*").await.1, &series).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_costs_spans_and_no_request() {
    // Bound, so that nobody else has the port, and not listening.
    let away = TcpSocket::new_v4().unwrap();
    away.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", away.local_addr().unwrap());
    let repository = Repository::of("", "");
    let node = Node::with(&repository.path(), traced(&url, "1")).await;
    for seed in 0..5 {
        ask(&node, rows("m", seed, 1), &[]).await.unwrap();
    }
    within("all are counted", async {
        while outcomes(&node, "dropped").await < 5.0 * SPANS {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(outcomes(&node, "dropped").await, 5.0 * SPANS);
    assert_eq!(outcomes(&node, "sent").await, 0.0);
    ends(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_hangs_keeps_neither_a_request_nor_the_end() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let repository = Repository::of("", "");
    let settings = RawServer {
        drain_timeout_ms: Some("3000".to_owned()),
        ..traced(&url, "1")
    };
    let node = Node::with(&repository.path(), settings).await;
    for seed in 0..5 {
        ask(&node, rows("m", seed, 1), &[]).await.unwrap();
    }
    ends(node).await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_counted() {
    let mut receiver = Receiver::start(false).await;
    let repository = Repository::of("", "");
    let node = Node::with(&repository.path(), traced(&receiver.url, "1")).await;
    node.infer(rows("m", 1, 1)).await.unwrap();
    let came = |spans: &[Span]| spans.len() == SPANS as usize;
    receiver.until("a request is told", came).await;
    within("it is counted", async {
        while outcomes(&node, "sent").await != SPANS {}
    })
    .await;
    assert_eq!(outcomes(&node, "dropped").await, 0.0);
}

async fn set(node: &Node, model: &str, settings: &[(&str, &str)]) -> Result<String, Status> {
    let settings = settings.iter().map(|(name, value)| {
        let value = vec![(*value).to_owned()];
        ((*name).to_owned(), SettingValue { value })
    });
    let request = TraceSettingRequest {
        model_name: model.to_owned(),
        settings: settings.collect(),
    };
    let said = node.client().trace_setting(request).await?.into_inner();
    let said = |name: &str| said.settings[name].value.join(",");
    Ok(["trace_level", "trace_rate", "trace_count"]
        .map(said)
        .join(" "))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_traced_changes_while_the_server_runs() {
    let mut receiver = Receiver::start(false).await;
    let repository = Repository::of(PATIENT, "");
    let other = Simulated {
        policy: PATIENT,
        ..Simulated::default()
    };
    repository.simulate("other", other);
    let node = Node::with(&repository.path(), traced(&receiver.url, "0")).await;
    assert_eq!(set(&node, "", &[]).await.unwrap(), "TIMESTAMPS 0 -1");
    let few = [("trace_rate", "1"), ("trace_count", "2")];
    assert_eq!(set(&node, "m", &few).await.unwrap(), "TIMESTAMPS 1 2");
    for seed in 0..4 {
        node.infer(rows("m", seed, 1)).await.unwrap();
        node.infer(rows("other", seed, 1)).await.unwrap();
    }
    assert_eq!(set(&node, "m", &[]).await.unwrap(), "TIMESTAMPS 1 0");
    assert_eq!(set(&node, "other", &[]).await.unwrap(), "TIMESTAMPS 0 -1");
    // Half of a change that is refused is not made.
    let wrong = [("trace_level", "OFF"), ("trace_file", "/tmp/x")];
    let refused = set(&node, "m", &wrong).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(
        set(&node, "", &[("trace_level", "OFF")]).await.unwrap(),
        "OFF 0 -1"
    );
    let header = parent("01");
    let answer = ask(&node, rows("m", 9, 1), &[("traceparent", &header)]).await;
    assert_eq!(text(answer.unwrap().metadata(), "traceresponse"), None);
    ends(node).await;
    let spans = receiver.rest();
    assert_eq!(all(spans, "infer m").len(), 2);
    assert_eq!(all(spans, "infer other").len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_change_it_only_where_there_is_something_and_they_may() {
    let receiver = Receiver::start(false).await;
    let repository = Repository::of("", "");
    let settings = RawServer {
        trace_settings: Some("false".to_owned()),
        ..traced(&receiver.url, "0.5")
    };
    let node = Node::with(&repository.path(), settings).await;
    assert_eq!(set(&node, "", &[]).await.unwrap(), "TIMESTAMPS 2 -1");
    let refused = set(&node, "", &[("trace_level", "OFF")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let plain = Node::start(&repository.path()).await;
    let refused = set(&plain, "", &[("trace_level", "TIMESTAMPS")])
        .await
        .unwrap_err();
    assert!(refused.message().contains("--otlp-endpoint"), "{refused:?}");
}
