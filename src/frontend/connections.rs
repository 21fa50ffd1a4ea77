//! Connections, of which there are never more than a bound: one more waits until another makes room. One that
//! says nothing gives its place up.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio_rustls::server::TlsStream;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::age::Age;
use super::delivery::Courier;
use super::identity::Peer;
use super::patience::{Patience, Wait};
use super::places::Places;
use super::security::Security;
use super::tls::{Tls, subjects};
use crate::clock::{Moment, Sleep};
use crate::model::Subject;
use crate::telemetry::{DoorCounts, Stalled};

/// By then it is known which version of HTTP a client speaks, and what waits for it has its own bound.
const GREETING: usize = 24;
/// Windows of HTTP/2: large enough that a tensor of megabytes is not stopped half-way.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const FRAME: u32 = 256 * 1024;
/// How often a silent connection is asked whether its client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// From one complaint to the next.
const BETWEEN_COMPLAINTS: Duration = Duration::from_secs(10);

/// Serves connections while there are places, until `shutdown` completes; then tells the clients
/// (GOAWAY), finishes what is in progress and returns. What is dropped ends its connections.
///
/// Each call gets here as it came: in particular nobody but the service reads `grpc-timeout`, so that
/// whoever waited too long is told `DEADLINE_EXCEEDED` with the reason, and not that it gave up.
pub(super) async fn serve<S>(
    listener: TcpListener,
    door: Door,
    service: S,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let mut complaint = Complaint::default();
    let leaves = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let connection = tokio::select! {
            () = &mut shutdown => break,
            connection = door.accept(&listener, &mut complaint) => connection,
        };
        while tasks.try_join_next().is_some() {}
        let Some(connection) = connection else {
            continue;
        };
        let leaves = leaves.subscribe();
        let (door, service) = (door.clone(), service.clone());
        let Some(tls) = door.security.tls.clone() else {
            let peer = door.peer(&connection, Vec::new());
            tasks.spawn(door.serve(connection, service, peer, leaves));
            continue;
        };
        tasks.spawn(async move {
            let Some(connection) = door.secured(&tls, connection).await else {
                return;
            };
            let peer = door.peer(&connection, subjects(&connection.stream));
            door.serve(connection, service, peer, leaves).await;
        });
    }
    // Who comes now is refused rather than kept waiting.
    drop(listener);
    leaves.send_replace(true);
    while tasks.join_next().await.is_some() {}
}

/// The service for one connection: its requests tell who is at the other end, if somebody wants to know.
fn of_peer<S>(
    service: S,
    peer: Option<Arc<Peer>>,
) -> TowerToHyperService<
    impl Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = S::Future>
    + Clone
    + Send,
>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
{
    TowerToHyperService::new(service.map_request(move |mut request: Request<Incoming>| {
        if let Some(peer) = &peer {
            request.extensions_mut().insert(Arc::clone(peer));
        }
        request.map(Body::new)
    }))
}

/// HTTP/1 and HTTP/2 on one port, told apart by how the client begins.
fn http(courier: Courier, max_concurrent_streams: u32) -> Builder<Courier> {
    let mut builder = Builder::new(courier);
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(max_concurrent_streams)
        // Calls that are cancelled before anybody looked at them: a client may give up all that it has at
        // once, and its other calls are not to end with its connection, as they would after 20.
        .max_pending_accept_reset_streams(max_concurrent_streams as usize)
        .keep_alive_interval(KEEPALIVE);
    builder
}

/// When it was last said that connections could not be accepted.
#[derive(Default)]
struct Complaint(Option<Moment>);

impl Complaint {
    fn tell(&mut self, error: &io::Error, now: Moment) {
        if self.0.is_none_or(|last| now >= last + BETWEEN_COMPLAINTS) {
            self.0 = Some(now);
            tracing::warn!(%error, "a connection could not be accepted; one that is idle is asked to make room");
        }
    }
}

/// Who is let in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) places: Arc<Places>,
    pub(super) patience: Patience,
    /// How long an answer waits for its client to take something; none for ever.
    pub(super) delivery: Option<Patience>,
    pub(super) counts: Arc<DoorCounts>,
    pub(super) age: Age,
    pub(super) max_concurrent_streams: u32,
    pub(super) security: Security,
}

