//! gRPC-Web: the calls of gRPC as browsers can make them
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};

use crate::frontend::limits::{Content, Held};

/// Translates gRPC-Web for a service of gRPC, and leaves everything else alone.
#[derive(Clone, Copy, Debug)]
pub(in crate::frontend) struct WebLayer;

impl<S: Clone> Layer<S> for WebLayer {
    type Service = Web<S>;

    fn layer(&self, inner: S) -> Web<S> {
        Web {
            translated: GrpcWebLayer::new().layer(Metered(inner.clone())),
            plain: inner,
        }
    }
}

/// A service, and the same behind gRPC-Web.
#[derive(Clone, Debug)]
pub(in crate::frontend) struct Web<S> {
    plain: S,
    translated: GrpcWebService<Metered<S>>,
}

impl<S> Service<Request<Body>> for Web<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = WebFuture<S::Future, tonic_web::ResponseFuture<S::Future>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.plain.poll_ready(context))?;
        Service::<Request<Body>>::poll_ready(&mut self.translated, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match Content::of(&request) {
            Content::GrpcWeb => WebFuture::Translated {
                future: self.translated.call(request),
            },
            Content::Grpc | Content::Other => WebFuture::Plain {
                future: self.plain.call(request),
            },
        }
    }
}

pin_project! {
    /// The answer of one or the other.
    #[project = WebProjection]
    pub(in crate::frontend) enum WebFuture<P, T> {
        Plain { #[pin] future: P },
        Translated { #[pin] future: T },
    }
}

impl<O, P: Future<Output = O>, T: Future<Output = O>> Future for WebFuture<P, T> {
    type Output = O;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<O> {
        match self.project() {
            WebProjection::Plain { future } => future.poll(context),
            WebProjection::Translated { future } => future.poll(context),
        }
    }
}

/// Counts messages once they have been translated, as those of gRPC are counted as they come in.
#[derive(Clone, Debug)]
pub(in crate::frontend) struct Metered<S>(S);

impl<S: Service<Request<Body>>> Service<Request<Body>> for Metered<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let (parts, mut body) = request.into_parts();
        if let Some(held) = parts.extensions.get::<Arc<Held>>() {
            body = held.meter(parts.uri.path(), body);
        }
        self.0.call(Request::from_parts(parts, body))
    }
}
