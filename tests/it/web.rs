//! gRPC-Web, and everything on one port or on ports of their own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jitney::config::RawServer;
use jitney::proto::{ModelInferRequest, ModelInferResponse};
use prost::Message;

use super::http::{Answer, Wire, assert_echo, get, post, row};
use super::node::Node;
use super::request::{self, rows};

pub(crate) const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const BINARY: &str = "content-type: application/grpc-web+proto";
const TEXT: &str = "content-type: application/grpc-web-text";

pub(crate) fn frame(message: &ModelInferRequest) -> Vec<u8> {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0], &length[..], &message].concat()
}

/// The message, if there is one, and the trailers.
fn frames(body: &[u8]) -> (Option<ModelInferResponse>, String) {
    let (mut message, mut rest) = (None, body);
    while let Some((prefix, tail)) = rest.split_at_checked(5) {
        let length = u32::from_be_bytes(prefix[1..].try_into().unwrap()) as usize;
        let (content, after) = tail.split_at(length);
        rest = after;
        if prefix[0] == 0x80 {
            return (message, String::from_utf8(content.to_vec()).unwrap());
        }
        message = Some(ModelInferResponse::decode(content).unwrap());
    }
    panic!("no trailers: {body:?}");
}

#[track_caller]
fn assert_answered(body: &[u8], sent: &ModelInferRequest) {
    let (message, trailers) = frames(body);
    request::assert_echo(&message.unwrap(), sent);
    assert!(trailers.contains("grpc-status:0"), "{trailers}");
}

/// All that may be asked of one port.
async fn assert_everything(node: &Node) {
    let mut wire = Wire::to(node.server.address()).await;
    let sent = rows("m", 3, 2);
    let answer = wire.ask(post(INFER, &[BINARY], frame(&sent))).await;
    assert_answered(&answer.body, &sent);
    let accept = "accept: application/grpc-web-text";
    let text = STANDARD.encode(frame(&sent));
    let answer = wire.ask(post(INFER, &[TEXT, accept], text)).await;
    assert_answered(&from_text(&answer), &sent);
    request::assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
    node.health("m").await.until(true).await;
}

/// Each piece of the body is encoded by itself, padding and all.
fn from_text(answer: &Answer) -> Vec<u8> {
    let text = String::from_utf8(answer.body.clone()).unwrap();
    let groups = text.as_bytes().chunks(4);
    groups
        .flat_map(|group| STANDARD.decode(group).unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_grpc_web_rest_and_health_share_a_port() {
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    assert_eq!(node.server.http_address(), Some(node.server.address()));
    assert_everything(&node).await;
    let mut wire = Wire::to(node.server.address()).await;
    assert_echo(
        &wire.ask(post("/v2/models/m/infer", &[], row(&[4.0]))).await,
        &[4.0],
    );
    assert_eq!(wire.ask(get("/v2/health/live")).await.status, 200);
    let sent = rows("m", 4, 1);
    let answer = wire.ask(post(INFER, &[BINARY], frame(&sent))).await;
    assert_answered(&answer.body, &sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_and_rest_have_ports_of_their_own() {
    let settings = RawServer {
        http_address: Some("127.0.0.2:0".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    assert_everything(&node).await;
    let mut rest = Wire::to(node.server.http_address().unwrap()).await;
    assert_echo(
        &rest.ask(post("/v2/models/m/infer", &[], row(&[4.0]))).await,
        &[4.0],
    );
    let mut grpc = Wire::to(node.server.address()).await;
    let answer = grpc.ask(get("/v2/health/live")).await;
    assert!(answer.header("grpc-status").is_some(), "{answer:?}");
    let request = post(
        INFER,
        &["content-type: application/grpc"],
        frame(&rows("m", 1, 1)),
    );
    assert_eq!(rest.ask(request).await.status, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_bounded_once_they_are_translated() {
    let settings = RawServer {
        max_message_bytes: Some("1024".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let large = frame(&rows("m", 1, 100));
    for (content, body) in [
        (BINARY, large.clone()),
        (TEXT, STANDARD.encode(&large).into()),
    ] {
        let mut wire = Wire::to(node.server.address()).await;
        let answer = wire.ask(post(INFER, &[content], body)).await;
        assert_eq!(answer.header("grpc-status"), Some("8"), "{answer:?}");
        assert!(
            answer
                .header("grpc-message")
                .unwrap()
                .contains("max_message_bytes")
        );
    }
    // And those of gRPC, whatever they are said to be.
    for content in ["application/grpc", "text/plain"] {
        let request = http::Request::post(format!("http://x{INFER}"));
        let request = request.header("content-type", content);
        let answer = node.ask(request, large.clone()).await;
        assert_eq!(answer.headers()["grpc-status"], "8", "{content}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_others_may_ask_only_if_the_operator_says_so() {
    const PREFLIGHT: &str = "OPTIONS /v2/models/m/infer HTTP/1.1\r\nhost: x\r\n\
        origin: https://page.example\r\naccess-control-request-method: POST\r\n\
        access-control-request-headers: content-type,x-grpc-web\r\n\r\n";
    const ALLOWED: &str = "access-control-allow-origin";
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let mut wire = Wire::to(node.server.address()).await;
    let answer = wire.ask(PREFLIGHT).await;
    assert_eq!((answer.status, answer.header(ALLOWED)), (405, None));

    for (origins, expected) in [
        (
            "https://other.example,https://page.example",
            Some("https://page.example"),
        ),
        ("https://other.example", None),
        ("*", Some("*")),
    ] {
        let settings = RawServer {
            cors_origin: origins.split(',').map(str::to_owned).collect(),
            ..RawServer::default()
        };
        let (_repository, node) = Node::simulated(settings).await;
        let mut wire = Wire::to(node.server.address()).await;
        let answer = wire.ask(PREFLIGHT).await;
        assert_eq!((answer.status, answer.header(ALLOWED)), (200, expected));
        let headers = answer.header("access-control-allow-headers");
        assert_eq!(headers, Some("content-type,x-grpc-web"));
        let sent = rows("m", 4, 1);
        let origin = "origin: https://page.example";
        let answer = wire.ask(post(INFER, &[BINARY, origin], frame(&sent))).await;
        assert_answered(&answer.body, &sent);
        assert_eq!(answer.header(ALLOWED), expected);
        let exposed = answer.header("access-control-expose-headers").unwrap();
        assert!(
            exposed.contains("grpc-status") && exposed.contains("inference-header-content-length")
        );
    }
}
