//! ONNX Runtime as a backend, loaded at run time.
//! Uses `device` for where to run; the only place that names `ort`.
//! Never falls back to another device than the one it was given.

mod contents;
mod element;
mod executor;
mod graphs;
mod library;
mod providers;
mod shared;
mod value;

use std::path::Path;
use std::sync::Arc;

use ::ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ::ort::session::{RunOptions, Session};

pub use graphs::GraphCache;
pub use library::{Library, LibraryError};

use super::{Artifact, Backend, Executor, LoadError, Placement, Weights};
use crate::device::DeviceId;
use crate::model::{BackendPolicy, ModelPolicy, OnnxRuntimePolicy, OptimizationLevel};
use executor::OrtExecutor;
use graphs::Kept;
use providers::ComputeStream;
use shared::SharedSession;

/// Loads models with ONNX Runtime.
#[derive(Clone, Debug)]
pub struct OrtBackend {
    library: Arc<Library>,
    graphs: Option<GraphCache>,
    /// Bytes that the files of a version may have.
    most_bytes: u64,
}

impl OrtBackend {
    /// A backend that uses this library, and keeps what it makes of models there.
    pub fn new(library: Arc<Library>, graphs: Option<GraphCache>) -> Self {
        Self {
            library,
            graphs,
            most_bytes: u64::MAX,
        }
    }

    /// The same, which loads no version whose files have more bytes.
    #[must_use]
    pub fn with_most_bytes(mut self, most_bytes: u64) -> Self {
        self.most_bytes = most_bytes;
        self
    }

    fn session(
        &self,
        artifact: &Artifact,
        placement: &Placement,
        stream: Option<&ComputeStream>,
        profile: Option<&Path>,
    ) -> Result<Session, LoadError> {
        let default = OnnxRuntimePolicy::default();
        let policy = match &artifact.policy.backend {
            BackendPolicy::OnnxRuntime(policy) => policy,
            BackendPolicy::Simulated(_) => &default,
        };
        let id = placement.device.id();
        let model_error = |reason: String| LoadError::Model {
            file: artifact.file.clone(),
            reason,
        };
        let provider_error = |reason: String| LoadError::Provider {
            device: id.to_string(),
            reason,
        };
        contents::check(&artifact.file, self.most_bytes).map_err(model_error)?;
        let device = format!("{} {:?}", placement.device.name(), placement.device.uuid());
        let about = self.library.about();
        let engines = self.graphs.as_ref();
        let engines = engines.and_then(|it| it.engines(artifact, &device, policy, about));
        let builder = || -> Result<SessionBuilder, LoadError> {
            let builder = Session::builder(self.library.environment())
                .map_err(|error| model_error(error.to_string()))?;
            let mut builder = options(builder, policy, placement.threads).map_err(model_error)?;
            if let Some(prefix) = profile {
                let profiling = builder.with_profiling(prefix);
                builder = profiling.map_err(|error| model_error(error.to_string()))?;
            }
            providers::register(builder, id, policy, stream, engines.as_deref())
                .map_err(provider_error)
        };
        let graphs = self.graphs.as_ref().filter(|_| profile.is_none());
        if let Some(kept) = graphs.and_then(|it| it.graph(artifact, id, policy, about))
            && let Some(session) = from_kept(&kept, artifact, &builder)?
        {
            return Ok(session);
        }
        builder()?
            .commit_from_file(&artifact.file)
            .map_err(|error| {
                // A provider that cannot start says so only here.
                match id {
                    DeviceId::Cuda(_) => provider_error(providers::explain(error.message())),
                    _ => model_error(error.message().to_owned()),
                }
            })
    }

    /// An executor with a session of its own.
    fn alone(
        &self,
        artifact: &Artifact,
        placement: &Placement,
        profile: Option<&Path>,
    ) -> Result<Box<OrtExecutor>, LoadError> {
        let device = placement.device.id();
        let executor = if let DeviceId::Cuda(number) = device {
            let stream = ComputeStream::new(number)?;
            let session = self.session(artifact, placement, Some(&stream), profile)?;
            OrtExecutor::bound(session, artifact, number, stream)
        } else {
            let session = self.session(artifact, placement, None, profile)?;
            let session = SharedSession::new(&session, artifact)?;
            OrtExecutor::direct(Arc::new(session), device)
        };
        executor.map(Box::new)
    }
}

