//! gRPC: the V2 service, health and reflection on one port.

mod connections;
mod ending;
mod health;
mod limits;
mod messages;
mod service;
mod status;
mod stream;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;

pub use health::Readiness;
pub use limits::Limits;

use crate::proto::DESCRIPTORS;
use crate::proto::grpc_inference_service_server::GrpcInferenceServiceServer;
use crate::serving::{Engine, Reconciler};
use connections::connections;
use ending::Ending;
use limits::LimitLayer;
use service::InferenceService;

/// Windows of HTTP/2: large enough that a tensor of megabytes is not stopped half-way.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
const FRAME: u32 = 256 * 1024;
/// How often a silent connection is asked whether its client is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Descriptors of grpc.health.v1 and our own service, for reflection.
const SERVICES: [&[u8]; 2] = [DESCRIPTORS, tonic_health::pb::FILE_DESCRIPTOR_SET];

/// What the frontend needs to run.
#[derive(Debug)]
pub struct GrpcFrontend {
    /// Where requests go.
    pub engine: Engine,
    /// Where load and unload go.
    pub reconciler: Arc<Reconciler>,
    /// Whether it is ready, and health for those who watch.
    pub readiness: Arc<Readiness>,
    /// What it takes at most.
    pub limits: Limits,
}

impl GrpcFrontend {
    /// Serves until `shutdown` completes; then sends GOAWAY, finishes what is in progress and
    /// returns.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), tonic::transport::Error> {
        let limits = self.limits;
        let health = self.readiness.service();
        let ends = self.readiness.ends();
        let service = InferenceService::new(
            self.engine,
            self.reconciler,
            self.readiness,
            limits.max_stream_requests,
        );
        let inference = GrpcInferenceServiceServer::new(service)
            .max_decoding_message_size(limits.max_message_bytes)
            .max_encoding_message_size(usize::MAX);
        let incoming = connections(listener, limits.max_connections);
        Server::builder()
            .layer(LimitLayer::new(limits))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_concurrent_streams(limits.max_concurrent_streams)
            .http2_keepalive_interval(Some(KEEPALIVE))
            .add_service(inference)
            .add_service(health)
            .add_service(Ending::new(reflection_v1(), ends.clone()))
            .add_service(Ending::new(reflection_v1alpha(), ends))
            .serve_with_incoming_shutdown(incoming, shutdown)
            .await
    }
}

fn reflection_v1() -> tonic_reflection::server::v1::ServerReflectionServer<
    impl tonic_reflection::server::v1::ServerReflection,
> {
    reflection()
        .build_v1()
        .unwrap_or_else(|error| unreachable!("our own descriptors are sound: {error}"))
}

fn reflection_v1alpha() -> tonic_reflection::server::v1alpha::ServerReflectionServer<
    impl tonic_reflection::server::v1alpha::ServerReflection,
> {
    reflection()
        .build_v1alpha()
        .unwrap_or_else(|error| unreachable!("our own descriptors are sound: {error}"))
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    SERVICES.iter().fold(
        tonic_reflection::server::Builder::configure(),
        |builder, set| builder.register_encoded_file_descriptor_set(set),
    )
}
