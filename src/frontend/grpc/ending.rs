//! A service whose calls see the end of their requests when the server stops, so that a client which
//! keeps a stream open does not keep the server.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::Request;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::sync::watch;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::Service;

/// Ends the requests of the service in it once `ends` is true.
#[derive(Clone, Debug)]
pub(super) struct Ending<S> {
    inner: S,
    ends: watch::Receiver<bool>,
}

impl<S> Ending<S> {
    pub(super) fn new(inner: S, ends: watch::Receiver<bool>) -> Self {
        Self { inner, ends }
    }
}

impl<S: NamedService> NamedService for Ending<S> {
    const NAME: &'static str = S::NAME;
}

impl<S: Service<Request<Body>>> Service<Request<Body>> for Ending<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let mut ends = self.ends.clone();
        let end = Box::pin(async move {
            // A server that is gone has ended, too.
            let _ = ends.wait_for(|ends| *ends).await;
        });
        let request = request.map(|inner| Body::new(EndingBody { inner, end }));
        self.inner.call(request)
    }
}

pin_project! {
    /// A request's body that ends early when the server stops.
    struct EndingBody {
        #[pin]
        inner: Body,
        end: BoxFuture<'static, ()>,
    }
}

impl http_body::Body for EndingBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.project();
        let frame = this.inner.poll_frame(context);
        if frame.is_pending() && this.end.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
