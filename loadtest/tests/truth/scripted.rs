//! A server that answers as a script says.

use std::convert::Infallible;
use std::future::{Pending, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use jitney_load::proto::{ModelInferRequest, ModelInferResponse};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Request, Response, Status};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// Its answer, so much later.
    After(Duration),
    /// An answer that is another request's.
    OfAnother,
    Fails(Code),
    Never,
}

/// By the request's number and the time since the first one came.
type Script = dyn Fn(u64, Duration) -> Reply + Send + Sync;

#[derive(Clone)]
struct Handler {
    script: Arc<Script>,
    first: Arc<OnceLock<Instant>>,
    present: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

pub(crate) struct Scripted {
    pub(crate) address: String,
    most: Arc<AtomicUsize>,
}

impl Scripted {
    pub(crate) async fn start(
        script: impl Fn(u64, Duration) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let handler = Handler {
            script: Arc::new(script),
            first: Arc::default(),
            present: Arc::default(),
            most: Arc::default(),
        };
        let most = Arc::clone(&handler.most);
        let server = tonic::transport::Server::builder().add_service(handler);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, most }
    }

    /// The most requests that were there at the same time.
    pub(crate) fn most_at_once(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl Handler {
    #[allow(clippy::disallowed_methods)] // a stall happens at a time
    async fn answer(
        self,
        request: ModelInferRequest,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let since = self.first.get_or_init(Instant::now).elapsed();
        let number: u64 = request.id.parse().unwrap();
        let id = match (self.script)(number, since) {
            Reply::After(delay) => {
                tokio::time::sleep(delay).await;
                request.id
            }
            Reply::OfAnother => (number + 1).to_string(),
            Reply::Fails(code) => return Err(Status::new(code, "as it was told")),
            Reply::Never => {
                let never: Pending<Infallible> = pending();
                match never.await {}
            }
        };
        Ok(Response::new(ModelInferResponse {
            model_name: request.model_name,
            id,
            ..ModelInferResponse::default()
        }))
    }
}

impl UnaryService<ModelInferRequest> for Handler {
    type Response = ModelInferResponse;
    type Future = BoxFuture<Response<ModelInferResponse>, Status>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async move {
            let present = 1 + handler.present.fetch_add(1, Ordering::SeqCst);
            handler.most.fetch_max(present, Ordering::SeqCst);
            let left = Arc::clone(&handler.present);
            let answer = handler.answer(request.into_inner()).await;
            left.fetch_sub(1, Ordering::SeqCst);
            answer
        })
    }
}

impl NamedService for Handler {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl<B> Service<http::Request<B>> for Handler
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let handler = self.clone();
        Box::pin(async {
            let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
            Ok(grpc.unary(handler, request).await)
        })
    }
}
