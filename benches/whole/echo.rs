//! A server of the same messages that does nothing else.

use std::marker::PhantomData;

use bytes::Bytes;
use jitney::proto::model_infer_response::InferOutputTensor;
use jitney::proto::model_metadata_response::TensorMetadata;
use jitney::proto::{
    DataType, ModelConfig, ModelConfigRequest, ModelConfigResponse, ModelInferRequest,
    ModelInferResponse, ModelInput, ModelMetadataRequest, ModelMetadataResponse, ModelOutput,
    ModelReadyRequest, ModelReadyResponse, ModelStatistics, ModelStatisticsRequest,
    ModelStatisticsResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::{Body as HttpBody, StdError, http};
use tonic::server::{Grpc, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// What the tiny model answers: four numbers.
const TINY: &[u8] = &[0; 16];

#[derive(Clone)]
struct Echo;

impl UnaryService<ModelInferRequest> for Echo {
    type Response = ModelInferResponse;
    type Future = std::future::Ready<Result<Response<ModelInferResponse>, Status>>;

    fn call(&mut self, request: Request<ModelInferRequest>) -> Self::Future {
        let request = request.into_inner();
        let (name, shape, data) = match request.model_name.as_str() {
            "tiny_mlp" => ("y", vec![1, 4], Bytes::from_static(TINY)),
            _ => (
                "OUTPUT0",
                request
                    .inputs
                    .first()
                    .map(|input| input.shape.clone())
                    .unwrap_or_default(),
                request
                    .raw_input_contents
                    .first()
                    .cloned()
                    .unwrap_or_default(),
            ),
        };
        std::future::ready(Ok(Response::new(ModelInferResponse {
            model_name: request.model_name,
            model_version: "1".to_owned(),
            id: request.id,
            outputs: vec![InferOutputTensor {
                name: name.to_owned(),
                datatype: "FP32".to_owned(),
                shape,
                ..InferOutputTensor::default()
            }],
            raw_output_contents: vec![data],
            ..ModelInferResponse::default()
        })))
    }
}

/// Always answers this, whatever it is asked.
struct Says<Q, A>(A, PhantomData<Q>);

impl<Q, A: Clone> UnaryService<Q> for Says<Q, A> {
    type Response = A;
    type Future = std::future::Ready<Result<Response<A>, Status>>;

    fn call(&mut self, _request: Request<Q>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.clone())))
    }
}

/// What load generators ask before they begin: the tiny model and nothing else.
fn metadata() -> ModelMetadataResponse {
    let tensor = |name: &str, numbers| TensorMetadata {
        name: name.to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, numbers],
    };
    ModelMetadataResponse {
        name: "tiny_mlp".to_owned(),
        versions: vec!["1".to_owned()],
        platform: "echo".to_owned(),
        inputs: vec![tensor("x", 16)],
        outputs: vec![tensor("y", 4)],
    }
}

fn config() -> ModelConfigResponse {
    ModelConfigResponse {
        config: Some(ModelConfig {
            name: "tiny_mlp".to_owned(),
            platform: "echo".to_owned(),
            input: vec![ModelInput {
                name: "x".to_owned(),
                data_type: DataType::TypeFp32.into(),
                dims: vec![1, 16],
                ..ModelInput::default()
            }],
            output: vec![ModelOutput {
                name: "y".to_owned(),
                data_type: DataType::TypeFp32.into(),
                dims: vec![1, 4],
                ..ModelOutput::default()
            }],
            ..ModelConfig::default()
        }),
    }
}

fn statistics() -> ModelStatisticsResponse {
    ModelStatisticsResponse {
        model_stats: vec![ModelStatistics {
            name: "tiny_mlp".to_owned(),
            version: "1".to_owned(),
            ..ModelStatistics::default()
        }],
    }
}

impl tonic::server::NamedService for Echo {
    const NAME: &'static str = "inference.GRPCInferenceService";
}

impl<B> tonic::codegen::Service<http::Request<B>> for Echo
where
    B: HttpBody + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = tonic::codegen::BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(
        &mut self,
        _context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        /// Answers a call of this kind with this.
        macro_rules! say {
            ($question:ty, $answer:expr) => {{
                let mut grpc = Grpc::new(ProstCodec::<_, $question>::default());
                grpc.unary(Says($answer, PhantomData), request).await
            }};
        }
        Box::pin(async {
            let path = request.uri().path();
            let method = path.rsplit('/').next().unwrap_or_default();
            Ok(match method {
                "ServerLive" => say!(ServerLiveRequest, ServerLiveResponse { live: true }),
                "ServerReady" => say!(ServerReadyRequest, ServerReadyResponse { ready: true }),
                "ServerMetadata" => {
                    say!(ServerMetadataRequest, ServerMetadataResponse::default())
                }
                "ModelReady" => say!(ModelReadyRequest, ModelReadyResponse { ready: true }),
                "ModelMetadata" => say!(ModelMetadataRequest, metadata()),
                "ModelConfig" => say!(ModelConfigRequest, config()),
                "ModelStatistics" => say!(ModelStatisticsRequest, statistics()),
                _ => {
                    let grpc = Grpc::new(ProstCodec::default());
                    let mut grpc = grpc.max_decoding_message_size(usize::MAX);
                    grpc.unary(Echo, request).await
                }
            })
        })
    }
}

/// Serves until it is killed, with the server's windows and threads.
pub(crate) fn serve() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("gRPC on {}", listener.local_addr()?);
            println!("ready");
            tonic::transport::Server::builder()
                .tcp_nodelay(true)
                .initial_stream_window_size(4 * 1024 * 1024)
                .initial_connection_window_size(16 * 1024 * 1024)
                .max_frame_size(256 * 1024)
                .add_service(Echo)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await?;
            Ok(())
        })
}
