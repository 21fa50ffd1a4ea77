//! What is taken in at once: calls, and bytes of requests that have not been answered.
//!
//! Both are counted before anything is decoded, so that a flood costs a header each. A message that
//! is too large is refused when its length is known, before its bytes are awaited.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, Version};
use pin_project_lite::pin_project;
use smallvec::SmallVec;
use tonic::body::Body;
use tower::{Layer, Service};

use super::console::is_look;
use super::deadline::deadline;
use super::grpc::status::grpc;
use super::holding::Holding;
use super::messages::Messages;
use super::metered::metered;
use super::metrics::METRICS_PATH;
use super::patience::Patience;
use super::purpose::{Purpose, is_stream};
use super::rest::error;
use crate::clock::Moment;
use crate::status::Status;
use crate::telemetry::InFlight;

/// What a client is told to wait when the server is full; the queues have better estimates.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Of the bytes that may be in flight, those that ask for health have a part this small, of their own.
const PROBES_PART: usize = 16;

/// What the frontend takes at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one request message.
    pub max_message_bytes: usize,
    /// Connections open; more wait to be accepted.
    pub max_connections: usize,
    /// Calls in progress on one connection; more wait at the client.
    pub max_concurrent_streams: u32,
    /// Calls in progress on all connections; more are refused.
    pub max_requests: usize,
    /// Bytes of requests received and not answered, over all calls; more are refused.
    pub max_in_flight_bytes: usize,
    /// Requests of one `ModelStreamInfer` that are not answered; more wait at the client.
    pub max_stream_requests: usize,
    /// How long a client may say nothing where the server can do nothing else than wait for it.
    pub read_timeout: Duration,
    /// How long a client may take nothing of an answer; none for ever.
    pub write_timeout: Option<Duration>,
    /// How old a connection gets before its client is told to make another; none for any age.
    pub max_connection_age: Option<Duration>,
    /// How long calls may go on after that; none for as long as they take.
    pub max_connection_age_grace: Option<Duration>,
    /// Whether answers of gRPC carry load reports.
    pub orca_trailers: bool,
}

/// What is held of one purpose.
#[derive(Debug, Default)]
struct Holds {
    calls: AtomicUsize,
    bytes: AtomicUsize,
}

/// What is held of each purpose, so that whoever asks for health, and need not be known, takes nothing from others.
#[derive(Debug)]
struct Gauge {
    limits: Limits,
    patience: Patience,
    work: Holds,
    probes: Holds,
    watches: Holds,
}

impl Gauge {
    fn enter(
        self: &Arc<Self>,
        arrived: Moment,
        deadline: Option<Moment>,
        purpose: Purpose,
    ) -> Result<Arc<Held>, Status> {
        // Counting first means that two calls cannot both take the last place.
        let held = Arc::new(Held {
            arrived,
            deadline,
            purpose,
            gauge: Arc::clone(self),
            bytes: AtomicUsize::new(0),
            messages: Mutex::default(),
        });
        let calls = self.of(purpose).calls.fetch_add(1, Ordering::AcqRel);
        // Who is busy is not to be taken for dead.
        if calls < self.limits.max_requests || purpose == Purpose::Probe {
            return Ok(held);
        }
        let what = match purpose {
            Purpose::Watch => "calls that watch health",
            Purpose::Probe | Purpose::Work => "calls",
        };
        Err(Status::exhausted(
            format!("{calls} {what} are in progress (max_requests)"),
            RETRY_AFTER,
        ))
    }

    fn of(&self, purpose: Purpose) -> &Holds {
        match purpose {
            Purpose::Work => &self.work,
            Purpose::Probe => &self.probes,
            Purpose::Watch => &self.watches,
        }
    }

