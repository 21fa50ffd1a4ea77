//! A server that answers as a script says.

use std::convert::Infallible;
use std::future::{Pending, pending};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use jitney_load::proto::{ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use tokio::net::TcpListener;
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::Instant;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// Its answer, so much later.
    After(Duration),
    /// An answer that is another request's.
    OfAnother,
    Fails(Code),
    /// Its answer, and once more; over a stream.
    Twice,
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
        Self::serve(Server::builder(), script).await
    }

    /// The same over TLS.
    pub(crate) async fn start_encrypted(
        identity: Identity,
        script: impl Fn(u64, Duration) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let tls = ServerTlsConfig::new().identity(identity);
        Self::serve(Server::builder().tls_config(tls).unwrap(), script).await
    }

    async fn serve(
        mut server: Server,
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
        let server = server.add_service(handler);
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
            Reply::Twice => request.id,
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

impl StreamingService<ModelInferRequest> for Handler {
    type Response = ModelStreamInferResponse;
    type ResponseStream = UnboundedReceiverStream<Result<ModelStreamInferResponse, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<ModelInferRequest>>) -> Self::Future {
        let (tell, told) = unbounded_channel();
        let handler = self.clone();
        tokio::spawn(async move {
            let mut requests = request.into_inner();
            while let Ok(Some(request)) = requests.message().await {
                let (handler, tell) = (handler.clone(), tell.clone());
                tokio::spawn(async move {
                    for answer in handler.streamed(request).await {
                        // The client may have gone.
                        let _ = tell.send(Ok(answer));
                    }
                });
            }
        });
        Box::pin(async { Ok(Response::new(UnboundedReceiverStream::new(told))) })
    }
}

impl Handler {
    async fn streamed(self, request: ModelInferRequest) -> Vec<ModelStreamInferResponse> {
        let id = request.id.clone();
        let reply = (self.script)(id.parse().unwrap(), Duration::ZERO);
        let answer = match self.answer(request).await {
            Ok(answer) => ModelStreamInferResponse {
                infer_response: Some(answer.into_inner()),
                ..ModelStreamInferResponse::default()
            },
            Err(status) => ModelStreamInferResponse {
                error_message: status.message().to_owned(),
                infer_response: Some(ModelInferResponse {
                    id,
                    ..ModelInferResponse::default()
                }),
            },
        };
        let times = if matches!(reply, Reply::Twice) { 2 } else { 1 };
        vec![answer; times]
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
            Ok(match request.uri().path().ends_with("/ModelStreamInfer") {
                true => {
                    let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
                    grpc.streaming(handler, request).await
                }
                false => {
                    let mut grpc = Grpc::new(tonic_prost::ProstCodec::default());
                    grpc.unary(handler, request).await
                }
            })
        })
    }
}
