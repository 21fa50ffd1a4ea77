//! The calls of the V2 protocol, in its messages: what gRPC and REST both answer with.

use std::sync::Arc;

use super::limits::Held;
use super::readiness::Readiness;
use crate::clock::Moment;
use crate::proto::model_repository_parameter::ParameterChoice;
use crate::proto::repository_index_response::ModelIndex;
use crate::proto::*;
use crate::serving::{
    Engine, IndexEntry, InferResponse, ModelState, Reconciler, SharedMemory, Version,
};
use crate::status::{Code, Status};
use crate::telemetry::{Requests, Watched};
use crate::wire::{self, Asked, Parameters};

/// The parts of the protocol's extensions that are offered.
const EXTENSIONS: [&str; 13] = [
    "binary_tensor_data",
    "classification",
    "cuda_shared_memory",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "sequence",
    "statistics",
    "system_shared_memory",
    "trace",
];

/// Models that are named as reasons why the server is not ready.
const MOST_TOLD: usize = 10;

/// The calls of the V2 protocol.
#[derive(Clone, Debug)]
pub struct Api {
    /// Where requests go.
    pub engine: Engine,
    /// Where load and unload go.
    pub reconciler: Arc<Reconciler>,
    /// What becomes of requests.
    pub requests: Arc<Requests>,
    /// Whether the server is ready.
    pub readiness: Arc<Readiness>,
    /// What the server says its name is.
    pub server_name: Arc<str>,
    /// Where tensors may lie beside messages.
    pub shared_memory: Arc<SharedMemory>,
    /// Whether clients may change what is logged.
    pub log_settings: bool,
    /// Whether clients may change what is traced.
    pub trace_settings: bool,
    /// Headers that stand for parameters of requests.
    pub forward_headers: Arc<[&'static str]>,
}

/// What is known of a request beside its message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    /// When its call ends.
    pub(super) deadline: Option<Moment>,
    /// What its headers say in place of parameters.
    pub(super) forwarded: &'a Parameters,
    /// Its call's share of what is taken in at once.
    pub(super) held: Option<&'a Arc<Held>>,
    /// Whether no other request is being received.
    pub(super) alone: bool,
}

impl Api {
    /// Answers one request by its call's deadline.
    pub(super) async fn infer(
        &self,
        mut asked: Asked,
        beside: Beside<'_>,
        watched: &mut Watched<'_>,
    ) -> Result<InferResponse, Status> {
        asked.hear(beside.forwarded)?;
        let mut request = asked.request;
        request.alone = beside.alone;
        request.deadline = beside.deadline;
        request.timeout = asked.timeout;
        if !asked.regions.is_empty() {
            let infer = self.infer_shared(request, asked.regions, beside.held, watched);
            return infer.await;
        }
        let journey = watched.understood(&request);
        self.engine.infer(request, journey).await
    }

    pub(super) fn server_ready(&self) -> ServerReadyResponse {
        let ready = self.readiness.is_ready();
        ServerReadyResponse { ready }
    }

    pub(super) fn model_ready(&self, asked: &ModelReadyRequest) -> ModelReadyResponse {
        let ready = self.engine.catalog().is_ready(&asked.name, &asked.version);
        ModelReadyResponse { ready }
    }

    /// Why the server is not ready; without names of models if they are not for everybody.
    pub(super) fn why_not_ready(&self, names: bool) -> String {
        if self.readiness.is_leaving() {
            return "it is about to stop".to_owned();
        }
        let index = self.engine.catalog().index();
        let waits = index
            .iter()
            .filter(|entry| entry.state != ModelState::Ready);
        let waits: Vec<&IndexEntry> = waits.collect();
        if waits.is_empty() {
            return "it does not know its models yet, or one has no executor left".to_owned();
        }
        if !names {
            return format!("models and versions that do not serve: {}", waits.len());
        }
        let told = waits.iter().take(MOST_TOLD).map(|entry| {
            let version = entry.version.map(|version| format!(" {version}"));
            let (model, version) = (&entry.model, version.unwrap_or_default());
            format!("{model}{version}: {}", standing(entry))
        });
        let more = waits.len().saturating_sub(MOST_TOLD);
        let more = (more > 0).then(|| format!("and {more} more"));
        told.chain(more).collect::<Vec<_>>().join("; ")
    }