    fn take(&self, purpose: Purpose, bytes: usize) -> Result<(), Status> {
        let most = match purpose {
            Purpose::Work => self.limits.max_in_flight_bytes,
            Purpose::Probe | Purpose::Watch => self.limits.max_in_flight_bytes / PROBES_PART,
        };
        let before = self.of(purpose).bytes.fetch_add(bytes, Ordering::AcqRel);
        if before.saturating_add(bytes) <= most {
            return Ok(());
        }
        Err(Status::exhausted(
            format!("{before} bytes of requests are in flight (max_in_flight_bytes)"),
            RETRY_AFTER,
        ))
    }
}

/// A call's share of the gauge, given back when the last of its parts is gone.
#[derive(Debug)]
pub(super) struct Held {
    /// When the call's headers were there.
    pub(super) arrived: Moment,
    /// When its client wants its answers, if it is a call of gRPC that says so.
    pub(super) deadline: Option<Moment>,
    purpose: Purpose,
    gauge: Arc<Gauge>,
    bytes: AtomicUsize,
    /// Sizes on the wire of messages that came in whole and were not given back, oldest first.
    messages: Mutex<SmallVec<[usize; 2]>>,
}

impl Held {
    /// Counts bytes that the call has brought.
    pub(super) fn take(&self, bytes: usize) -> Result<(), Status> {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.gauge.take(self.purpose, bytes)
    }

    /// Counts bytes that a message becomes beside those that came in, for as long as the result is kept.
    pub(super) fn take_unpacked(&self, bytes: usize) -> Result<Unpacked, Status> {
        let unpacked = Unpacked {
            gauge: Arc::clone(&self.gauge),
            purpose: self.purpose,
            bytes,
        };
        self.gauge.take(self.purpose, bytes)?;
        Ok(unpacked)
    }

    /// The body of a call of gRPC, whose messages are counted as they come in, and bounded.
    pub(super) fn meter(self: &Arc<Self>, path: &str, body: Body) -> Body {
        let bounds = Messages::new(self.gauge.limits.max_message_bytes);
        let messages = match self.purpose {
            Purpose::Work => bounds,
            Purpose::Probe | Purpose::Watch => bounds.small(),
        };
        metered(body, messages, is_stream(path), Arc::clone(self))
    }

    /// How long its client is waited for.
    pub(super) fn patience(&self) -> &Patience {
        &self.gauge.patience
    }

    /// Whether no other call is in progress.
    pub(super) fn is_alone(&self) -> bool {
        self.gauge.work.calls.load(Ordering::Acquire) <= 1
    }

    /// A message of this size on the wire has come in whole.
    pub(super) fn received(&self, bytes: usize) {
        self.messages().push(bytes);
    }

