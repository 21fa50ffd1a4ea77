//! A connection that has got old takes no new calls, and loses none that it has.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper_util::rt::TokioIo;
use jitney::config::RawServer;
use jitney::proto::ServerLiveRequest;
use jitney::server::Server;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::authority::{Authority, handshake};
use super::http::{Wire, assert_echo as assert_echoed, post, row};
use super::node::{Client, Node, infer, until, within};
use super::occupant::Gate;
use super::place::Place;
use super::repository::Repository;
use super::request::{assert_echo, rows};

/// An age that a first call is well within.
fn aging(grace: Option<&str>) -> RawServer {
    RawServer {
        max_connection_age_ms: Some("4000".to_owned()),
        max_connection_age_grace_ms: grace.map(str::to_owned),
        ..RawServer::default()
    }
}

/// A channel, and how often it has connected.
async fn counted(address: SocketAddr) -> (Channel, Arc<AtomicUsize>) {
    counted_by(address, move || TcpStream::connect(address)).await
}

/// The same, connected in a way of its own.
async fn counted_by<S, F>(
    address: SocketAddr,
    connect: impl Fn() -> F + Send + 'static,
) -> (Channel, Arc<AtomicUsize>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = io::Result<S>> + Send + 'static,
{
    let count: Arc<AtomicUsize> = Arc::default();
    let counts = Arc::clone(&count);
    let connect = tower::service_fn(move |_: Uri| {
        counts.fetch_add(1, Ordering::SeqCst);
        let connected = connect();
        async move { connected.await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = endpoint.connect_with_connector(connect).await.unwrap();
    (channel, count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_under_way_on_an_old_connection_is_answered() {
    let repository = Repository::of("", "");
    let node = Node::with(&repository.path(), aging(None)).await;
    let (channel, connections) = counted(node.server.address()).await;
    assert_nothing_is_lost(&node.server, node.repository(), channel, &connections).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nor_is_anything_lost_over_tls() {
    let (place, authority) = (Place::new(), Authority::new());
    place.put_pair(&authority.issue("jitney.test"));
    let repository = Repository::of("", "");
    let settings = RawServer {
        security: place.tls(),
        ..aging(None)
    };
    let server = Node::server(&repository.path(), settings).await;
    let address = server.address();
    let connector = authority.connector(None);
    let connect = move || {
        let connector = connector.clone();
        async move { handshake(address, &connector).await }
    };
    let (channel, connections) = counted_by(address, connect).await;
    assert_nothing_is_lost(&server, &repository.path(), channel, &connections).await;
}

/// One request waits for the model all the while, and is answered by the connection that it came by; others
/// find new ones.
async fn assert_nothing_is_lost(
    server: &Server,
    repository: &Path,
    channel: Channel,
    connections: &AtomicUsize,
) {
    let gate = Gate::of(repository, "m");
    let version = server.catalog().versions("m").unwrap().pop().unwrap();
    let under_way = tokio::spawn(infer(Client::new(channel.clone()), rows("m", 1, 1)));
    let offered = || version.demand().unwrap().offered;
    until("the request runs", || offered() == 1).await;
    // Each call takes the channel's present connection: in time that is another one.
    within("another connection", async {
        while connections.load(Ordering::SeqCst) < 3 {
            let mut client = Client::new(channel.clone());
            // Of this client, a call that it has not sent yet fails when the connection goes.
            let _ = client.server_live(ServerLiveRequest {}).await;
        }
    })
    .await;
    assert!(!under_way.is_finished());
    gate.open();
    let answer = within("the answer", under_way).await.unwrap().unwrap();
    assert_echo(&answer, &rows("m", 1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_outlasts_the_grace_is_cut_off() {
    let repository = Repository::of("", "");
    let node = Node::with(&repository.path(), aging(Some("0"))).await;
    let (channel, _) = counted(node.server.address()).await;
    let gate = Gate::close(&node, "m");
    let cut = infer(Client::new(channel), rows("m", 1, 1)).await;
    assert!(cut.is_err(), "{cut:?}");
    gate.open();
    // Its request has left with it, and nobody else has.
    let (channel, _) = counted(node.server.address()).await;
    let answer = infer(Client::new(channel), rows("m", 2, 1)).await.unwrap();
    assert_echo(&answer, &rows("m", 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_of_http_1_closes_with_an_answer() {
    let repository = Repository::of("", "");
    let node = Node::with(&repository.path(), aging(None)).await;
    let mut wire = Wire::to(node.server.address()).await;
    let infer = || post("/v2/models/m/infer", &[], row(&[1.0]));
    let mut answer = wire.ask(infer()).await;
    assert_echoed(&answer, &[1.0]);
    assert_eq!(answer.header("connection"), None);
    within("the connection gets old", async {
        while answer.header("connection").is_none() {
            answer = wire.ask(infer()).await;
            assert_echoed(&answer, &[1.0]);
        }
    })
    .await;
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(wire.closed().await, b"");
}