impl Door {
    /// The next connection, once there is a place for it; none if it was gone at once.
    async fn accept(
        &self,
        listener: &TcpListener,
        complaint: &mut Complaint,
    ) -> Option<Connection<TcpStream>> {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Such as too many open files: some other connection has to end first.
                complaint.tell(&error, self.patience.now());
                self.places.make_room(self.patience.now());
                self.patience.pause().await;
                return None;
            }
        };
        let place = self.places.take(&self.patience).await?;
        // Without it small answers wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        Some(Connection {
            stream,
            address,
            greeting: Some(self.greeting()),
            writing: self.writing(),
            place,
        })
    }

    /// A connection behind its handshake, on which its client has yet to speak; none if that failed.
    async fn secured(
        &self,
        tls: &Tls,
        connection: Connection<TcpStream>,
    ) -> Option<Connection<TlsStream<TcpStream>>> {
        Some(Connection {
            stream: tls.accept(connection.stream).await?,
            address: connection.address,
            greeting: Some(self.greeting()),
            writing: self.writing(),
            place: connection.place,
        })
    }

    /// Serves a connection until it ends.
    async fn serve<T, S>(
        self,
        connection: Connection<T>,
        service: S,
        peer: Option<Arc<Peer>>,
        leaves: watch::Receiver<bool>,
    ) where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send,
    {
        let seated = self.places.seat(self.patience.now());
        let courier = Courier {
            patience: self.delivery.clone(),
            counts: Arc::clone(&self.counts),
            seat: Arc::clone(&seated.seat),
        };
        let http = http(courier, self.max_concurrent_streams);
        let farewell = self.age.farewell(Arc::clone(&seated.seat));
        let (hears, tells) = (Arc::clone(&farewell), Arc::clone(&farewell));
        let service = service
            .map_request(move |request| hears.hear(request))
            .map_response(move |answer| tells.tell(answer));
        let service = of_peer(service, peer);
        let served = http.serve_connection(TokioIo::new(connection), service);
        self.age.serve(served.into_owned(), farewell, leaves).await;
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            heard: 0,
            ends: self.patience.begin(),
            patience: self.patience.clone(),
        }
    }

    fn writing(&self) -> Writing {
        Writing {
            wait: Wait::new(self.delivery.clone()),
            counts: Arc::clone(&self.counts),
        }
    }

    /// Who is at the other end, if anybody wants to know.
    fn peer<S>(&self, connection: &Connection<S>, subjects: Vec<Subject>) -> Option<Arc<Peer>> {
        let address = connection.address.ip();
        let peer = || Arc::new(Peer { address, subjects });
        self.security.wants_peers().then(peer)
    }
}

/// A connection and its place among those that may be open.
struct Connection<S> {
    stream: S,
    address: SocketAddr,
    /// There until the client has said how it speaks.
    greeting: Option<Greeting>,
    writing: Writing,
    place: OwnedSemaphorePermit,
}

struct Greeting {
    heard: usize,
    ends: Sleep,
    patience: Patience,
}

impl Greeting {
    fn poll_lost(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.ends.as_mut().poll(context);
        ended.map(|()| Err(self.patience.lost()))
    }
}

/// What a client has yet to take, for which its socket has no room.
struct Writing {
    wait: Wait,
    counts: Arc<DoorCounts>,
}

impl Writing {
    /// What came of it, or that it came to nothing for too long.
    fn bounded<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.wait.end();
            return written;
        }
        self.wait.go_on();
        ready!(self.wait.poll_over(context));
        self.counts.stalled(Stalled::Connection);
        let told = "its client takes nothing (write_timeout_ms)";
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, told)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        let Some(greeting) = &mut self.greeting else {
            return read;
        };
        if read.is_pending() {
            return greeting.poll_lost(context);
        }
        greeting.heard += buffer.filled().len() - before;
        if greeting.heard >= GREETING {
            self.greeting = None;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, data);
        self.writing.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.writing.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.writing.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.writing.bounded(context, shut)
    }
}
