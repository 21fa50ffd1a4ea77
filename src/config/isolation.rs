//! How far what goes wrong in a model may go.

use std::path::PathBuf;
use std::time::Duration;

/// How far what goes wrong in a model may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolationConfig {
    /// Whether models run in processes of their own, and not in threads of the server.
    pub process: bool,
    /// What those processes run; none for the server's own program.
    pub worker_executable: Option<PathBuf>,
    /// How long a model may take to load there.
    pub worker_load_timeout: Duration,
    /// How long a batch may run where its model does not say; none for ever.
    pub executor_timeout: Option<Duration>,
    /// With so many deaths of its workers,
    pub max_worker_deaths: usize,
    /// within this time, a model is left alone
    pub worker_death_window: Duration,
    /// for so long.
    pub worker_rest: Duration,
}

impl IsolationConfig {
    /// How long a batch may run if nobody says: in a process that can be killed.
    pub const EXECUTOR_TIMEOUT: Duration = Duration::from_secs(60);
}
