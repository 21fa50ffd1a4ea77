//! The shared library: found, loaded and given its one environment.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::ort::environment::Environment;
use ::ort::logging::LogLevel;

/// ONNX Runtime could not be loaded.
#[derive(Debug, thiserror::Error)]
#[error(
    "ONNX Runtime could not be loaded from {path}: {reason}; `make setup` fetches it, and --onnxruntime (or JITNEY_ONNXRUNTIME) names another"
)]
pub struct LibraryError {
    path: PathBuf,
    reason: String,
}

/// ONNX Runtime, loaded into this process for good.
#[derive(Debug)]
pub struct Library {
    path: PathBuf,
    environment: Environment,
}

/// ONNX Runtime has one environment for each process, and loading it again is not possible.
static LOADED: Mutex<Option<Arc<Library>>> = Mutex::new(None);

impl Library {
    /// Loads the library at `path`; later calls give the one that was loaded first.
    pub fn load(path: &Path) -> Result<Arc<Self>, LibraryError> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = loaded.as_ref() {
            return Ok(Arc::clone(library));
        }
        let failed = |reason: String| LibraryError {
            path: path.to_owned(),
            reason,
        };
        let environment = ::ort::init_from(path)
            .map_err(|error| failed(error.to_string()))?
            .with_telemetry(false)
            .with_name("jitney")
            .build()
            .map_err(|error| failed(error.to_string()))?;
        // Below warnings every run would call back to have a line dropped.
        environment.set_log_level(LogLevel::Warning);
        let library = Arc::new(Self {
            path: path.to_owned(),
            environment,
        });
        *loaded = Some(Arc::clone(&library));
        Ok(library)
    }

    /// Where it was loaded from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of itself: version and build flags.
    pub fn about(&self) -> &'static str {
        ::ort::info()
    }

    pub(super) fn environment(&self) -> &Environment {
        &self.environment
    }
}