    /// Why a model does not answer, if that is known. Fails where there is no such model or version,
    /// rather than one that cannot answer now.
    pub(super) fn why_no_answer(
        &self,
        name: &str,
        version: &str,
    ) -> Result<Option<String>, Status> {
        match self.version(name, version) {
            Err(status) if status.code != Code::Unavailable => Err(status),
            Err(status) => Ok(Some(status.message)),
            Ok(_) => Ok(None),
        }
    }

    /// The same for whoever need not be known: no other model's name, and nothing of what a load that
    /// failed has said.
    pub(super) fn where_it_stands(
        &self,
        name: &str,
        version: &str,
    ) -> Result<Option<String>, Status> {
        match self.why_no_answer(name, version) {
            Ok(reason) => Ok(reason.and_then(|_| self.standing_of(name, version))),
            Err(status) if status.code == Code::NotFound => {
                Err(Status::not_found("there is no such model or version"))
            }
            Err(status) => Err(status),
        }
    }

    fn standing_of(&self, name: &str, version: &str) -> Option<String> {
        let version: Option<u64> = version.parse().ok();
        let is_asked_for = |entry: &&IndexEntry| {
            *entry.model == *name && (version.is_none() || entry.version == version)
        };
        let index = self.engine.catalog().index();
        index.iter().rfind(is_asked_for).map(standing)
    }

    pub(super) fn server_metadata(&self) -> ServerMetadataResponse {
        ServerMetadataResponse {
            name: self.server_name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }
    }

    pub(super) fn model_metadata(
        &self,
        asked: &ModelMetadataRequest,
    ) -> Result<ModelMetadataResponse, Status> {
        let version = self.version(&asked.name, &asked.version)?;
        let all = self.engine.catalog().versions(&asked.name)?;
        let numbers: Vec<u64> = all.iter().map(|version| version.id.version).collect();
        Ok(wire::model_metadata(&version, &numbers))
    }

    pub(super) fn model_config(
        &self,
        asked: &ModelConfigRequest,
    ) -> Result<ModelConfigResponse, Status> {
        let version = self.version(&asked.name, &asked.version)?;
        let config = Some(wire::model_config(&version));
        Ok(ModelConfigResponse { config })
    }

    pub(super) fn model_statistics(
        &self,
        asked: &ModelStatisticsRequest,
    ) -> Result<ModelStatisticsResponse, Status> {
        let catalog = self.engine.catalog();
        let versions = match (asked.name.as_str(), asked.version.as_str()) {
            ("", _) => catalog.serving(),
            (name, "") => catalog.versions(name)?,
            (name, version) => vec![self.version(name, version)?],
        };
        let versions = versions.iter();
        let model_stats = versions.map(|version| wire::model_statistics(version));
        Ok(ModelStatisticsResponse {
            model_stats: model_stats.collect(),
        })
    }

    pub(super) async fn repository_index(
        &self,
        asked: RepositoryIndexRequest,
    ) -> Result<RepositoryIndexResponse, Status> {
        only_repository(&asked.repository_name)?;
        let entries = self.reconciler.index().await?;
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
        Ok(RepositoryIndexResponse { models })
    }

    pub(super) async fn repository_model_load(
        &self,
        asked: RepositoryModelLoadRequest,
    ) -> Result<RepositoryModelLoadResponse, Status> {
        only_repository(&asked.repository_name)?;
        let supplied = wire::supplied(asked.parameters)?;
        self.reconciler.load(&asked.model_name, supplied).await?;
        Ok(RepositoryModelLoadResponse {})
    }

    pub(super) async fn repository_model_unload(
        &self,
        asked: RepositoryModelUnloadRequest,
    ) -> Result<RepositoryModelUnloadResponse, Status> {
        only_repository(&asked.repository_name)?;
        let mut parts = false;
        for (name, parameter) in &asked.parameters {
            match (name.as_str(), &parameter.parameter_choice) {
                ("unload_dependents", Some(ParameterChoice::BoolParam(value))) => parts = *value,
                ("unload_dependents", _) => {
                    let message = "parameter \"unload_dependents\": found another type; true or false is allowed";
                    return Err(Status::invalid(message));
                }
                _ => {}
            }
        }
        self.reconciler.unload(&asked.model_name, parts).await?;
        Ok(RepositoryModelUnloadResponse {})
    }

    fn version(&self, name: &str, version: &str) -> Result<Arc<Version>, Status> {
        self.engine.catalog().resolve(name, version)
    }
}

/// How far a version is, or its state. Whoever looks at health need not read paths: the index has the reasons.
fn standing(entry: &IndexEntry) -> String {
    match &entry.progress {
        Some(progress) => progress.to_string(),
        None => entry.state.name().to_owned(),
    }
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
