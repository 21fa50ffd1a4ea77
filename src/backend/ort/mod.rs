//! ONNX Runtime as a backend, loaded at run time.
//! Uses `device` for where to run; the only place that names `ort`.
//! Never falls back to another device than the one it was given.

mod element;
mod executor;
mod library;
mod providers;
mod value;

use std::sync::Arc;

use ::ort::session::Session;
use ::ort::session::builder::{GraphOptimizationLevel, SessionBuilder};

pub use library::{Library, LibraryError};

use super::{Artifact, Backend, Executor, LoadError, Placement};
use crate::device::DeviceId;
use crate::model::{BackendPolicy, OnnxRuntimePolicy, OptimizationLevel};
use executor::OrtExecutor;
use providers::ComputeStream;

/// Loads models with ONNX Runtime.
#[derive(Debug)]
pub struct OrtBackend {
    library: Arc<Library>,
}

impl OrtBackend {
    /// A backend that uses this library.
    pub fn new(library: Arc<Library>) -> Self {
        Self { library }
    }

    fn session(
        &self,
        artifact: &Artifact,
        placement: &Placement,
        stream: Option<&ComputeStream>,
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
        let builder = Session::builder(self.library.environment())
            .map_err(|error| model_error(error.to_string()))?;
        let builder = options(builder, policy, placement.threads).map_err(model_error)?;
        let mut builder =
            providers::register(builder, id, policy, stream).map_err(provider_error)?;
        builder.commit_from_file(&artifact.file).map_err(|error| {
            // A provider that cannot start says so only here.
            match id {
                DeviceId::Cuda(_) => provider_error(providers::explain(error.message())),
                _ => model_error(error.message().to_owned()),
            }
        })
    }
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
    ) -> Result<Box<dyn Executor>, LoadError> {
        let stream = match placement.device.id() {
            DeviceId::Cuda(number) => Some(ComputeStream::new(number)?),
            _ => None,
        };
        let session = self.session(artifact, placement, stream.as_ref())?;
        let executor = OrtExecutor::new(session, &artifact.file, placement, stream)?;
        Ok(Box::new(executor))
    }
}

fn level(level: OptimizationLevel) -> GraphOptimizationLevel {
    match level {
        OptimizationLevel::Disable => GraphOptimizationLevel::Disable,
        OptimizationLevel::Basic => GraphOptimizationLevel::Level1,
        OptimizationLevel::Extended => GraphOptimizationLevel::Level2,
        OptimizationLevel::All => GraphOptimizationLevel::All,
    }
}
