//! The V2 service: each call translated, handed to the engine or the reconciler, and translated
//! back.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use prost::Message;
use tokio_stream::Stream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::status::grpc;
use super::stream::{Exchange, stream_infer};
use super::trailing::with;
use crate::clock::Moment;
use crate::frontend::api::{Api, Beside};
use crate::frontend::limits::{Held, Unpacked};
use crate::frontend::traces::asks_for_timing;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::*;
use crate::serving::TraceContext;
use crate::telemetry::{Aside, Watched};
use crate::wire::{self, Parameters};

/// Made once: each is looked for in every call.
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The V2 service.
#[derive(Clone, Debug)]
pub(super) struct InferenceService {
    api: Api,
    max_stream_requests: usize,
}

impl InferenceService {
    pub(super) fn new(api: Api, max_stream_requests: usize) -> Self {
        Self {
            api,
            max_stream_requests,
        }
    }
}

/// What a call brings beside its messages.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// When its headers were there.
    pub(super) arrived: Moment,
    /// When the client wants its answers.
    pub(super) deadline: Option<Moment>,
    /// The call's share of what is taken in at once.
    pub(super) held: Option<Arc<Held>>,
    /// What its headers say in place of parameters.
    forwarded: Parameters,
    /// Where it is in a trace, if it is traced.
    context: Option<TraceContext>,
    /// Whether its client wants to know how long everything took.
    is_timed: bool,
    /// Whether its messages may be larger than they were on the wire.
    compressed: bool,
}

impl Call {
    fn new<T>(api: &Api, request: &Request<T>) -> Self {
        let encoding = request.metadata().as_ref().get(&ENCODING);
        let held: Option<Arc<Held>> = request.extensions().get().cloned();
        let arrived = held.as_ref().map(|held| held.arrived);
        let arrived = arrived.unwrap_or_else(|| api.engine.clock().now());
        Self {
            arrived,
            deadline: deadline(arrived, request.metadata()),
            held,
            forwarded: api.forwarded(request.metadata().as_ref()),
            context: api.traced(request.metadata().as_ref()),
            is_timed: asks_for_timing(request.metadata().as_ref()),
            compressed: encoding.is_some_and(|encoding| encoding != "identity"),
        }
    }

    /// Counts a message that was compressed, for as long as the result is kept.
    fn unpacked(
        &self,
        message: &ModelInferRequest,
    ) -> Result<Option<Unpacked>, crate::status::Status> {
        let held = self.held.as_ref().filter(|_| self.compressed);
        held.map(|held| held.take_unpacked(message.encoded_len()))
            .transpose()
    }
}

/// An answer, and whether the client wants to know that it is the last.
type Answered = Result<(ModelInferResponse, bool), crate::status::Status>;

/// Answers one message of one call.
pub(super) async fn infer(
    api: &Api,
    message: ModelInferRequest,
    call: &Call,
    arrived: Moment,
    alone: bool,
) -> (Answered, Aside) {
    let context = call.context.as_ref().map(TraceContext::sibling);
    let mut watched = api.requests.begin(arrived, context);
    if call.is_timed {
        watched.timed();
    }
    let answer = infer_watched(api, message, call, alone, &mut watched).await;
    let aside = watched.ended(answer.as_ref().err().map(|status| status.code));
    (answer, aside)
}

async fn infer_watched(
    api: &Api,
    message: ModelInferRequest,
    call: &Call,
    alone: bool,
    watched: &mut Watched<'_>,
) -> Answered {
    let _unpacked = call.unpacked(&message)?;
    let asked = wire::infer_request(message)?;
    let flag = asked.final_response_flag;
    let beside = Beside {
        deadline: call.deadline,
        forwarded: &call.forwarded,
        held: call.held.as_ref(),
        alone,
    };
    let response = api.infer(asked, beside, watched).await?;
    Ok((wire::infer_response(response), flag))
}

/// The moment by which the client wants its answer, from `grpc-timeout`.
fn deadline(arrived: Moment, metadata: &MetadataMap) -> Option<Moment> {
    let text = metadata.as_ref().get(&TIMEOUT)?.to_str().ok()?;
    Some(arrived + timeout(text)?)
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
        Ok(Response::new(self.api.server_ready()))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        Ok(Response::new(self.api.model_ready(request.get_ref())))
    }

    async fn server_metadata(
        &self,
        _request: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(self.api.server_metadata()))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        answer(self.api.model_metadata(request.get_ref()))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let call = Call::new(&self.api, &request);
        let alone = call.held.as_ref().is_some_and(|held| held.is_alone());
        let (answered, aside) =
            infer(&self.api, request.into_inner(), &call, call.arrived, alone).await;
        with(answer(answered.map(|(response, _)| response)), aside)
    }

    type ModelStreamInferStream = std::pin::Pin<
        Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + 'static>,
    >;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Self::ModelStreamInferStream>, Status> {
        let exchange = Exchange {
            api: self.api.clone(),
            call: Call::new(&self.api, &request),
            max_requests: self.max_stream_requests,
            share: request.extensions().get().cloned(),
            ends: self.api.readiness.ends(),
        };
        let responses = stream_infer(exchange, request.into_inner());
        Ok(Response::new(Box::pin(responses)))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        answer(self.api.model_config(request.get_ref()))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        answer(self.api.model_statistics(request.get_ref()))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        answer(self.api.repository_index(request.into_inner()).await)
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        answer(self.api.repository_model_load(request.into_inner()).await)
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        answer(self.api.repository_model_unload(request.into_inner()).await)
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        answer(self.api.system_shared_memory_status(request.get_ref()))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        answer(self.api.system_shared_memory_register(request.get_ref()))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        let said = self.api.system_shared_memory_unregister(request.get_ref());
        Ok(Response::new(said))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<CudaSharedMemoryStatusResponse>, Status> {
        answer(self.api.cuda_shared_memory_status(request.get_ref()))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<CudaSharedMemoryRegisterResponse>, Status> {
        answer(self.api.cuda_shared_memory_register(request.get_ref()))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        request: Request<CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<CudaSharedMemoryUnregisterResponse>, Status> {
        let said = self.api.cuda_shared_memory_unregister(request.get_ref());
        Ok(Response::new(said))
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        answer(self.api.trace_setting(request.get_ref()))
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        answer(self.api.log_settings(request.into_inner()))
    }
}

fn answer<T>(answer: Result<T, crate::status::Status>) -> Result<Response<T>, Status> {
    answer.map(Response::new).map_err(grpc)
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
