//! What stands before every call: who asks, whether that is allowed, and whether it is not too much.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::WWW_AUTHENTICATE;
use http::{HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tower::{Layer, Service};

use super::clients::{Clients, Share, Who};
use super::needs::{Need, need};
use super::{Caller, Identity, Peer};
use crate::clock::{Clock, wall_nanoseconds};
use crate::frontend::grpc::status::grpc;
use crate::frontend::holding::Holding;
use crate::frontend::limits::Content;
use crate::frontend::origins::Origins;
use crate::frontend::purpose::WATCH;
use crate::frontend::rest::error;
use crate::model::Role;
use crate::status::{Code, Status};
use crate::telemetry::{DoorCounts, Refused};

/// What is asked of those who ask, on one port.
pub(in crate::frontend) struct Rules {
    /// Who is known; none if everybody is as good as any.
    pub(in crate::frontend) identity: Option<Arc<Identity>>,
    /// Whether nobody may change what the server does, since nobody is known.
    pub(in crate::frontend) closed: bool,
    /// What each client may ask, if that is limited.
    pub(in crate::frontend) clients: Option<Arc<Clients>>,
    /// How many calls that watch health each may have, if that is limited.
    pub(in crate::frontend) watches: Option<Arc<Clients>>,
    pub(in crate::frontend) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Rules").finish_non_exhaustive()
    }
}

/// Why a call is refused.
struct Refusal {
    why: Refused,
    status: Status,
    /// How the client could say who it is.
    challenge: Option<&'static str>,
}

impl Refusal {
    fn new(why: Refused, code: Code, message: impl Into<String>) -> Self {
        Self {
            why,
            status: Status::new(code, message),
            challenge: None,
        }
    }

    fn into_answer(self, content: Content) -> Response<Body> {
        let mut answer = match content {
            Content::Other => error(&self.status).map(Body::new),
            Content::Grpc | Content::GrpcWeb => grpc(self.status).into_http(),
        };
        if let Some(challenge) = self.challenge {
            let challenge = HeaderValue::from_static(challenge);
            answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        answer
    }
}

impl Rules {
    /// Whether there is nothing to ask.
    pub(in crate::frontend) fn is_empty(&self) -> bool {
        self.identity.is_none() && !self.closed && self.clients.is_none()
    }

    /// Lets a call pass, or says why not. Who passes has the caller's part of what it may ask.
    fn pass<B>(&self, request: &Request<B>) -> Result<Option<Share>, Refusal> {
        let (method, path) = (request.method(), request.uri().path());
        let need = need(method, path);
        let peer = request.extensions().get::<Arc<Peer>>();
        if need == Some(Need::Nothing) {
            return match path {
                WATCH => self.watch(request, peer),
                _ => Ok(None),
            };
        }
        let caller = match &self.identity {
            Some(identity) => Some(self.known(identity, request, peer, need)?),
            None if self.closed && need == Some(Need::One(Role::Operate)) => {
                return Err(closed());
            }
            None => None,
        };
        self.enter(self.clients.as_ref(), caller.as_deref(), peer)
    }

    /// Who watches health need not be known: those who are not are told apart by where they ask from.
    fn watch<B>(
        &self,
        request: &Request<B>,
        peer: Option<&Arc<Peer>>,
    ) -> Result<Option<Share>, Refusal> {
        if self.watches.is_none() {
            return Ok(None);
        }
        let now = wall_nanoseconds() / 1_000_000_000;
        let caller = self.identity.as_ref().and_then(|identity| {
            let known = identity.known();
            known
                .caller(request.headers(), peer.map(AsRef::as_ref), now)
                .ok()
        });
        self.enter(self.watches.as_ref(), caller.as_deref(), peer)
    }

    /// The client's part, if there is a bound.
    fn enter(
        &self,
        clients: Option<&Arc<Clients>>,
        caller: Option<&Caller>,
        peer: Option<&Arc<Peer>>,
    ) -> Result<Option<Share>, Refusal> {
        let Some(clients) = clients else {
            return Ok(None);
        };
        let who = Who::of(caller, peer.map(|peer| peer.address));
        let share = clients.enter(who, self.clock.now());
        share.map(Some).map_err(|(status, why)| Refusal {
            why,
            status,
            challenge: None,
        })
    }

