//! Why the server cannot start, and how it may end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::backend::ort::LibraryError;
use crate::device::Unavailable;
use crate::frontend::SecurityError;
use crate::repository::RepositoryError;
use crate::telemetry::otlp::SendError;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// ONNX Runtime is missing.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The device asked for is missing.
    #[error(transparent)]
    Device(#[from] Unavailable),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The folder of shared memory is missing.
    #[error(
        "shared_memory_prefix: {prefix}: {source}; name a folder, or a folder and how names begin"
    )]
    SharedMemory {
        /// What was asked for.
        prefix: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was to make the server safe cannot be had.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// Traces and metrics cannot be sent.
    #[error(transparent)]
    Otlp(#[from] SendError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}, which --{flag} sets")]
    Bind {
        /// What names the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How the server ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Calls were still in progress when the time to finish was up.
    #[error("calls were still in progress {0:?} after the server stopped taking new ones")]
    NotDrained(Duration),
    /// A task of ours failed.
    #[error("serving panicked: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}
