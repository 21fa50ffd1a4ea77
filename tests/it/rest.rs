//! REST where clients are awkward: bodies that are wrong, large, slow, compressed or cut off.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use jitney::config::RawServer;
use jitney::proto::{ModelReadyRequest, ServerLiveRequest, ServerReadyRequest};
use tonic::Code;

use super::http::{Wire, assert_echo, get, head, post, row};
use super::metrics::{scrape_at_rest, scrape_with};
use super::node::{Node, until};
use super::occupant::Occupant;
use super::repository::Repository;
use super::request;

const INFER: &str = "/v2/models/m/infer";
const KIB: usize = 1024;

async fn wire(node: &Node) -> Wire {
    Wire::to(node.server.address()).await
}

/// Bounds that a test can fill.
fn small() -> RawServer {
    RawServer {
        max_message_bytes: Some((64 * KIB).to_string()),
        max_in_flight_bytes: Some((100 * KIB).to_string()),
        ..RawServer::default()
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routes_and_methods_that_there_are_not() {
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let mut wire = wire(&node).await;
    for (path, told) in [
        ("/", "\"/\""),
        ("/v1/models", "/v1/models"),
        ("/v2/nowhere", "openapi.json"),
    ] {
        let answer = wire.ask(get(path)).await;
        assert_eq!(answer.status, 404);
        assert!(answer.error().contains(told), "{answer:?}");
    }
    for (request, allow) in [
        (post("/v2", &[], ""), "GET,HEAD"),
        (get(INFER).into_bytes(), "POST"),
        (
            b"OPTIONS /v2 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            "GET,HEAD",
        ),
        (
            b"DELETE /v2/models/m HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
            "GET,HEAD",
        ),
    ] {
        let answer = wire.ask(request).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)));
        assert!(answer.error().contains("is not asked by"), "{answer:?}");
    }
    wire.send("HEAD /v2/health/ready HTTP/1.1\r\nhost: x\r\n\r\n")
        .await;
    let answer = wire.answer_without_body().await;
    assert_eq!(
        (answer.status, answer.header("content-length")),
        (200, Some("14"))
    );
    assert_eq!(
        wire.ask(get("/v2/health/ready")).await.json()["ready"],
        true
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_may_be_percent_encoded() {
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let mut wire = wire(&node).await;
    assert_eq!(
        wire.ask(get("/v2/models/%6d/ready")).await.json()["name"],
        "m"
    );
    let answer = wire.ask(get("/v2/models/a%2Fb%22")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.error().contains("a/b"), "{answer:?}");
    assert_eq!(wire.ask(get("/v2/models/%ff")).await.status, 400);
    let answer = wire.ask(get("/v2/models/m/versions/newest/ready")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("newest"), "{answer:?}");
    assert_eq!(
        wire.ask(get("/v2/models/m/versions/2/ready")).await.status,
        404
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_json_ends_has_to_be_right() {
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let mut wire = wire(&node).await;
    let json = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"parameters":{"binary_data_size":4}}]}"#;
    let body = [json.as_bytes(), &1.5_f32.to_le_bytes()].concat();
    let with = |length: String| {
        let header = format!("Inference-Header-Content-Length: {length}");
        post(INFER, &[&header], &body)
    };
    assert_echo(&wire.ask(with(json.len().to_string())).await, &[1.5]);
    for (length, told) in [
        ((json.len() + 5).to_string(), "where the body has"),
        ((json.len() - 1).to_string(), "the request's JSON"),
        ("0".to_owned(), "the request's JSON"),
        ("-1".to_owned(), "not a whole number"),
        (usize::MAX.to_string(), "where the body has"),
        ("9".repeat(40), "not a whole number"),
    ] {
        let answer = wire.ask(with(length)).await;
        assert_eq!(answer.status, 400);
        assert!(answer.error().contains(told), "{answer:?}");
    }
    // Without the header all of the body is JSON.
    assert_eq!(wire.ask(post(INFER, &[], &body)).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_refused_before_it_is_there() {
    let (_repository, node) = Node::simulated(small()).await;
    // Not a byte of the body is sent.
    let declared = head(INFER, &["content-length: 65537"]);
    let answer = wire(&node).await.ask(declared).await;
    assert_eq!(answer.status, 413);
    assert!(answer.error().contains("65536"), "{answer:?}");
    let mut chunked = wire(&node).await;
    chunked
        .send(head(INFER, &["transfer-encoding: chunked"]))
        .await;
    for _ in 0..2 {
        let chunk = [b"8001\r\n", &[b' '; 0x8001][..], b"\r\n"].concat();
        chunked.send(chunk).await;
    }
    assert_eq!(chunked.answer().await.status, 413);
    // What a body is decompressed to is what counts.
    let bomb = gzip(&vec![b' '; 4 << 20]);
    assert!(bomb.len() < 64 * KIB);
    let mut exploding = wire(&node).await;
    let answer = exploding
        .ask(post(INFER, &["content-encoding: gzip"], &bomb))
        .await;
    assert_eq!(answer.status, 413);
    // Nothing of it is still counted.
    let numbers = vec![0.25; 8_000];
    let answer = wire(&node).await.ask(post(INFER, &[], row(&numbers))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_bodies_are_read_and_others_refused() {
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let mut wire = wire(&node).await;
    let body = gzip(row(&[1.0, 2.0]).as_bytes());
    assert_echo(
        &wire
            .ask(post(INFER, &["content-encoding: gzip"], &body))
            .await,
        &[1.0, 2.0],
    );
    let answer = wire
        .ask(post(INFER, &["content-encoding: br"], &body))
        .await;
    assert_eq!(answer.status, 415);
    assert!(answer.header("accept-encoding").unwrap().contains("gzip"));
    let answer = wire
        .ask(post(INFER, &["content-encoding: gzip"], "no gzip"))
        .await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("the body"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_flight_are_shared_by_both_protocols() {
    let repository = Repository::of("max_batch_size = 1", "");
    let node = Node::with(&repository.path(), small()).await;
    let version = node.version("m");
    let numbers = vec![0.25; 10_000];
    let json = row(&numbers);
    // As JSON and decoded, both of which are held: 90 kB.
    assert!((40..60 * KIB).contains(&json.len()));
    let body = gzip(json.as_bytes());
    let occupant = Occupant::of(&node, "m", 1).await;
    let mut waiting = wire(&node).await;
    waiting
        .send(post(INFER, &["content-encoding: gzip"], &body))
        .await;
    until("the request waits", || version.queued() == 2).await;
    let answer = wire(&node).await.ask(post(INFER, &[], &json)).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (429, Some("1"))
    );
    assert!(answer.error().contains("max_in_flight_bytes"), "{answer:?}");
    let large = request::rows("m", 1, 4_000);
    let status = node.infer(large).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    occupant.leaves().await;
    assert_echo(&waiting.answer().await, &numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_are_counted_over_both_protocols_but_probes_are_answered() {
    let repository = Repository::of("max_batch_size = 1", "");
    let settings = RawServer {
        max_requests: Some("2".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    let mut wire = wire(&node).await;
    let answer = wire.ask(post(INFER, &[], row(&[1.0]))).await;
    assert_eq!(answer.status, 429);
    assert!(answer.error().contains("max_requests"), "{answer:?}");
    assert_eq!(wire.ask(get("/v2/health/live")).await.status, 200);
    assert_eq!(wire.ask(get("/v2/health/ready")).await.status, 200);
    let of_model = ["/v2/models/m/ready", "/v2/models/m/versions/1/ready"];
    for path in of_model {
        assert_eq!(wire.ask(get(path)).await.status, 200, "{path}");
    }
    let mut client = node.client();
    client.server_live(ServerLiveRequest {}).await.unwrap();
    client.server_ready(ServerReadyRequest {}).await.unwrap();
    let ready = ModelReadyRequest {
        name: "m".to_owned(),
        ..ModelReadyRequest::default()
    };
    client.model_ready(ready).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(node.channel());
    let asked = tonic_health::pb::HealthCheckRequest::default();
    health.check(asked).await.unwrap();
    occupant.leaves().await;
    scrape_at_rest(&node).await;
    assert_echo(&wire.ask(post(INFER, &[], row(&[1.0]))).await, &[1.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_may_come_in_pieces_but_not_pause_for_ever() {
    let settings = RawServer {
        read_timeout_ms: Some("3000".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let body = row(&[1.0, 2.5]);
    let mut chunked = wire(&node).await;
    chunked
        .send(head(INFER, &["transfer-encoding: chunked"]))
        .await;
    for byte in body.bytes() {
        chunked.send(format!("1\r\n{}\r\n", char::from(byte))).await;
    }
    chunked.send("0\r\n\r\n").await;
    assert_echo(&chunked.answer().await, &[1.0, 2.5]);

    let mut paused = wire(&node).await;
    paused.send(head(INFER, &["content-length: 100"])).await;
    paused.send(&body[..10]).await;
    let answer = paused.answer().await;
    assert_eq!(answer.status, 400);
    assert!(answer.error().contains("read_timeout_ms"), "{answer:?}");
    assert_eq!(paused.closed().await, b"");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_and_says_too_little_is_hung_up_on() {
    let settings = RawServer {
        read_timeout_ms: Some("100".to_owned()),
        http_address: Some("127.0.0.2:0".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    for address in [node.server.address(), node.server.http_address().unwrap()] {
        assert_eq!(Wire::to(address).await.closed().await, b"");
        for said in ["P", "PRI * HTTP/2.0", "GET /v2"] {
            let mut wire = Wire::to(address).await;
            wire.send(said).await;
            wire.closed().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_gives_back_what_it_took() {
    let repository = Repository::of("max_batch_size = 1", "");
    let settings = RawServer {
        max_requests: Some("3".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let version = node.version("m");
    let mut occupant = Occupant::with_deadlines(&node, "m", 1).await;
    // While it waits for its answer.
    let mut waiting = wire(&node).await;
    waiting.send(post(INFER, &[], row(&[1.0]))).await;
    until("the request waits", || version.queued() == 2).await;
    drop(waiting);
    until("the request leaves", || version.queued() == 1).await;
    scrape_with(&node, 2).await;
    // In the middle of its body.
    let mut cut_off = wire(&node).await;
    cut_off.send(head(INFER, &["content-length: 100"])).await;
    cut_off.send("{").await;
    scrape_with(&node, 3).await;
    assert_eq!(wire(&node).await.ask(get("/v2")).await.status, 429);
    drop(cut_off);
    scrape_with(&node, 2).await;
    assert_eq!(wire(&node).await.ask(get("/v2")).await.status, 200);
    assert!(occupant.is_there());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_carries_many_requests_and_those_sent_ahead() {
    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let mut wire = wire(&node).await;
    let ahead: Vec<u8> = (0..5)
        .flat_map(|number| post(INFER, &[], row(&[number as f32])))
        .collect();
    wire.send(ahead).await;
    for number in 0..5 {
        assert_echo(&wire.answer().await, &[number as f32]);
    }
    assert_echo(&wire.ask(post(INFER, &[], row(&[9.0]))).await, &[9.0]);
    wire.send("GET /v2 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(wire.answer().await.status, 200);
    wire.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_2_without_tls_is_understood() {
    use http_body_util::BodyExt;

    let (_repository, node) = Node::simulated(RawServer::default()).await;
    let request = http::Request::post(format!("http://x{INFER}"));
    let answer = node.ask(request, row(&[1.0, 2.0])).await;
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    let said: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(said["outputs"][0]["data"], serde_json::json!([1.0, 2.0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_is_there_but_does_not_serve_is_not_ready() {
    let repository = Repository::of("", "");
    repository.add_file("broken", 1, b"no model");
    let node = Node::start(&repository.path()).await;
    let mut wire = wire(&node).await;
    let answer = wire.ask(get("/v2/models/broken/ready")).await;
    assert_eq!(answer.status, 503);
    let said = answer.json();
    assert_eq!(
        (&said["name"], &said["ready"]),
        (&"broken".into(), &false.into())
    );
    let reason = said["reason"].as_str().unwrap();
    assert!(reason.contains("broken/1/model.onnx"), "{reason}");
    assert_eq!(wire.ask(get("/v2/models/broken")).await.status, 503);
    assert_eq!(wire.ask(get("/v2/models/nowhere/ready")).await.status, 404);
}
