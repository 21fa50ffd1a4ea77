//! Connections, of which there are never more than a bound: one more waits to be accepted. One that
//! says nothing gives its place up.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tonic::body::Body;
use tower::{Service, ServiceExt};

use super::age::Age;
use super::patience::Patience;
use crate::clock::Sleep;

/// By then it is known which version of HTTP a client speaks, and what waits for it has its own bound.
const GREETING: usize = 24;
/// Windows of HTTP/2: large enough that a tensor of megabytes is not stopped half-way.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const FRAME: u32 = 256 * 1024;
/// How often a silent connection is asked whether its client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Places for so many connections, whatever port they come to.
pub(super) fn places(most: usize) -> Arc<Semaphore> {
    Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS)))
}

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
    let service =
        service.map_request(|request: Request<hyper::body::Incoming>| request.map(Body::new));
    let http = http(door.max_concurrent_streams);
    let leaves = watch::Sender::new(false);
    let mut tasks = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let connection = tokio::select! {
            () = &mut shutdown => break,
            connection = door.accept(&listener) => connection,
        };
        while tasks.try_join_next().is_some() {}
        let Some(connection) = connection else {
            continue;
        };
        let farewell = door.age.farewell();
        let (hears, tells) = (Arc::clone(&farewell), Arc::clone(&farewell));
        let service = service
            .clone()
            .map_request(move |request| hears.hear(request))
            .map_response(move |answer| tells.tell(answer));
        let service = TowerToHyperService::new(service);
        let served = http.serve_connection(TokioIo::new(connection), service);
        let age = door.age.clone();
        tasks.spawn(age.serve(served.into_owned(), farewell, leaves.subscribe()));
    }
    // Who comes now is refused rather than kept waiting.
    drop(listener);
    leaves.send_replace(true);
    while tasks.join_next().await.is_some() {}
}

/// HTTP/1 and HTTP/2 on one port, told apart by how the client begins.
fn http(max_concurrent_streams: u32) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(max_concurrent_streams)
        .keep_alive_interval(KEEPALIVE);
    builder
}

/// Who is let in.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) places: Arc<Semaphore>,
    pub(super) patience: Patience,
    pub(super) age: Age,
    pub(super) max_concurrent_streams: u32,
}

impl Door {
    /// The next connection, once there is a place for it; none if it was gone at once.
    async fn accept(&self, listener: &TcpListener) -> Option<Connection> {
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        let Ok((stream, _)) = listener.accept().await else {
            // Such as too many open files, which some other connection has to end first.
            self.patience.pause().await;
            return None;
        };
        // Without it small answers wait for the client's acknowledgement.
        let _ = stream.set_nodelay(true);
        Some(Connection {
            stream,
            greeting: Some(Greeting {
                heard: 0,
                ends: self.patience.begin(),
                patience: self.patience.clone(),
            }),
            _place: place,
        })
    }
}

/// A connection and its place among those that may be open.
struct Connection {
    stream: TcpStream,
    /// There until the client has said how it speaks.
    greeting: Option<Greeting>,
    _place: OwnedSemaphorePermit,
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

impl AsyncRead for Connection {
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

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
