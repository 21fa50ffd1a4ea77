//! The V2 service: each call translated, handed to the engine or the reconciler, and translated
//! back.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::counted::Counted;
use super::status::grpc;
use super::stream::{Exchange, stream_infer};
use super::trailing::with;
use crate::clock::Moment;
use crate::frontend::api::{Api, Beside};
use crate::frontend::deadline::deadline;
use crate::frontend::limits::Held;
use crate::frontend::traces::asks_for_timing;
use crate::proto::grpc_inference_service_server::GrpcInferenceService;
use crate::proto::*;
use crate::serving::TraceContext;
use crate::telemetry::{Aside, Watched};
use crate::wire::{self, Parameters};

/// The answers of `ModelStreamInfer`.
pub(super) type Responses =
    Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send + 'static>>;

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

    /// Answers one request.
    pub(super) async fn infer(
        &self,
        request: Request<Counted>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let call = Call::new(&self.api, &request);
        let alone = call.held.as_ref().is_some_and(|held| held.is_alone());
        let (answered, aside) =
            infer(&self.api, request.into_inner(), &call, call.arrived, alone).await;
        with(answer(answered.map(|(response, _)| response)), aside)
    }

    /// Answers a stream of requests.
    pub(super) fn stream_infer(&self, request: Request<Streaming<Counted>>) -> Responses {
        let exchange = Exchange {
            api: self.api.clone(),
            call: Call::new(&self.api, &request),
            max_requests: self.max_stream_requests,
            share: request.extensions().get().cloned(),
            ends: self.api.readiness.ends(),
        };
        Box::pin(stream_infer(exchange, request.into_inner()))
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
}

impl Call {
    fn new<T>(api: &Api, request: &Request<T>) -> Self {
        let held: Option<Arc<Held>> = request.extensions().get().cloned();
        let (arrived, deadline) = match &held {
            Some(held) => (held.arrived, held.deadline),
            None => {
                let now = api.engine.clock().now();
                (now, deadline(now, request.metadata().as_ref()))
            }
        };
        Self {
            arrived,
            deadline,
            held,
            forwarded: api.forwarded(request.metadata().as_ref()),
            context: api.traced(request.metadata().as_ref()),
            is_timed: asks_for_timing(request.metadata().as_ref()),
        }
    }
}

/// An answer, and whether the client wants to know that it is the last.
type Answered = Result<(ModelInferResponse, bool), crate::status::Status>;

/// Answers one message of one call.
pub(super) async fn infer(
    api: &Api,
    message: Counted,
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
    message: Counted,
    call: &Call,
    alone: bool,
    watched: &mut Watched<'_>,
) -> Answered {
    let _growth = message.growth?;
    let asked = wire::infer_request(message.message)?;
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

    // Calls that bring tensors do not get here: `Infers` takes them.

    async fn model_infer(
        &self,
        _request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        Err(not_counted())
    }

    type ModelStreamInferStream = Responses;

    async fn model_stream_infer(
        &self,
        _request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Responses>, Status> {
        Err(not_counted())
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

fn not_counted() -> Status {
    Status::internal("the request was decoded without being counted")
}
