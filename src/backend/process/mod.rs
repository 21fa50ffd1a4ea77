//! Runs another backend in processes of their own, so that what breaks there breaks nothing here: one
//! worker for each version on a device, with all its executors.
//! Uses `device` for memory that both map, and speaks to workers over sockets.
//! Never loads a model in this process, and never waits for a worker without a bound.

mod channel;
mod executor;
mod message;
mod outputs;
mod serve;
mod shelf;
mod worker;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use serve::{Equipment, serve};
pub use worker::Program;

use super::{Artifact, Backend, Death, Executor, LoadError, Placement, Weights};
use crate::device::{DeviceId, MappedDevice, Neighbour, SharedDevice};
use crate::model::ModelPolicy;
use executor::{Line, ProcessExecutor};
use message::{Load, OrderKind, Profile, ReplyKind, bytes};
use worker::Worker;

/// How workers are started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What they run.
    pub program: Program,
    /// How long a load, or a run before the version serves, may take.
    pub load_timeout: Duration,
    /// A policy as the `model.toml` that means it.
    pub write: fn(&ModelPolicy) -> String,
}

/// Loads models in workers.
pub struct ProcessBackend {
    launch: Launch,
    /// What the workers use. Nothing is loaded with it here.
    inner: Arc<dyn Backend>,
    devices: Mutex<BTreeMap<DeviceId, Arc<MappedDevice>>>,
}

impl ProcessBackend {
    /// A backend whose workers use what `inner` is.
    pub fn new(launch: Launch, inner: Arc<dyn Backend>) -> Self {
        Self {
            launch,
            inner,
            devices: Mutex::default(),
        }
    }

    fn mapped(&self, device: &SharedDevice) -> Arc<MappedDevice> {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let mapped = || Arc::new(MappedDevice::new(Arc::clone(device)));
        Arc::clone(devices.entry(device.id()).or_insert_with(mapped))
    }

    fn start(&self) -> Result<Arc<Worker>, LoadError> {
        let program = &self.launch.program;
        let failed = |error: io::Error| LoadError::Worker {
            program: program.file.clone(),
            reason: error.to_string(),
        };
        Worker::start(program).map_err(failed)
    }

    fn load_order(&self, artifact: &Artifact, placement: &Placement) -> Load {
        Load {
            model: artifact.id.model.to_string(),
            version: artifact.id.version,
            folder: bytes(&artifact.folder),
            file: bytes(&artifact.file),
            policy: (self.launch.write)(&artifact.policy),
            device: Some(placement.device.id().into()),
            threads: placement.threads.map(|threads| threads as u64),
        }
    }
}

impl Backend for ProcessBackend {
    fn load(
        &self,
        artifact: &Artifact,
        placement: &Placement,
    ) -> Result<Arc<dyn Weights>, LoadError> {
        let worker = self.start()?;
        let patience = Some(self.launch.load_timeout);
        let mut line = Line::open(&worker, patience)?;
        let order = self.load_order(artifact, placement);
        match line.ask(OrderKind::Load(order))? {
            ReplyKind::Loaded(_) => {}
            ReplyKind::Failed(failed) => return Err(LoadError::Remote(failed.reason)),
            _ => return Err(line.nonsense("no word of its load").into()),
        }
        let device = placement.device.id();
        tracing::debug!(model = %artifact.id, %device, worker = worker.pid(), "loaded in a worker");
        let mapped = self.mapped(&placement.device);
        Ok(Arc::new(ProcessWeights {
            _counted: mapped.count(worker.pid()),
            worker,
            patience,
            device: mapped,
        }))
    }

    fn profiled(
        &self,
        artifact: &Artifact,
        placement: &Placement,
        prefix: &Path,
    ) -> Result<Box<dyn Executor>, LoadError> {
        let worker = self.start()?;
        let line = Line::open(&worker, Some(self.launch.load_timeout))?;
        let order = OrderKind::Profile(Profile {
            load: Some(self.load_order(artifact, placement)),
            prefix: bytes(prefix),
        });
        let executor = ProcessExecutor::make(line, order, self.mapped(&placement.device))?;
        Ok(Box::new(executor))
    }

    fn shares_weights(&self, policy: &ModelPolicy, device: DeviceId) -> bool {
        self.inner.shares_weights(policy, device)
    }

    fn device(&self, device: SharedDevice) -> SharedDevice {
        self.mapped(&device)
    }
}

/// A version on one device, in a worker.
struct ProcessWeights {
    worker: Arc<Worker>,
    patience: Option<Duration>,
    device: Arc<MappedDevice>,
    _counted: Arc<Neighbour>,
}

impl Weights for ProcessWeights {
    fn executor(&self) -> Result<Box<dyn Executor>, LoadError> {
        let line = Line::open(&self.worker, self.patience)?;
        let device = Arc::clone(&self.device);
        let executor = ProcessExecutor::make(line, OrderKind::Make(true), device)?;
        Ok(Box::new(executor))
    }

    fn death(&self) -> Option<Death> {
        self.worker.ended()
    }
}
