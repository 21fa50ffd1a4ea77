//! A service whose calls may say something after their answer, which tonic leaves no room for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tower::Service;

use crate::frontend::traces::aside;
use crate::telemetry::{Aside, SERVER_TIMING};

/// What an answer says beside its message: its trace before it, its timing after it.
pub(super) fn with<T>(
    answer: Result<tonic::Response<T>, Status>,
    said: Aside,
) -> Result<tonic::Response<T>, Status> {
    if said == Aside::default() {
        return answer;
    }
    let (trailers, headers): (Vec<_>, Vec<_>) =
        aside(said).partition(|(name, _)| *name == SERVER_TIMING);
    match answer {
        Ok(mut response) => {
            extend(response.metadata_mut(), headers);
            let trailers = trailers.into_iter();
            let trailers = trailers.map(|(name, value)| (name.parse().ok(), value));
            let trailers = trailers.filter_map(|(name, value)| Some((name?, value)));
            response
                .extensions_mut()
                .insert(Trailers(trailers.collect()));
            Ok(response)
        }
        Err(mut status) => {
            extend(status.metadata_mut(), headers.into_iter().chain(trailers));
            Err(status)
        }
    }
}

fn extend(
    metadata: &mut MetadataMap,
    said: impl IntoIterator<Item = (&'static str, http::HeaderValue)>,
) {
    for (name, value) in said {
        if let Ok(value) = value.as_bytes().try_into() {
            metadata.insert(name, value);
        }
    }
}

/// What is to be said after an answer.
#[derive(Clone, Debug)]
struct Trailers(HeaderMap);

/// Says what the service in it has left to say.
#[derive(Clone, Debug)]
pub(super) struct Trailing<S>(pub(super) S);

impl<S: NamedService> NamedService for Trailing<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Trailing<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = TrailingFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        TrailingFuture {
            future: self.0.call(request),
        }
    }
}

pin_project! {
    /// The answer, with what is said after it.
    pub(super) struct TrailingFuture<F> {
        #[pin]
        future: F,
    }
}

impl<F, E> Future for TrailingFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let mut answer = ready!(self.project().future.poll(context))?;
        let trailers = answer.extensions_mut().remove::<Trailers>();
        Poll::Ready(Ok(match trailers {
            None => answer,
            Some(Trailers(trailers)) => answer.map(|body| followed(body, trailers)),
        }))
    }
}

/// The same body, with more trailers.
pub(super) fn followed(inner: Body, trailers: HeaderMap) -> Body {
    Body::new(TrailingBody { inner, trailers })
}

pin_project! {
    /// A body with more trailers than it has.
    struct TrailingBody {
        #[pin]
        inner: Body,
        trailers: HeaderMap,
    }
}

impl http_body::Body for TrailingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.inner.poll_frame(context));
        Poll::Ready(frame.map(|frame| {
            Ok(match frame?.into_trailers() {
                Err(data) => data,
                Ok(mut trailers) => {
                    trailers.extend(this.trailers.drain());
                    Frame::trailers(trailers)
                }
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