    /// Who asks, if that is known and has what the call needs.
    fn known<B>(
        &self,
        identity: &Identity,
        request: &Request<B>,
        peer: Option<&Arc<Peer>>,
        need: Option<Need>,
    ) -> Result<Arc<Caller>, Refusal> {
        let path = request.uri().path();
        let now = wall_nanoseconds() / 1_000_000_000;
        let peer = peer.map(AsRef::as_ref);
        let caller = identity.known().caller(request.headers(), peer, now);
        let caller = caller.map_err(|told| Refusal {
            challenge: Some(challenge(path)),
            ..Refusal::new(Refused::Unauthenticated, Code::Unauthenticated, told)
        })?;
        let role = match need {
            Some(Need::Nothing | Need::Name) => return Ok(caller),
            Some(Need::One(role)) => role,
            // What nobody has thought of is for those who may everything.
            None => Role::Operate,
        };
        if !caller.roles.has(role) {
            let (name, role) = (&caller.name, role.name());
            let told = format!("{name:?} lacks the role {role:?}, which this call needs");
            return Err(Refusal::new(Refused::Denied, Code::PermissionDenied, told));
        }
        if role == Role::Operate {
            tracing::info!(caller = ?caller.name, path, "an operator's call");
        }
        Ok(caller)
    }
}

fn closed() -> Refusal {
    let told = "nobody may change what this server does: it listens beyond its machine and knows nobody; \
                start it with --identity, or with --open-control true if everybody may";
    Refusal::new(Refused::Denied, Code::PermissionDenied, told)
}

/// On the console's pages a browser asks its user for a name and a password, which is the token.
fn challenge(path: &str) -> &'static str {
    match path.starts_with("/console") {
        true => "Basic realm=\"jitney\", charset=\"UTF-8\"",
        false => "Bearer realm=\"jitney\"",
    }
}

/// Puts [`Rules`] before every service, if there are any, and has no page of another server change anything.
#[derive(Debug)]
pub(in crate::frontend) struct Guard {
    pub(in crate::frontend) rules: Option<Rules>,
    pub(in crate::frontend) origins: Origins,
    pub(in crate::frontend) counts: Arc<DoorCounts>,
}

impl Guard {
    fn pass<B>(&self, request: &Request<B>) -> Result<Option<Share>, Refusal> {
        if !self.origins.let_pass(request) {
            let told = "a page of another server asks; --cors-origin names those that may";
            let denied = Refusal::new(Refused::CrossOrigin, Code::PermissionDenied, told);
            return Err(denied);
        }
        let passed = self.rules.as_ref().map(|rules| rules.pass(request));
        passed.unwrap_or(Ok(None))
    }
}

/// The layer that puts it there.
#[derive(Clone, Debug)]
pub(in crate::frontend) struct GuardLayer(pub(in crate::frontend) Arc<Guard>);

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded {
            inner,
            guard: Arc::clone(&self.0),
        }
    }
}

/// A service behind [`Guard`].
#[derive(Clone, Debug)]
pub(in crate::frontend) struct Guarded<S> {
    inner: S,
    guard: Arc<Guard>,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = GuardedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.guard.pass(&request) {
            Ok(share) => {
                let share = share.map(Arc::new);
                if let Some(share) = &share {
                    request.extensions_mut().insert(Arc::clone(share));
                }
                GuardedFuture::Passed {
                    future: self.inner.call(request),
                    share,
                }
            }
            Err(refusal) => {
                self.guard.counts.refused(refusal.why);
                let content = Content::of(&request);
                GuardedFuture::Refused {
                    answer: Some(refusal.into_answer(content)),
                }
            }
        }
    }
}

pin_project! {
    /// The answer of a guarded service.
    #[project = GuardedProjection]
    pub(in crate::frontend) enum GuardedFuture<F> {
        Refused { answer: Option<Response<Body>> },
        Passed {
            #[pin]
            future: F,
            share: Option<Arc<Share>>,
        },
    }
}

impl<F, E> Future for GuardedFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            GuardedProjection::Refused { answer } => {
                Poll::Ready(Ok(answer.take().unwrap_or_default()))
            }
            GuardedProjection::Passed { future, share } => {
                let response = ready!(future.poll(context))?;
                // A request is in progress until its answer has been sent.
                Poll::Ready(Ok(match share.take() {
                    None => response,
                    Some(share) => response.map(|body| Holding::body(body, share)),
                }))
            }
        }
    }
}
