//! What runs models: ONNX Runtime, or a simulation of it; here, or in processes apart.
//! Uses `device`, `model` and `tensor`.
//! Never sees a request, a queue or a clock's decision. `ort` appears in `ort` and nowhere else.

mod foresight;
pub mod ort;
pub mod process;
pub mod simulated;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::device::{DeviceError, DeviceId, SharedDevice};
use crate::model::{ModelPolicy, Signature, VersionId};
use crate::tensor::{Dtype, Shape, Tensor, elements};

/// A version as it lies in the repository.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Which version this is.
    pub id: VersionId,
    /// The version's folder.
    pub folder: PathBuf,
    /// The model's file in it.
    pub file: PathBuf,
    /// How the model is to be served.
    pub policy: ModelPolicy,
    /// Keeps the folder where it is, if that is a cache.
    pub lease: Option<Arc<File>>,
}

/// Where one instance goes.
#[derive(Clone, Debug)]
pub struct Placement {
    /// The device.
    pub device: SharedDevice,
    /// Threads for work inside one operator; none means every core.
    pub threads: Option<usize>,
}

/// Why a version could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not there or is not a model that the backend reads.
    #[error("{file}: {reason}")]
    Model {
        /// The model's file.
        file: PathBuf,
        /// What the backend said.
        reason: String,
    },
    /// An input or output that the protocol has no form for.
    #[error("{file}: {tensor} is {found}; only tensors of the protocol's element types are served")]
    Unsupported {
        /// The model's file.
        file: PathBuf,
        /// The input or output.
        tensor: String,
        /// What it is.
        found: String,
    },
    /// The device or its execution provider refused.
    #[error("{device}: {reason}")]
    Provider {
        /// The device's name.
        device: String,
        /// What is missing, and what to do.
        reason: String,
    },
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No worker could be started.
    #[error("no worker could be started from {program}: {reason}")]
    Worker {
        /// The program that it was to run.
        program: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// What a worker said of one of these.
    #[error("{0}")]
    Remote(String),
    /// The worker died of it.
    #[error(transparent)]
    Died(#[from] Death),
}

/// The end of a worker: the process that ran a version on a device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Death {
    /// Tells it from every other worker of this server.
    pub worker: u64,
    /// Of what kind it was.
    pub cause: Cause,
    /// The worker, and what became of it.
    pub reason: String,
}

/// Why a worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A signal that native code brings on itself, such as SIGSEGV or SIGABRT.
    Crashed,
    /// SIGKILL: an operator, or the kernel where memory is short.
    Killed,
    /// It gave no answer in time.
    Hung,
    /// Its device answers no more.
    DeviceLost,
    /// It ended by itself.
    Exited,
}

impl Cause {
    /// The word that metrics have for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crashed => "crashed",
            Self::Killed => "killed",
            Self::Hung => "hung",
            Self::DeviceLost => "device_lost",
            Self::Exited => "exited",
        }
    }
}

/// Why a batch failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// The model failed on these inputs; others may succeed.
    #[error("{0}")]
    Failed(String),
    /// The device has not enough memory for these inputs; fewer rows may fit.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The device is gone: nothing will succeed on this executor.
    #[error("the device is lost: {0}")]
    DeviceLost(String),
    /// The process that ran them is gone, perhaps because of these inputs.
    #[error(transparent)]
    Died(#[from] Death),
}

/// One input of a batch: bytes that outlive the run and are aligned for their element type.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The element type.
    pub dtype: Dtype,
    /// The dimensions of the whole batch.
    pub shape: &'a [i64],
    /// The elements, as in [`Tensor`].
    pub data: &'a [u8],
}

impl Input<'_> {
    /// Whether it stands for one that is left out, as [`Tensor::absent`] does.
    pub fn is_absent(&self) -> bool {
        self.shape.is_empty() && self.data.is_empty()
    }
}

/// What an output will look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The element type.
    pub dtype: Dtype,
    /// The dimensions of the whole batch.
    pub shape: Shape,
}

impl Outline {
    /// How much memory it takes; none if its elements have no size.
    pub fn bytes(&self) -> Option<usize> {
        elements(&self.shape)?.checked_mul(self.dtype.size()?)
    }
}

/// Memory for an output: as many bytes as it takes, aligned for its elements.
#[derive(Debug)]
pub struct Place<'a> {
    /// What it is for.
    pub outline: &'a Outline,
    /// The elements, as in [`Tensor`].
    pub data: &'a mut [u8],
}

/// One instance of a model on one device. Owned by the thread that runs it.
pub trait Executor: Send {
    /// What the model takes and gives, as the model itself says.
    fn signature(&self) -> &Signature;

    /// Runs one batch and blocks until its outputs can be read. Inputs and outputs are in the
    /// signature's order; of those that the policy calls optional some may be absent.
    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError>;

    /// Every output of such a batch, if what all will look like is certain before it runs.
    fn foresee(&self, _inputs: &[Input<'_>]) -> Option<Vec<Outline>> {
        None
    }

    /// Runs one batch whose outputs were foreseen, and puts them into these places, one for each. If they
    /// turn out otherwise they are given as by [`Self::run`], and what the places hold means nothing.
    fn run_into(
        &mut self,
        inputs: &[Input<'_>],
        _places: &mut [Place<'_>],
    ) -> Result<Option<Vec<Tensor>>, RunError> {
        self.run(inputs).map(Some)
    }

    /// For one that was made to write down where its time goes ([`Backend::profiled`]): the file in
    /// which that is now.
    fn end_profile(&mut self) -> Result<PathBuf, String> {
        Err("it was not made to tell where its time goes".to_owned())
    }

    /// Whether a run waits for another process, which no thread may do that has other things to do.
    fn waits(&self) -> bool {
        false
    }

    /// How that process ended, if it has.
    fn death(&self) -> Option<Death> {
        None
    }

    /// From now on a run is to take no longer than this, where that can be held. Before, when it is
    /// tried and warmed, it may.
    fn bound(&mut self, _longest: Option<Duration>) {}
}

/// A version on one device: what its executors have in common.
pub trait Weights: Send + Sync {
    /// One more executor that runs with them; blocks, for minutes if it has to have its own.
    fn executor(&self) -> Result<Box<dyn Executor>, LoadError>;

    /// How they were lost, if they were in a process that has ended.
    fn death(&self) -> Option<Death> {
        None
    }
}

/// Loads models.
pub trait Backend: Send + Sync {
    /// Loads a version onto a device; blocks, for minutes if need be.
    fn load(
        &self,
        artifact: &Artifact,
        placement: &Placement,
    ) -> Result<Arc<dyn Weights>, LoadError>;

    /// An executor with weights of its own that writes down where its time goes, in a file whose path
    /// begins with `prefix`; blocks as a load does.
    fn profiled(
        &self,
        artifact: &Artifact,
        placement: &Placement,
        prefix: &Path,
    ) -> Result<Box<dyn Executor>, LoadError>;

    /// Whether the executors of a version on such a device run with one copy of its weights.
    fn shares_weights(&self, policy: &ModelPolicy, device: DeviceId) -> bool;

    /// A device as its executors need it: with staging memory that they can reach.
    fn device(&self, device: SharedDevice) -> SharedDevice {
        device
    }
}
