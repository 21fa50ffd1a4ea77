//! `ModelStreamInfer`: answers in order, errors as messages, and bounds that hold for long streams.

use jitney::config::RawServer;
use jitney::proto::{ModelInferRequest, ModelStreamInferResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming};

use super::node::{Node, within};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};

/// An open stream: what is sent into one end is answered at the other.
pub(crate) struct Exchange {
    requests: mpsc::Sender<ModelInferRequest>,
    answers: Streaming<ModelStreamInferResponse>,
}

impl Exchange {
    pub(crate) async fn open(node: &Node) -> Self {
        Self::with(node, &[]).await
    }

    /// The same with these headers.
    pub(crate) async fn with(node: &Node, headers: &[(&'static str, &str)]) -> Self {
        let (requests, sent) = mpsc::channel(16);
        let mut client = node.client();
        let mut request = Request::new(ReceiverStream::new(sent));
        for (name, value) in headers {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        let answers = client.model_stream_infer(request);
        let answers = within("a stream", answers).await.unwrap().into_inner();
        Self { requests, answers }
    }

    pub(crate) async fn send(&self, request: ModelInferRequest) {
        self.requests.send(request).await.unwrap();
    }

    pub(crate) async fn answer(&mut self) -> Result<Option<ModelStreamInferResponse>, Status> {
        within("an answer", self.answers.message()).await
    }
}

fn echo() -> Repository {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    repository
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_come_in_order_and_an_error_ends_nothing() {
    let repository = echo();
    let node = Node::start(&repository.path()).await;
    let mut stream = Exchange::open(&node).await;
    let request = |seed: usize| {
        let model = if seed % 5 == 4 { "nowhere" } else { "m" };
        let id = seed.to_string();
        ModelInferRequest {
            id,
            ..rows(model, seed, 1)
        }
    };
    for batch in 0..10 {
        for seed in batch * 10..batch * 10 + 10 {
            stream.send(request(seed)).await;
        }
        for seed in batch * 10..batch * 10 + 10 {
            let answer = stream.answer().await.unwrap().unwrap();
            let response = answer.infer_response.unwrap();
            assert_eq!(response.id, seed.to_string());
            if seed % 5 == 4 {
                assert!(answer.error_message.contains("nowhere"));
            } else {
                assert_eq!(answer.error_message, "");
                assert_echo(&response, &request(seed));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answered_messages_no_longer_count_as_in_flight() {
    let repository = echo();
    let settings = RawServer {
        max_message_bytes: Some("1024".to_owned()),
        max_in_flight_bytes: Some("1024".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let mut stream = Exchange::open(&node).await;
    // One at a time: never more than a hundred bytes are in flight.
    for seed in 0..300 {
        stream.send(rows("m", seed, 1)).await;
        let answer = stream.answer().await.unwrap_or_else(|status| {
            panic!("message {seed} of a stream with one request in flight: {status:?}")
        });
        assert_echo(
            &answer.unwrap().infer_response.unwrap(),
            &rows("m", seed, 1),
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_too_large_ends_its_stream_and_no_other() {
    let repository = echo();
    let settings = RawServer {
        max_message_bytes: Some("1024".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let mut other = Exchange::open(&node).await;
    let mut stream = Exchange::open(&node).await;
    stream.send(rows("m", 1, 32)).await;
    stream.send(rows("m", 2, 32)).await;
    let first = stream.answer().await.unwrap().unwrap();
    assert_echo(&first.infer_response.unwrap(), &rows("m", 1, 32));
    let mut large = rows("m", 3, 1);
    large.id = "i".repeat(1024);
    stream.send(large).await;
    let second = stream.answer().await.unwrap().unwrap();
    assert_echo(&second.infer_response.unwrap(), &rows("m", 2, 32));
    let status = stream.answer().await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    other.send(rows("m", 4, 1)).await;
    let answer = other.answer().await.unwrap().unwrap();
    assert_echo(&answer.infer_response.unwrap(), &rows("m", 4, 1));
}