/// A session of the graph that is kept, or of the model while its graph is kept. None if neither works:
/// then the model by itself may, or says why not.
fn from_kept(
    kept: &Kept<'_>,
    artifact: &Artifact,
    builder: &dyn Fn() -> Result<SessionBuilder, LoadError>,
) -> Result<Option<Session>, LoadError> {
    if let Some(path) = kept.find() {
        // It has been optimized.
        let plain = builder()?.with_optimization_level(GraphOptimizationLevel::Disable);
        if let Ok(mut plain) = plain {
            match plain.commit_from_file(&path) {
                Ok(session) => return Ok(Some(session)),
                Err(error) => kept.refuse(&path, error.message()),
            }
        }
    }
    let Ok(draft) = kept.draft() else {
        return Ok(None);
    };
    let Ok(mut writes) = builder()?.with_optimized_model_path(&draft.0) else {
        return Ok(None);
    };
    let session = writes.commit_from_file(&artifact.file).ok();
    if session.is_some() {
        kept.keep(&draft);
    }
    Ok(session)
}

/// What `model.toml` says of the session, whatever the device.
fn options(
    builder: SessionBuilder,
    policy: &OnnxRuntimePolicy,
    threads: Option<usize>,
) -> Result<SessionBuilder, String> {
    let said = |error: ::ort::Error<SessionBuilder>| error.to_string();
    let builder = builder
        .with_optimization_level(level(policy.optimization))
        .map_err(said)?;
    // Threads that spin take the cores from those that serve.
    let builder = builder.with_intra_op_spinning(false).map_err(said)?;
    let mut builder = builder
        .with_intra_threads(threads.unwrap_or(0))
        .map_err(said)?;
    if policy.parallel {
        builder = builder.with_parallel_execution(true).map_err(said)?;
        let threads = policy.inter_threads.unwrap_or(0);
        builder = builder.with_inter_threads(threads).map_err(said)?;
    }
    if let Some(pattern) = policy.memory_pattern {
        builder = builder.with_memory_pattern(pattern).map_err(said)?;
    }
    for (key, value) in &policy.session {
        builder = builder
            .with_config_entry(key, value)
            .map_err(|error| format!("session option {key}: {error}"))?;
    }
    Ok(builder)
}

impl Backend for OrtBackend {
    fn load(
        &self,
        artifact: &Artifact,
        placement: &Placement,
    ) -> Result<Arc<dyn Weights>, LoadError> {
        let mut weights = OrtWeights {
            backend: self.clone(),
            artifact: artifact.clone(),
            placement: placement.clone(),
            shared: None,
        };
        if self.shares_weights(&artifact.policy, placement.device.id()) {
            let session = self.session(artifact, placement, None, None)?;
            let session = SharedSession::new(&session, artifact)?;
            weights.shared = Some(Arc::new(session));
        }
        Ok(Arc::new(weights))
    }

    fn profiled(
        &self,
        artifact: &Artifact,
        placement: &Placement,
        prefix: &Path,
    ) -> Result<Box<dyn Executor>, LoadError> {
        Ok(self.alone(artifact, placement, Some(prefix))?)
    }

    fn shares_weights(&self, policy: &ModelPolicy, device: DeviceId) -> bool {
        let asked = match &policy.backend {
            BackendPolicy::OnnxRuntime(policy) => policy.share_weights,
            BackendPolicy::Simulated(_) => None,
        };
        asked.unwrap_or(!matches!(device, DeviceId::Cuda(_)))
    }
}

/// A version on one device: one session for every executor, or one for each.
struct OrtWeights {
    backend: OrtBackend,
    artifact: Artifact,
    placement: Placement,
    shared: Option<Arc<SharedSession>>,
}

impl Weights for OrtWeights {
    fn executor(&self) -> Result<Box<dyn Executor>, LoadError> {
        let Self {
            backend,
            artifact,
            placement,
            shared,
        } = self;
        let executor = match shared {
            Some(session) => {
                OrtExecutor::direct(Arc::clone(session), placement.device.id()).map(Box::new)?
            }
            None => backend.alone(artifact, placement, None)?,
        };
        Ok(executor)
    }
}

/// Entries of each run's configuration; none if there is nothing to say.
fn run_options(artifact: &Artifact) -> Result<Option<RunOptions>, LoadError> {
    let BackendPolicy::OnnxRuntime(policy) = &artifact.policy.backend else {
        return Ok(None);
    };
    if policy.run.is_empty() {
        return Ok(None);
    }
    let set = || -> Result<RunOptions, ::ort::Error> {
        let mut options = RunOptions::new()?;
        for (key, value) in &policy.run {
            options.set(key, value)?;
        }
        Ok(options)
    };
    set().map(Some).map_err(|error| LoadError::Model {
        file: artifact.file.clone(),
        reason: format!("run options: {}", error.message()),
    })
}

fn level(level: OptimizationLevel) -> GraphOptimizationLevel {
    match level {
        OptimizationLevel::Disable => GraphOptimizationLevel::Disable,
        OptimizationLevel::Basic => GraphOptimizationLevel::Level1,
        OptimizationLevel::Extended => GraphOptimizationLevel::Level2,
        OptimizationLevel::All => GraphOptimizationLevel::All,
    }
}
