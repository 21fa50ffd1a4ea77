//! `jitney worker`: a process that runs a model for a server, which started it. Not for people.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::backend::Backend;
use crate::backend::ort::{GraphCache, Library, OrtBackend};
use crate::backend::process::{Equipment, serve};
use crate::backend::simulated::SimulatedBackend;
use crate::clock::MonotonicClock;
use crate::config::read_model_policy;
use crate::device::{DeviceId, HostDevice, Inventory, SharedDevice, SimulatedDevices};
use crate::model::{BackendPolicy, DeviceChoice, ModelPolicy};

/// Runs a model for the server at the other end of its standard input.
#[derive(Debug, clap::Args)]
pub(super) struct Worker {
    /// Shared library of ONNX Runtime.
    #[arg(long)]
    onnxruntime: PathBuf,
    /// Which log lines are written.
    #[arg(long, default_value = "info")]
    log: String,
    /// How they are written.
    #[arg(long, default_value = "text")]
    log_format: String,
    /// Where optimized graphs are kept.
    #[arg(long)]
    cache_dir: PathBuf,
    /// Bytes of them.
    #[arg(long)]
    graph_cache_bytes: u64,
    /// Bytes that the files of a version may have.
    #[arg(long)]
    max_model_bytes: u64,
}

impl Worker {
    pub(super) fn run(self) -> anyhow::Result<()> {
        super::log(&self.log, self.log_format == "json")?;
        let lifeline = std::io::stdin().as_fd().try_clone_to_owned()?;
        let equipped = Equipped {
            onnxruntime: self.onnxruntime,
            graphs: GraphCache::new(&self.cache_dir, self.graph_cache_bytes),
            most_bytes: self.max_model_bytes,
            simulated: Arc::default(),
        };
        serve(lifeline, equipped);
        Ok(())
    }
}

struct Equipped {
    onnxruntime: PathBuf,
    graphs: Option<GraphCache>,
    most_bytes: u64,
    simulated: Arc<SimulatedDevices>,
}

impl Equipment for Equipped {
    fn read(&self, source: &str) -> Result<ModelPolicy, String> {
        read_model_policy(Path::new("model.toml"), source).map_err(|report| report.to_string())
    }

    fn backend(&self, policy: &ModelPolicy) -> Result<Arc<dyn Backend>, String> {
        match policy.backend {
            BackendPolicy::OnnxRuntime(_) => {
                let library = Library::load(&self.onnxruntime);
                let library = library.map_err(|error| error.to_string())?;
                let backend = OrtBackend::new(library, self.graphs.clone());
                Ok(Arc::new(backend.with_most_bytes(self.most_bytes)))
            }
            BackendPolicy::Simulated(_) => {
                let clock = Arc::new(MonotonicClock::start());
                let devices = Arc::clone(&self.simulated);
                Ok(Arc::new(SimulatedBackend::new(clock, devices)))
            }
        }
    }

    /// GPUs are looked for only where one is needed: that alone takes memory of theirs.
    fn device(&self, id: DeviceId) -> Result<SharedDevice, String> {
        match id {
            DeviceId::Cpu => Ok(Arc::new(HostDevice::detect())),
            DeviceId::Simulated(number) => Ok(self.simulated.get(number)),
            DeviceId::Cuda(number) => {
                let choice = DeviceChoice::Cuda(number);
                let found = Inventory::detect().choose(&choice, &choice);
                let found = found.map_err(|error| error.to_string())?;
                let first = found.into_iter().next();
                first.ok_or_else(|| format!("there is no cuda:{number}"))
            }
        }
    }
}
