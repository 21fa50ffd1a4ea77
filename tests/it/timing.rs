//! Who asks how long everything took is told, over every protocol, and nobody else is.

use std::collections::BTreeMap;

use http_body_util::BodyExt;
use jitney::config::RawServer;
use jitney::proto::infer_parameter::ParameterChoice;
use prost::Message;
use tonic::Request;

use super::http::{Wire, post, row};
use super::node::{Node, within};
use super::repository::Repository;
use super::request::rows;
use super::stream::Exchange;

const ASK: &str = "server-timing";
const INFER: &str = "/v2/models/m/infer";

/// Milliseconds by their names.
fn read(timing: &str) -> BTreeMap<String, f64> {
    let entries = timing.split(", ");
    let entries = entries.filter_map(|entry| entry.split_once(";dur="));
    entries
        .map(|(name, time)| (name.to_owned(), time.parse().unwrap()))
        .collect()
}

/// Whether every stage is there, the run took as long as it does, and the stages are the whole.
#[track_caller]
fn assert_timed(timing: &str) {
    let mut times = read(timing);
    assert!(times["execute"] >= 20.0, "{timing}");
    let total = times.remove("total").unwrap();
    assert_eq!(times.len(), 7, "{timing}");
    let parts: f64 = times.values().sum();
    // Each is rounded to a microsecond.
    assert!((total - parts).abs() < 0.01, "{timing}");
}

async fn node(settings: RawServer) -> (Repository, Node) {
    let repository = Repository::of("", "fixed_ms = 20");
    let node = Node::with(&repository.path(), settings).await;
    (repository, node)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_tells_it_after_the_answer() {
    let (_repository, node) = node(RawServer::default()).await;
    for (asks, model) in [(true, "m"), (false, "m"), (true, "nowhere")] {
        let mut request = Request::new(rows(model, 1, 1));
        if asks {
            request.metadata_mut().insert(ASK, "1".parse().unwrap());
        }
        let answer = within("an answer", node.client().model_infer(request)).await;
        // tonic puts what comes before and after an answer into one.
        let metadata = match &answer {
            Ok(answer) => answer.metadata(),
            Err(status) => status.metadata(),
        };
        let timing = metadata.get(ASK).map(|value| value.to_str().unwrap());
        match (asks, answer.is_ok()) {
            (true, true) => assert_timed(timing.unwrap()),
            (true, false) => {
                let times = read(timing.unwrap());
                assert_eq!(times.keys().collect::<Vec<_>>(), ["decode", "total"]);
            }
            (false, _) => assert_eq!(timing, None),
        }
    }
    let headers = http::Request::post("http://x/inference.GRPCInferenceService/ModelInfer")
        .header("content-type", "application/grpc-web+proto")
        .header(ASK, "1");
    let message = rows("m", 1, 1).encode_to_vec();
    let length = (message.len() as u32).to_be_bytes();
    let answer = node
        .ask(headers, [&[0][..], &length, &message].concat())
        .await;
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let trailers = String::from_utf8_lossy(&body);
    let (_, after) = trailers.split_once("server-timing:").unwrap();
    assert_timed(after.lines().next().unwrap().trim());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_tells_it_with_each_answer() {
    let (_repository, node) = node(RawServer::default()).await;
    let mut stream = Exchange::with(&node, &[(ASK, "1")]).await;
    for seed in 0..2 {
        stream.send(rows("m", seed, 1)).await;
        let answer = stream.answer().await.unwrap().unwrap();
        let parameters = answer.infer_response.unwrap().parameters;
        let Some(ParameterChoice::StringParam(timing)) = &parameters[ASK].parameter_choice else {
            panic!("{parameters:?}");
        };
        assert_timed(timing);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_tells_it_in_a_header_that_pages_may_read() {
    let settings = RawServer {
        cors_origin: vec!["https://page.example".to_owned()],
        ..RawServer::default()
    };
    let (_repository, node) = node(settings).await;
    let mut wire = Wire::to(node.server.address()).await;
    let asks = ["server-timing: 1", "origin: https://page.example"];
    let answer = wire.ask(post(INFER, &asks, row(&[1.0]))).await;
    assert_timed(answer.header(ASK).unwrap());
    let exposed = answer.header("access-control-expose-headers").unwrap();
    assert!(
        exposed.contains(ASK) && exposed.contains("traceresponse"),
        "{exposed}"
    );
    let refused = wire.ask(post(INFER, &asks, "{")).await;
    assert_eq!(refused.status, 400);
    let times = read(refused.header(ASK).unwrap());
    assert_eq!(times.keys().collect::<Vec<_>>(), ["decode", "total"]);
    for quiet in [&[][..], &["server-timing: 0"]] {
        let answer = wire.ask(post(INFER, quiet, row(&[1.0]))).await;
        assert_eq!(answer.header(ASK), None);
    }
}
