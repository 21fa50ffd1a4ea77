//! A server that is told to stop leaves in good order: nobody who was in is thrown out.

use std::sync::Arc;
use std::time::Duration;

use jitney::config::RawServer;
use jitney::frontend::{LIVE, ProbeError, probe};
use jitney::proto::ServerReadyRequest;
use jitney::server::{RunError, Server};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Endpoint;

use super::http::{Wire, assert_echo as assert_echoed, get, post, row};
use super::node::{HANG, Node, infer, until, within};
use super::occupant::Occupant;
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows};
use super::stream::Exchange;

/// A server that runs until it is told to stop.
pub(crate) struct Running {
    told: Arc<Notify>,
    ends: JoinHandle<Result<(), RunError>>,
}

impl Running {
    pub(crate) fn new(server: Server) -> Self {
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
    pub(crate) fn stop(&self) {
        self.told.notify_one();
    }

    pub(crate) async fn ends(self) -> Result<(), RunError> {
        within("the server ends", self.ends).await.unwrap()
    }
}

fn slow() -> Repository {
    let repository = Repository::new();
    let simulated = Simulated {
        policy: "max_batch_size = 2",
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
    let repository = slow();
    let node = Node::with(&repository.path(), leaving(3_600_000, 60_000)).await;
    let address = node.server.address();
    let (mut server, mut model) = (node.health("").await, node.health("m").await);
    server.until(true).await;
    model.until(true).await;
    let mut live = node.health(LIVE).await;
    live.until(true).await;
    let mut stream = Exchange::open(&node).await;
    let occupant = Occupant::of(&node, "slow", 2).await;
    let mut client = node.client();
    let running = Running::new(node.server);

    running.stop();
    server.until(false).await;
    model.until(false).await;
    // It is about to go, and nobody has to kill it.
    probe(address, None, LIVE, HANG).await.unwrap();
    let said = probe(address, None, "m", HANG).await.unwrap_err();
    assert!(matches!(said, ProbeError::NotServing(_)), "{said}");
    let said = probe(address, None, "nobody", HANG).await.unwrap_err();
    assert!(
        matches!(said, ProbeError::Refused(_, _, Code::NotFound)),
        "{said}"
    );
    let ready = client.server_ready(ServerReadyRequest {}).await.unwrap();
    assert!(!ready.into_inner().ready);
    let answer = infer(client.clone(), rows("m", 1, 1)).await.unwrap();
    assert_echo(&answer, &rows("m", 1, 1));

    running.stop();
    occupant.leaves().await;
    server.until_ended().await;
    model.until_ended().await;
    live.until_ended().await;
    let status = stream.answer().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    running.ends().await.unwrap();
    let again = Endpoint::from_shared(format!("http://{address}")).unwrap();
    assert!(again.connect().await.is_err());
    let said = probe(address, None, LIVE, HANG).await.unwrap_err();
    assert!(matches!(said, ProbeError::Away(..)), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_in_a_stream_is_answered_before_the_stream_ends() {
    let repository = slow();
    let node = Node::with(&repository.path(), leaving(0, 60_000)).await;
    let mut health = node.health("").await;
    health.until(true).await;
    let mut stream = Exchange::open(&node).await;
    let occupant = Occupant::of(&node, "slow", 2).await;
    stream.send(rows("slow", 5, 1)).await;
    let version = node.version("slow");
    until("the request waits", || version.queued() == 2).await;
    let running = Running::new(node.server);
    running.stop();
    health.until_ended().await;
    let occupant = occupant.goes();
    let answer = stream.answer().await.unwrap().unwrap();
    assert_echo(&answer.infer_response.unwrap(), &rows("slow", 5, 1));
    assert_eq!(stream.answer().await.unwrap_err().code(), Code::Unavailable);
    occupant.has_left().await;
    running.ends().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_finish_in_time_is_told_to_the_operator() {
    let repository = slow();
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

    let repository = slow();
    let node = Node::with(&repository.path(), leaving(0, 60_000)).await;
    let (_asks, asked) = tokio::sync::mpsc::channel(1);
    let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
    let mut client = ServerReflectionClient::new(node.channel());
    let answers = client.server_reflection_info(asked);
    let _answers = within("reflection", answers).await.unwrap();
    let running = Running::new(node.server);
    running.stop();
    running.ends().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_is_told_and_answered_before_its_connections_close() {
    let repository = slow();
    let node = Node::with(&repository.path(), leaving(3_600_000, 60_000)).await;
    let address = node.server.address();
    let version = node.version("slow");
    let mut health = node.health("").await;
    health.until(true).await;
    let occupant = Occupant::of(&node, "slow", 2).await;
    let mut idle = Wire::to(address).await;
    assert_eq!(idle.ask(get("/v2/health/ready")).await.status, 200);
    let silent = Wire::to(address).await;
    let mut busy = Wire::to(address).await;
    busy.send(post("/v2/models/slow/infer", &[], row(&[1.0])))
        .await;
    until("the request waits", || version.queued() == 2).await;
    let running = Running::new(node.server);

    running.stop();
    health.until(false).await;
    let answer = idle.ask(get("/v2/health/ready")).await;
    assert_eq!(
        (answer.status, answer.json()["ready"].as_bool()),
        (503, Some(false))
    );
    // Whoever asks is told to go elsewhere with the next, and served on if it does not.
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(idle.closed().await, b"");
    let mut again = Wire::to(address).await;
    assert_eq!(again.ask(get("/v2/health/live")).await.status, 200);
    let mut again = Wire::to(address).await;
    let asked = post("/v2/models/m/infer", &[], row(&[2.0]));
    assert_echoed(&again.ask(asked).await, &[2.0]);

    running.stop();
    assert_eq!(silent.closed().await, b"");
    let occupant = occupant.goes();
    let answer = busy.answer().await;
    assert_echoed(&answer, &[1.0]);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(busy.closed().await, b"");
    occupant.has_left().await;
    running.ends().await.unwrap();
}
