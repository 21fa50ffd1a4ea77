//! The V2 service: each call translated, handed to the engine or the reconciler, and translated
//! back.

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::health::Readiness;
use super::limits::Held;
use super::status::grpc;
use super::stream::{Exchange, stream_infer};
use crate::clock::Moment;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::repository_index_response::ModelIndex;
use crate::proto::*;
use crate::serving::{Engine, ModelState, Reconciler, Version};
use crate::wire;

/// The parts of the protocol's extensions that are offered.
const EXTENSIONS: [&str; 5] = [
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "schedule_policy",
    "statistics",
];

/// The V2 service.
#[derive(Clone, Debug)]
pub(super) struct InferenceService {
    engine: Engine,
    reconciler: Arc<Reconciler>,
    readiness: Arc<Readiness>,
    max_stream_requests: usize,
}

impl InferenceService {
    pub(super) fn new(
        engine: Engine,
        reconciler: Arc<Reconciler>,
        readiness: Arc<Readiness>,
        max_stream_requests: usize,
    ) -> Self {
        Self {
            engine,
            reconciler,
            readiness,
            max_stream_requests,
        }
    }

    fn version(&self, name: &str, version: &str) -> Result<Arc<Version>, Status> {
        self.engine.catalog().resolve(name, version).map_err(grpc)
    }
}

/// Answers one message of one call.
pub(super) async fn infer(
    engine: &Engine,
    message: ModelInferRequest,
    call_deadline: Option<Moment>,
    alone: bool,
) -> Result<(ModelInferResponse, bool), crate::status::Status> {
    let asked = wire::infer_request(message)?;
    let mut request = asked.request;
    request.alone = alone;
    let own = asked.timeout.map(|timeout| engine.clock().now() + timeout);
    request.deadline = match (call_deadline, own) {
        (Some(call), Some(own)) => Some(call.min(own)),
        (call, own) => call.or(own),
    };
    let response = engine.infer(request).await?;
    Ok((wire::infer_response(response), asked.final_response_flag))
}

/// The moment by which the client wants its answer, from `grpc-timeout`.
fn deadline(engine: &Engine, metadata: &MetadataMap) -> Option<Moment> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    Some(engine.clock().now() + timeout(text)?)
}

/// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[tonic::async_trait]
impl GrpcInferenceService for InferenceService {
    async fn server_live(
        &self,
        _request: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _request: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.readiness.is_ready();
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let asked = request.into_inner();
        let ready = self.engine.catalog().is_ready(&asked.name, &asked.version);
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let asked = request.into_inner();
        let version = self.version(&asked.name, &asked.version)?;
        let all = self.engine.catalog().versions(&asked.name).map_err(grpc)?;
        let numbers: Vec<u64> = all.iter().map(|version| version.id.version).collect();
        Ok(Response::new(wire::model_metadata(&version, &numbers)))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let deadline = deadline(&self.engine, request.metadata());
        let held = request.extensions().get::<Arc<Held>>();
        let alone = held.is_some_and(|held| held.is_alone());
        let answer = infer(&self.engine, request.into_inner(), deadline, alone).await;
        let (response, _) = answer.map_err(grpc)?;
        Ok(Response::new(response))
    }

    type ModelStreamInferStream = std::pin::Pin<
        Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + 'static>,
    >;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let exchange = Exchange {
            engine: self.engine.clone(),
            deadline: deadline(&self.engine, request.metadata()),
            held: request.extensions().get::<Arc<Held>>().cloned(),
            max_requests: self.max_stream_requests,
            ends: self.readiness.ends(),
        };
        let responses = stream_infer(exchange, request.into_inner());
        Ok(Response::new(Box::pin(responses)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let asked = request.into_inner();
        let version = self.version(&asked.name, &asked.version)?;
        let config = Some(wire::model_config(&version));
        Ok(Response::new(ModelConfigResponse { config }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let asked = request.into_inner();
        let catalog = self.engine.catalog();
        let versions = match (asked.name.as_str(), asked.version.as_str()) {
            ("", _) => catalog.serving(),
            (name, "") => catalog.versions(name).map_err(grpc)?,
            (name, version) => vec![self.version(name, version)?],
        };
        let model_stats = versions
            .iter()
            .map(|version| wire::model_statistics(version))
            .collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let asked = request.into_inner();
        only_repository(&asked.repository_name)?;
        let entries = self.reconciler.index().await.map_err(grpc)?;
        let models = entries
            .into_iter()
            .filter(|entry| !asked.ready || entry.state == ModelState::Ready)
            .map(|entry| ModelIndex {
                name: entry.model.to_string(),
                version: entry
                    .version
                    .map_or(String::new(), |version| version.to_string()),
                state: entry.state.name().to_owned(),
                reason: entry.reason,
            })
            .collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let asked = request.into_inner();
        only_repository(&asked.repository_name)?;
        if let Some(name) = asked.parameters.keys().min() {
            return Err(Status::unimplemented(format!(
                "parameter {name:?}: loading with a configuration or files in the request is not \
                 offered by this version; put them into the repository"
            )));
        }
        self.reconciler
            .load(&asked.model_name)
            .await
            .map_err(grpc)?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let asked = request.into_inner();
        only_repository(&asked.repository_name)?;
        self.reconciler
            .unload(&asked.model_name)
            .await
            .map_err(grpc)?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        Err(not_offered("system shared memory"))
    }

    async fn system_shared_memory_register(
        &self,
        _request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        Err(not_offered("system shared memory"))
    }

    async fn system_shared_memory_unregister(
        &self,
        _request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        Err(not_offered("system shared memory"))
    }

    async fn cuda_shared_memory_status(
        &self,
        _request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        Err(not_offered("CUDA shared memory"))
    }

    async fn cuda_shared_memory_register(
        &self,
        _request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        Err(not_offered("CUDA shared memory"))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        Err(not_offered("CUDA shared memory"))
    }

    async fn trace_setting(
        &self,
        _request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        Err(not_offered("changing what is traced"))
    }

    async fn log_settings(
        &self,
        _request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        Err(not_offered("changing what is logged"))
    }
}

fn not_offered(what: &str) -> Status {
    Status::unimplemented(format!("{what} is not offered by this version of Jitney"))
}

/// There is one repository, and it has no name.
fn only_repository(name: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Ok(());
    }
    Err(Status::not_found(
        "there is one model repository and it has no name; leave repository_name empty",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeout() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "m", "+1m", "123456789m", "1x", "1 m", "µ"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }
}