    /// Gives back the bytes of the oldest message: for streams, whose messages end before they do.
    pub(super) fn give_back_message(&self) {
        let bytes = {
            let mut messages = self.messages();
            if messages.is_empty() {
                return;
            }
            messages.remove(0)
        };
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        let holds = self.gauge.of(self.purpose);
        holds.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    fn messages(&self) -> MutexGuard<'_, SmallVec<[usize; 2]>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let holds = self.gauge.of(self.purpose);
        holds.calls.fetch_sub(1, Ordering::AcqRel);
        let bytes = *self.bytes.get_mut();
        holds.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

/// A message that is larger than it was on the wire.
#[derive(Debug)]
pub(super) struct Unpacked {
    gauge: Arc<Gauge>,
    purpose: Purpose,
    bytes: usize,
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        let holds = self.gauge.of(self.purpose);
        holds.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Puts [`Limits`] before every service.
#[derive(Clone, Debug)]
pub(super) struct LimitLayer {
    gauge: Arc<Gauge>,
}

impl LimitLayer {
    pub(super) fn new(limits: Limits, patience: Patience) -> Self {
        Self {
            gauge: Arc::new(Gauge {
                limits,
                patience,
                work: Holds::default(),
                probes: Holds::default(),
                watches: Holds::default(),
            }),
        }
    }

    /// What is held at this moment.
    pub(super) fn in_flight(&self) -> InFlight {
        let Gauge {
            work,
            probes,
            watches,
            ..
        } = &*self.gauge;
        let bytes = [work, probes, watches].map(|holds| holds.bytes.load(Ordering::Acquire));
        InFlight {
            calls: work.calls.load(Ordering::Acquire),
            bytes: bytes.into_iter().sum(),
        }
    }
}

impl<S> Layer<S> for LimitLayer {
    type Service = Limited<S>;

    fn layer(&self, inner: S) -> Limited<S> {
        Limited {
            inner,
            gauge: Arc::clone(&self.gauge),
        }
    }
}

/// A service behind [`Limits`].
#[derive(Clone, Debug)]
pub(super) struct Limited<S> {
    inner: S,
    gauge: Arc<Gauge>,
}

impl<S> Service<Request<Body>> for Limited<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = LimitedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let content = Content::of(&request);
        // Whoever watches is answered when the server is full, too, and is no call.
        let held = match request.uri().path() == METRICS_PATH || is_look(&request) {
            true => Ok(None),
            false => {
                let arrived = self.gauge.patience.now();
                let deadline = match content {
                    Content::Other => None,
                    Content::Grpc | Content::GrpcWeb => deadline(arrived, request.headers()),
                };
                let purpose = Purpose::of(request.uri().path());
                self.gauge.enter(arrived, deadline, purpose).map(Some)
            }
        };
        match held {
            Err(status) => LimitedFuture::Refused {
                answer: Some(match content {
                    Content::Other => error(&status).map(Body::new),
                    Content::Grpc | Content::GrpcWeb => grpc(status).into_http(),
                }),
            },
            Ok(held) => {
                let (mut parts, mut body) = request.into_parts();
                // Between two messages of a stream of HTTP/2 a client may be silent: whoever follows them waits.
                if parts.version < Version::HTTP_2 || content != Content::Grpc {
                    body = self.gauge.patience.watch(body);
                }
                if let Some(held) = &held {
                    parts.extensions.insert(Arc::clone(held));
                    // The others' bytes are not messages yet: they are counted by whoever reads them.
                    if content == Content::Grpc {
                        body = held.meter(parts.uri.path(), body);
                    }
                }
                LimitedFuture::Admitted {
                    version: parts.version,
                    future: self.inner.call(Request::from_parts(parts, body)),
                    held,
                }
            }
        }
    }
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Grpc,
    GrpcWeb,
    Other,
}

impl Content {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let content = request.headers().get(CONTENT_TYPE);
        let content = content.map_or(&b""[..], HeaderValue::as_bytes);
        // tonic takes any type for gRPC's, so that the path has to tell.
        match names_service(request.uri().path()) {
            true if content.starts_with(b"application/grpc-web") => Self::GrpcWeb,
            true => Self::Grpc,
            false => Self::Other,
        }
    }
}

/// Whether a path is `/package.Service/Method`.
fn names_service(path: &str) -> bool {
    let service = path.split('/').nth(1);
    service.is_some_and(|service| service.contains('.'))
}

pin_project! {
    /// The answer of a limited service.
    #[project = LimitedProjection]
    pub(super) enum LimitedFuture<F> {
        Refused { answer: Option<Response<Body>> },
        Admitted {
            #[pin]
            future: F,
            held: Option<Arc<Held>>,
            version: Version,
        },
    }
}

impl<F, E> Future for LimitedFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            LimitedProjection::Refused { answer } => {
                Poll::Ready(Ok(answer.take().unwrap_or_default()))
            }
            LimitedProjection::Admitted {
                future,
                held,
                version,
            } => {
                let response = ready!(future.poll(context))?;
                let held = held.take();
                // A call is in progress until its response has been sent.
                Poll::Ready(Ok(
                    response.map(|body| Holding::in_pieces(body, held, *version))
                ))
            }
        }
    }
}
