//! Compressed bodies, at no cost for those that are not: a request goes through the layer that packs or
//! unpacks only if it has the header that asks for it.

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::HeaderName;
use axum::response::{IntoResponse, Response};
use futures_util::TryFutureExt;
use futures_util::future::{Either, MapOk};
use tower::{Layer, Service};

/// A layer for requests with this header.
#[derive(Clone, Debug)]
pub(super) struct If<L> {
    pub(super) header: HeaderName,
    pub(super) layer: L,
}

impl<L: Layer<S>, S: Clone> Layer<S> for If<L> {
    type Service = Fork<L::Service, S>;

    fn layer(&self, past: S) -> Self::Service {
        Fork {
            header: self.header.clone(),
            through: self.layer.layer(past.clone()),
            past,
        }
    }
}

/// A service, and the same behind a layer.
#[derive(Clone, Debug)]
pub(super) struct Fork<T, P> {
    header: HeaderName,
    through: T,
    past: P,
}

type Answered<S> =
    MapOk<<S as Service<Request>>::Future, fn(<S as Service<Request>>::Response) -> Response>;

impl<T, P> Service<Request> for Fork<T, P>
where
    T: Service<Request, Error = Infallible>,
    T::Response: IntoResponse,
    P: Service<Request, Error = Infallible>,
    P::Response: IntoResponse,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<Answered<T>, Answered<P>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        match self.past.poll_ready(context) {
            Poll::Ready(Ok(())) => self.through.poll_ready(context),
            other => other,
        }
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match request.headers().contains_key(&self.header) {
            true => Either::Left(
                self.through
                    .call(request)
                    .map_ok(IntoResponse::into_response),
            ),
            false => Either::Right(self.past.call(request).map_ok(IntoResponse::into_response)),
        }
    }
}
