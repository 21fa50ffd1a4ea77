//! What models run with on this machine: its devices, and backends, in processes of their own if so
//! configured.

use std::path::PathBuf;
use std::sync::Arc;

use super::error::StartError;
use crate::backend::Backend;
use crate::backend::ort::{GraphCache, Library, OrtBackend};
use crate::backend::process::{Launch, ProcessBackend, Program};
use crate::backend::simulated::SimulatedBackend;
use crate::clock::{Clock, MonotonicClock};
use crate::config::{ServerConfig, write_model_policy};
use crate::device::Inventory;
use crate::serving::{Backends, BreakerPolicy, Catalog, Containment, Limiter, Loader, Watchdog};

/// What models run with on this machine.
pub struct Machine {
    /// Its devices.
    pub inventory: Arc<Inventory>,
    /// What runs models.
    pub backends: Backends,
    /// ONNX Runtime.
    pub library: Arc<Library>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Looks after executors in threads.
    pub watchdog: Arc<Watchdog>,
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Machine").finish_non_exhaustive()
    }
}

impl Machine {
    /// Loads ONNX Runtime and finds the devices; fails if `config` asks for one that is not there.
    pub fn open(config: &ServerConfig) -> Result<Self, StartError> {
        let library = Library::load(&config.onnxruntime)?;
        let inventory = Arc::new(Inventory::detect());
        for error in inventory.broken() {
            tracing::error!(%error, "a GPU cannot be used; the others are");
        }
        inventory.choose(&config.device, &config.device)?;
        let clock: Arc<dyn Clock> = Arc::new(MonotonicClock::start());
        let apart = |backend| isolated(config, backend);
        let graphs = GraphCache::new(&config.cache_dir, config.graph_cache_bytes);
        let onnx_runtime = OrtBackend::new(Arc::clone(&library), graphs);
        let onnx_runtime = onnx_runtime.with_most_bytes(config.max_model_bytes);
        let simulated = SimulatedBackend::new(Arc::clone(&clock), inventory.simulated());
        let backends = Backends {
            onnx_runtime: apart(Arc::new(onnx_runtime)),
            simulated: apart(Arc::new(simulated)),
            about: match config.isolation.process {
                false => library.about().to_owned(),
                true => format!("{}, apart", library.about()),
            },
        };
        Ok(Self {
            inventory,
            backends,
            library,
            clock,
            watchdog: Arc::default(),
        })
    }

    /// A loader of models on this machine.
    pub fn loader(&self, config: &ServerConfig, catalog: &Catalog) -> Loader {
        Loader::new(
            self.backends.clone(),
            Arc::clone(&self.inventory),
            config.device.clone(),
            Arc::clone(&self.clock),
            catalog.changes().clone(),
            config.device_memory_bytes,
        )
        .with_limiter(
            config
                .rate_limit
                .then(|| Limiter::new(config.rate_limit_resources.clone())),
        )
        .with_containment(Containment {
            executor_timeout: config.isolation.executor_timeout,
            breaker: BreakerPolicy {
                deaths: config.isolation.max_worker_deaths,
                window: config.isolation.worker_death_window,
                rest: config.isolation.worker_rest,
            },
            watchdog: Arc::clone(&self.watchdog),
        })
    }
}

/// A backend, in processes of its own if models are to run there.
fn isolated(config: &ServerConfig, backend: Arc<dyn Backend>) -> Arc<dyn Backend> {
    let isolation = &config.isolation;
    if !isolation.process {
        return backend;
    }
    // The link finds the program even when its file has been replaced.
    let own = || PathBuf::from("/proc/self/exe");
    let log_format = if config.log_json { "json" } else { "text" };
    let program = Program {
        file: isolation.worker_executable.clone().unwrap_or_else(own),
        arguments: vec![
            "worker".into(),
            "--onnxruntime".into(),
            config.onnxruntime.clone().into(),
            "--log".into(),
            config.log.clone().into(),
            "--log-format".into(),
            log_format.into(),
            "--cache-dir".into(),
            config.cache_dir.clone().into(),
            "--graph-cache-bytes".into(),
            config.graph_cache_bytes.to_string().into(),
            "--max-model-bytes".into(),
            config.max_model_bytes.to_string().into(),
        ],
    };
    let launch = Launch {
        program,
        load_timeout: isolation.worker_load_timeout,
        write: write_model_policy,
    };
    Arc::new(ProcessBackend::new(launch, backend))
}
