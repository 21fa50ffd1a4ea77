//! A server that is told to stop leaves in good order: nobody who was in is thrown out.

use std::sync::Arc;
use std::time::Duration;

use jitney::config::RawServer;
use jitney::proto::ServerReadyRequest;
use jitney::server::{RunError, Server};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Endpoint;

use super::node::{Node, infer, until, within};
use super::occupant::Occupant;
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};
use super::stream::Exchange;

/// A server that runs until it is told to stop.
struct Running {
    told: Arc<Notify>,
    ends: JoinHandle<Result<(), RunError>>,
}

impl Running {
    fn new(server: Server) -> Self {
        let told = Arc::new(Notify::new());
        let stop = Arc::clone(&told);
        let ends = server.run(move || {
            let stop = Arc::clone(&stop);
            async move { stop.notified().await }
        });
        let ends = tokio::spawn(ends);
        Self { told, ends }
    }

    /// Tells it to stop; a second time ends the lame-duck time.
    fn stop(&self) {
        self.told.notify_one();
    }

    async fn ends(self) -> Result<(), RunError> {
        within("the server ends", self.ends).await.unwrap()
    }
}

fn slow(fixed_ms: usize) -> Repository {
    let repository = Repository::new();
    let simulated = Simulated {
        policy: "max_batch_size = 2",
        simulated: &format!("fixed_ms = {fixed_ms}"),
        ..Simulated::default()
    };
    repository.simulate("slow", simulated);
    repository.simulate("m", Simulated::default());
    repository
}

fn leaving(lame_duck_ms: usize, drain_timeout_ms: usize) -> RawServer {
    RawServer {
        lame_duck_ms: Some(lame_duck_ms.to_string()),
        drain_timeout_ms: Some(drain_timeout_ms.to_string()),
        ..RawServer::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lame_duck_serves_and_then_finishes_what_it_has() {
    let repository = slow(300);
    let node = Node::with(&repository.path(), leaving(3_600_000, 60_000)).await;
    let address = node.server.address();
    let (mut server, mut model) = (node.health("").await, node.health("m").await);
    server.until(true).await;
    model.until(true).await;
    let mut stream = Exchange::open(&node).await;
    let occupant = Occupant::of(&node, "slow", 2).await;
    let mut client = node.client();
    let running = Running::new(node.server);

    running.stop();
    server.until(false).await;
    model.until(false).await;
    let ready = client.server_ready(ServerReadyRequest {}).await.unwrap();
    assert!(!ready.into_inner().ready);
    let answer = infer(client.clone(), rows("m", 1, 1)).await.unwrap();
    assert_echo(&answer, &rows("m", 1, 1));

    running.stop();
    occupant.leaves().await;
    server.until_ended().await;
    model.until_ended().await;
    let status = stream.answer().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    running.ends().await.unwrap();
    let again = Endpoint::from_shared(format!("http://{address}")).unwrap();
    assert!(again.connect().await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_a_stream_is_answered_before_the_stream_ends() {
    let repository = slow(300);
    let node = Node::with(&repository.path(), leaving(0, 60_000)).await;
    let mut stream = Exchange::open(&node).await;
    let occupant = Occupant::of(&node, "slow", 2).await;
    stream.send(rows("slow", 5, 1)).await;
    let version = node.version("slow");
    until("the request waits", || version.lane.queued() == 2).await;
    let running = Running::new(node.server);
    running.stop();
    let answer = stream.answer().await.unwrap().unwrap();
    assert_echo(&answer.infer_response.unwrap(), &rows("slow", 5, 1));
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::Unavailable);
    occupant.leaves().await;
    running.ends().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_finish_in_time_is_told_to_the_operator() {
    let repository = slow(60_000);
    let node = Node::with(&repository.path(), leaving(0, 50)).await;
    let _occupant = Occupant::of(&node, "slow", 2).await;
    let running = Running::new(node.server);
    running.stop();
    let error = running.ends().await.unwrap_err();
    let fifty = Duration::from_millis(50);
    assert!(
        matches!(error, RunError::NotDrained(time) if time == fifty),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_keeps_a_reflection_stream_open_does_not_keep_the_server() {
    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;

    let repository = slow(1);
    let node = Node::with(&repository.path(), leaving(0, 2_000)).await;
    let (_asks, asked) = tokio::sync::mpsc::channel(1);
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut client = ServerReflectionClient::new(node.channel());
    let answers = client.server_reflection_info(asked);
    let _answers = within("reflection", answers).await.unwrap();
    let running = Running::new(node.server);
    running.stop();
    running.ends().await.unwrap();
}
