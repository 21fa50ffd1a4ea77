//! Who sends half a request, or a request that is small on the wire and large in memory, and who asks for health without
//! saying who that is: none of them takes what others need.

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest, handshake};
use http::{HeaderMap, Request};
use jitney::config::{RawSecurity, RawServer};
use jitney::proto::{InferTensorContents, ModelInferRequest, ModelReadyRequest, ServerLiveRequest};
use prost::Message;
use tokio::net::TcpStream;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use super::node::{Health, Node, within};
use super::repository::Repository;
use super::request::{assert_echo, input, rows};

const SERVICE: &str = "/inference.GRPCInferenceService";

/// A connection of HTTP/2 on which a request need not be whole.
struct Slow(SendRequest<Bytes>);

/// A request that is open, and its answer.
struct Asked(SendStream<Bytes>, ResponseFuture);

impl Slow {
    async fn to(node: &Node) -> Self {
        let stream = TcpStream::connect(node.server.address()).await.unwrap();
        let (requests, connection) = handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    async fn ask(&self, path: &str, headers: &[(&str, &str)], begins: impl Into<Bytes>) -> Asked {
        let mut request = Request::post(format!("http://jitney{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut requests = within("a place", self.0.clone().ready()).await.unwrap();
        let request = request.body(()).unwrap();
        let (answer, mut sends) = requests.send_request(request, false).unwrap();
        sends.send_data(begins.into(), false).unwrap();
        Asked(sends, answer)
    }
}

impl Asked {
    /// The headers, or the trailers if there is a message before them.
    async fn told(self) -> HeaderMap {
        within("an answer", async {
            let answer = self.1.await.unwrap();
            let headers = answer.headers().clone();
            if headers.contains_key("grpc-status") {
                return headers;
            }
            let mut body = answer.into_body();
            while let Some(data) = body.data().await {
                data.unwrap();
            }
            body.trailers().await.unwrap().unwrap()
        })
        .await
    }

    async fn code(self, told: &str) -> Code {
        let headers = self.told().await;
        let message = headers["grpc-message"].to_str().unwrap();
        let message = message.replace("%20", " ");
        assert!(message.contains(told), "{message}");
        let code: i32 = headers["grpc-status"].to_str().unwrap().parse().unwrap();
        Code::from_i32(code)
    }
}

fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.len() as u32);
    framed.put_slice(message);
    framed.freeze()
}

/// A request of so many inputs of which nothing is said.
fn hollow(inputs: usize) -> Bytes {
    let request = ModelInferRequest {
        model_name: "m".to_owned(),
        id: "hollow".to_owned(),
        ..ModelInferRequest::default()
    };
    let mut message = request.encode_to_vec();
    message.extend([0x2a, 0].repeat(inputs));
    framed(&message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_refused_before_it_becomes_much() {
    let repository = Repository::of("", "");
    let settings = RawServer {
        max_message_bytes: Some("65536".to_owned()),
        max_in_flight_bytes: Some("102400".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let slow = Slow::to(&node).await;
    for method in ["ModelInfer", "ModelStreamInfer"] {
        let path = format!("{SERVICE}/{method}");
        let mut asked = slow.ask(&path, &[], hollow(5000)).await;
        asked
            .0
            .send_data(framed(&rows("m", 1, 1).encode_to_vec()), true)
            .ok();
        if method == "ModelInfer" {
            assert_eq!(asked.code("4096 inputs").await, Code::InvalidArgument);
            continue;
        }
        // Of a stream it is one answer, and others follow.
        let answers = within("the answers", async {
            let mut body = asked.1.await.unwrap().into_body();
            let mut answers = Vec::new();
            while let Some(data) = body.data().await {
                answers.extend(data.unwrap());
            }
            answers
        });
        let answers = answers.await;
        let said = String::from_utf8_lossy(&answers);
        for part in ["4096 inputs", "hollow", "y"] {
            assert!(said.contains(part), "{said}");
        }
    }
    let typed = |elements: usize| {
        let mut input = input("x", "FP32", &[1, elements]);
        input.contents = Some(InferTensorContents {
            int64_contents: vec![1; elements],
            ..InferTensorContents::default()
        });
        ModelInferRequest {
            model_name: "m".to_owned(),
            inputs: vec![input],
            ..ModelInferRequest::default()
        }
    };
    let refused = node.infer(typed(10_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(
        refused.message().contains("max_in_flight_bytes"),
        "{refused}"
    );
    let refused = node.infer(typed(1_000)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    assert_echo(
        &node.infer(rows("m", 1, 1)).await.unwrap(),
        &rows("m", 1, 1),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rest_of_a_request_is_not_awaited_for_ever() {
    let settings = RawServer {
        read_timeout_ms: Some("3000".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let slow = Slow::to(&node).await;
    let whole = framed(&rows("m", 1, 1).encode_to_vec());
    let infer = format!("{SERVICE}/ModelInfer");
    let stream = format!("{SERVICE}/ModelStreamInfer");
    // Between two messages a stream may be silent: this one is while all of the others run out of time.
    let mut silent = slow.ask(&stream, &[], whole.clone()).await;
    let mut begun = Vec::new();
    for (path, begins) in [
        (&infer, Bytes::new()),
        (&infer, whole.slice(..1)),
        (&infer, whole.slice(..20)),
        // All of the message, and no end of the request.
        (&infer, whole.clone()),
        (&stream, whole.slice(..20)),
        (&stream, [&whole[..], &whole[..3]].concat().into()),
        (&format!("{SERVICE}/ModelReady"), whole.slice(..3)),
        (&"/grpc.health.v1.Health/Check".to_owned(), Bytes::new()),
    ] {
        begun.push(slow.ask(path, &[], begins).await);
    }
    for asked in begun {
        assert_eq!(asked.code("read_timeout_ms").await, Code::DeadlineExceeded);
    }
    let rest = [("content-type", "application/json")];
    let Asked(_open, answer) = slow.ask("/v2/models/m/infer", &rest, "{").await;
    let answer = within("an answer", answer).await.unwrap();
    assert_eq!(answer.status(), 400);
    silent.0.send_data(whole, true).unwrap();
    let headers = silent.told().await;
    assert_eq!(headers["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_holds_for_the_request_itself() {
    // Nothing else ends it while anybody looks.
    let settings = RawServer {
        read_timeout_ms: Some("3600000".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let slow = Slow::to(&node).await;
    let path = format!("{SERVICE}/ModelInfer");
    let asked = slow.ask(&path, &[("grpc-timeout", "50m")], vec![0]).await;
    assert_eq!(asked.code("grpc-timeout").await, Code::DeadlineExceeded);
}

async fn watch(node: &Node) -> Result<Health, Status> {
    let asked = HealthCheckRequest::default();
    let mut client = HealthClient::new(node.channel());
    let answer = within("a watch", client.watch(asked)).await?;
    Ok(Health::of(answer.into_inner()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_watches_takes_no_place_of_others() {
    let settings = RawServer {
        max_requests: Some("2".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let watches = [watch(&node).await.unwrap(), watch(&node).await.unwrap()];
    let refused = watch(&node).await.err().unwrap();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("watch health"), "{refused}");
    assert_echo(
        &node.infer(rows("m", 1, 1)).await.unwrap(),
        &rows("m", 1, 1),
    );
    drop(watches);
    within("there is a place again", async {
        while watch(&node).await.is_err() {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_client_has_so_many_watches_beside_its_requests() {
    let settings = RawServer {
        security: RawSecurity {
            client_concurrency: Some("1".to_owned()),
            ..RawSecurity::default()
        },
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let _watch = watch(&node).await.unwrap();
    let refused = watch(&node).await.err().unwrap();
    assert!(
        refused.message().contains("client_concurrency"),
        "{refused}"
    );
    assert_echo(
        &node.infer(rows("m", 1, 1)).await.unwrap(),
        &rows("m", 1, 1),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_probe_takes_no_place_and_a_large_one_is_refused() {
    let settings = RawServer {
        max_requests: Some("1".to_owned()),
        ..RawServer::default()
    };
    let (_repository, node) = Node::simulated(settings).await;
    let slow = Slow::to(&node).await;
    let mut open = Vec::new();
    for method in ["ModelReady", "ServerLive", "ServerReady"] {
        open.push(slow.ask(&format!("{SERVICE}/{method}"), &[], vec![0]).await);
    }
    open.push(slow.ask("/grpc.health.v1.Health/Check", &[], vec![0]).await);
    let live = node.client().server_live(ServerLiveRequest {}).await;
    assert!(live.unwrap().into_inner().live);
    assert_echo(
        &node.infer(rows("m", 1, 1)).await.unwrap(),
        &rows("m", 1, 1),
    );
    let ready = |bytes| ModelReadyRequest {
        name: "m".repeat(bytes),
        ..ModelReadyRequest::default()
    };
    let of = async |bytes| node.client().model_ready(ready(bytes)).await;
    assert!(of(60 * 1024).await.is_ok());
    let refused = of(64 * 1024).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("asks for health"), "{refused}");
}
