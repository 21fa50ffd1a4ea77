//! Whoever takes nothing of an answer loses it: a call of HTTP/2 alone, a connection where the socket
//! takes nothing either. What they held is given back, and others go on.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{Builder, SendRequest};
use h2::{Reason, RecvStream};
use http::Request;
use jitney::config::RawServer;
use prost::Message;
use tokio::net::TcpStream;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use super::http::{Wire, head, row};
use super::metrics::{scrape, scrape_at_rest, value};
use super::node::{Node, within};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, input, raw, rows};

const CALLS: &str = "jitney_write_timeouts_total{outcome=\"call_ended\"}";
const CONNECTIONS: &str = "jitney_write_timeouts_total{outcome=\"connection_ended\"}";
const GRPC: &str = "/inference.GRPCInferenceService/ModelInfer";
const REST: &str = "/v2/models/m/infer";
/// Numbers of an answer that is larger than any window here.
const MANY: usize = 100_000;

async fn node() -> (Repository, Node) {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    let settings = RawServer {
        write_timeout_ms: Some("1000".to_owned()),
        metrics_address: Some("127.0.0.1:0".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    (repository, node)
}

/// A connection of HTTP/2 whose client takes so much of each answer, and not a byte more.
struct Stingy(SendRequest<Bytes>);

impl Stingy {
    async fn to(address: SocketAddr, window: u32) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let mut builder = Builder::new();
        builder.initial_window_size(window);
        let (requests, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(requests)
    }

    /// An answer's body, once its head is there.
    async fn ask(&mut self, path: &str, content_type: &str, body: Bytes) -> RecvStream {
        let request = Request::post(format!("http://jitney{path}"));
        let request = request.header("content-type", content_type).body(());
        let answer = within("an answer", async {
            let mut requests = self.0.clone().ready().await.unwrap();
            let (answer, mut sends) = requests.send_request(request.unwrap(), false).unwrap();
            sends.send_data(body, true).unwrap();
            answer.await.unwrap()
        });
        let answer = answer.await;
        assert_eq!(answer.status(), 200);
        answer.into_body()
    }

    async fn infer(&mut self, columns: usize) -> RecvStream {
        let request = raw("m", input("x", "FP32", &[1, columns]), vec![0; columns * 4]);
        self.ask(GRPC, "application/grpc", framed(&request)).await
    }
}

/// A message as gRPC sends it.
fn framed(message: &impl Message) -> Bytes {
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(message.encoded_len() as u32);
    message.encode(&mut framed).unwrap();
    framed.freeze()
}

/// What comes of a body of which nothing is acknowledged, and why no more.
async fn taken(mut body: RecvStream) -> (usize, Option<Reason>) {
    let mut bytes = 0;
    within("the answer ends", async {
        while let Some(data) = body.data().await {
            match data {
                Ok(data) => bytes += data.len(),
                Err(error) => return (bytes, error.reason()),
            }
        }
        (bytes, None)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_no_more_of_an_answer_loses_it_and_no_other() {
    let (_repository, node) = node().await;
    let mut stingy = Stingy::to(node.server.address(), 1000).await;
    for columns in [500, MANY] {
        let by_grpc = stingy.infer(columns).await;
        assert_eq!(taken(by_grpc).await, (1000, Some(Reason::CANCEL)));
    }
    let json = Bytes::from(row(&vec![1.0; MANY]));
    let by_rest = stingy.ask(REST, "application/json", json).await;
    assert_eq!(taken(by_rest).await, (1000, Some(Reason::CANCEL)));
    // The connection has lost nothing else.
    let (bytes, why) = taken(stingy.infer(4).await).await;
    assert!(bytes > 16 && why.is_none(), "{bytes} {why:?}");
    let told = scrape_at_rest(&node).await;
    assert_eq!(value(&told, "jitney_in_flight_bytes"), Some(0.0));
    assert_eq!(value(&told, CALLS), Some(3.0));
    assert_eq!(value(&told, CONNECTIONS), Some(0.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_any_window_the_smallest_answer_is_not_kept() {
    let (_repository, node) = node().await;
    let mut stingy = Stingy::to(node.server.address(), 0).await;
    let answers = [stingy.infer(4).await, stingy.infer(4).await];
    for answer in answers {
        assert_eq!(taken(answer).await, (0, Some(Reason::CANCEL)));
    }
    let told = scrape_at_rest(&node).await;
    assert_eq!(value(&told, CALLS), Some(2.0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_waits_for_its_client_to_ask_goes_on() {
    let (_repository, node) = node().await;
    let (asks, asked) = tokio::sync::mpsc::channel(1);
    asks.send(rows("m", 1, 1)).await.unwrap();
    let mut client = node.client();
    let answers = client.model_stream_infer(ReceiverStream::new(asked)).await;
    let mut answers = answers.unwrap().into_inner();
    let first = within("an answer", answers.next()).await.unwrap().unwrap();
    assert_echo(&first.infer_response.unwrap(), &rows("m", 1, 1));
    // All of the time passes that another client has.
    let mut stingy = Stingy::to(node.server.address(), 0).await;
    taken(stingy.infer(4).await).await;
    asks.send(rows("m", 2, 1)).await.unwrap();
    let second = within("an answer", answers.next()).await.unwrap().unwrap();
    assert_echo(&second.infer_response.unwrap(), &rows("m", 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_socket_takes_nothing_is_ended() {
    let (_repository, node) = node().await;
    let mut wire = Wire::to(node.server.address()).await;
    // More than the system keeps for both ends.
    let numbers = 8 << 20;
    let json = format!(
        r#"{{"inputs":[{{"name":"x","datatype":"FP32","shape":[1,{numbers}],
            "parameters":{{"binary_data_size":{}}}}}],"parameters":{{"binary_data_output":true}}}}"#,
        numbers * 4
    );
    let lengths = [
        format!("inference-header-content-length: {}", json.len()),
        format!("content-length: {}", json.len() + numbers * 4),
    ];
    wire.send(head(REST, &lengths.each_ref().map(String::as_str)))
        .await;
    wire.send(json).await;
    wire.send(vec![0; numbers * 4]).await;
    within("the connection is given up", async {
        while value(&scrape(&node, "*/*").await.1, CONNECTIONS) != Some(1.0) {}
    })
    .await;
    let read = wire.closed().await;
    assert!(read.starts_with(b"HTTP/1.1 200 OK"));
    assert!(read.len() < numbers * 4, "{}", read.len());
    let told = scrape_at_rest(&node).await;
    assert_eq!(value(&told, "jitney_in_flight_bytes"), Some(0.0));
    assert_eq!(value(&told, CALLS), Some(0.0));
}
