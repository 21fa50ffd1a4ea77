//! How a model is to be served: the resolved meaning of its `model.toml` or `config.pbtxt`.
//! How a model is to be served: the resolved meaning of its `model.toml`.

use std::path::PathBuf;
use std::time::Duration;

use super::labels::LabelPolicy;
use super::sequence::SequencePolicy;
use super::{
    EnsemblePolicy, NeededResource, PriorityPolicy, QueueTimeout, RaggedPolicy, TensorSpec,
    TensorsPolicy,
};
use crate::tensor::Dtype;

/// Everything `model.toml` or `config.pbtxt` decides, with defaults filled in.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ModelPolicy {
    /// How requests become batches.
    pub batch: BatchPolicy,
    /// How rows of different lengths share a batch; none if they do not.
    pub padding: Option<PaddingPolicy>,
    /// What is laid end to end in a batch; none if nothing is.
    pub ragged: Option<RaggedPolicy>,
    /// How sequences of requests are served; none if every request stands for itself.
    pub sequence: Option<SequencePolicy>,
    /// How requests wait.
    pub queue: QueuePolicy,
    /// Which versions are served.
    pub versions: VersionPolicy,
    /// Where it runs; empty means one instance on the server's default device.
    pub instances: Vec<InstanceGroup>,
    /// What is run before the first request.
    pub warm_up: WarmUpPolicy,
    /// What the classes of its outputs are called.
    pub labels: LabelPolicy,
    /// What runs it.
    pub backend: BackendPolicy,
    /// Whether answers are kept and given again to whoever asks the same.
    pub response_cache: bool,
    /// How long one of its batches may run; zero: for ever. None: as the server says.
    pub executor_timeout: Option<Duration>,
    /// The models that it is made of; none for a model of its own, which the backend runs.
    pub ensemble: Option<EnsemblePolicy>,
    /// What clients see of its inputs and outputs.
    pub tensors: TensorsPolicy,
    /// The model's file in a version's folder; none: `model.onnx`.
    pub file: Option<String>,
    /// What clients are told of the model besides, and what its metrics are marked with.
    pub notes: Notes,
}

impl ModelPolicy {
    /// Why an answer depends on more than its request, if it does: then it cannot be given again.
    pub fn keeps_state(&self) -> Option<&'static str> {
        let sequence = self.sequence.as_ref();
        sequence.map(|_| "it depends on what came before in its [sequence]")
    }

    /// The names of the inputs that a request need not bring.
    pub fn spare(&self) -> impl Iterator<Item = &str> {
        let mask = self
            .padding
            .iter()
            .filter_map(|padding| padding.mask.as_deref());
        self.tensors.optional().chain(mask)
    }
}

/// What is handed on as it was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Names and values that mean something to those who read the model's configuration.
    pub parameters: Vec<(String, String)>,
    /// Labels and their values.
    pub metric_tags: Vec<(String, String)>,
}

/// How requests become batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchPolicy {
    /// Which dimension counts rows.
    pub axis: BatchAxis,
    /// The most rows in one batch; at least 1.
    pub max_batch_size: usize,
    /// How long a batch that is not full may wait for company while an executor is free.
    /// If not zero, in place of what the scheduler would find itself.
    pub max_queue_delay: Duration,
    /// With such a delay: rows with which a batch leaves before it is over.
    pub preferred_sizes: Vec<usize>,
    /// The only numbers of rows that the model runs with, ascending; empty if it runs with any.
    pub sizes: Vec<usize>,
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self {
            axis: BatchAxis::Auto,
            max_batch_size: 32,
            max_queue_delay: Duration::ZERO,
            preferred_sizes: Vec::new(),
            sizes: Vec::new(),
        }
    }
}

/// How rows of different lengths share a batch: the shorter ones are padded behind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PaddingPolicy {
    /// The model's name for the dimension that varies, wherever it has it.
    pub dimension: Option<String>,
    /// The axis that varies, by the name of an input or output, where the model gives it no name.
    pub axes: Vec<(String, usize)>,
    /// What is put behind, by the name of an input; 0 where none is given.
    pub values: Vec<(String, f64)>,
    /// The input that is 1 where a row has something of its own and 0 behind; made where a request
    /// does not bring it.
    pub mask: Option<String>,
    /// The lengths that are padded to, ascending; empty for the longest of each batch.
    pub lengths: Vec<usize>,
    /// The most rows times length in one batch; [`Self::MOST_TOKENS`] if none.
    pub max_batch_tokens: Option<usize>,
}

impl PaddingPolicy {
    /// The longest row: more than any model takes, and few enough to be counted with. Where another
    /// dimension is 0, a client can say any length without sending anything.
    pub const LONGEST: usize = 1 << 30;
    /// The most rows times length in one batch, where nothing else is said.
    pub const MOST_TOKENS: usize = 1 << 40;

    /// Whether it pads this input or output.
    pub fn pads(&self, spec: &TensorSpec) -> bool {
        let listed = self.axes.iter().any(|(name, _)| *name == spec.name);
        let mut inner = spec.dimensions.iter().skip(1);
        let named = |name: &String| inner.any(|dimension| dimension.symbol == *name);
        listed || self.dimension.as_ref().is_some_and(named)
    }
}

/// Which dimension counts rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchAxis {
    /// The first, if the model's dimensions say so and a trial run agrees; else none.
    #[default]
    Auto,
    /// The first, whatever the trial run says.
    First,
    /// None: requests are never put together.
    Unbatched,
}

/// How requests wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueuePolicy {
    /// The most requests waiting for one version; one more is refused.
    pub max_queue_size: usize,
    /// The deadline of a request that brings none, counted from its arrival.
    pub default_deadline: Option<Duration>,
    /// Within what time requests are to be answered: what is slower is told as slow, and capacity is what
    /// keeps to it. Nothing is refused for it.
    pub latency_objective: Option<Duration>,
    /// The priority of a request that brings none: 1 is the most urgent.
    pub default_priority: u32,
    /// The model's part of a device's time, beside those of others that have requests for it too.
    pub weight: u32,
    /// How many priorities there are; the last is the least urgent.
    pub priority_levels: u32,
    /// Whether answers leave in the order in which their requests came.
    pub preserve_ordering: bool,
    /// How long requests may wait. None: a request's own `timeout` is its deadline.
    pub timeout: Option<QueueTimeout>,
    /// What holds for single priorities in place of that.
    pub priorities: Vec<PriorityPolicy>,
}

impl QueuePolicy {
    /// How many priorities there are if nothing is said.
    pub const LEVELS: u32 = 10;
    /// How many there may be.
    pub const MOST_LEVELS: u32 = 100;
}

impl Default for QueuePolicy {
    fn default() -> Self {
        Self {
            max_queue_size: 1024,
            default_deadline: None,
            latency_objective: None,
            default_priority: 5,
            weight: 1,
            priority_levels: Self::LEVELS,
            preserve_ordering: false,
            timeout: None,
            priorities: Vec::new(),
        }
    }
}

/// Which of the versions in the repository are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The highest `n`.
    Latest(usize),
    /// Every one.
    All,
    /// Just these.
    Specific(Vec<u64>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(1)
    }
}

impl VersionPolicy {
    /// Those of `available` that are to be served, ascending.
    pub fn choose(&self, available: &[u64]) -> Vec<u64> {
        let mut versions = available.to_vec();
        versions.sort_unstable();
        versions.dedup();
        match self {
            Self::All => {}
            Self::Latest(count) => {
                let older = versions.len().saturating_sub(*count);
                versions.drain(..older);
            }
            Self::Specific(wanted) => versions.retain(|version| wanted.contains(version)),
        }
        versions
    }
}

/// Instances of a model that share one description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceGroup {
    /// How many, on each device chosen.
    pub count: usize,
    /// Which devices.
    pub device: DeviceChoice,
    /// Threads of each instance for work inside one operator; none means every core.
    pub threads: Option<usize>,
    /// What each instance holds while it runs a batch, if the server limits that.
    pub resources: Vec<NeededResource>,
    /// What a batch costs where resources are waited for: with 2 the group has half the chances of
    /// one with 1.
    pub priority: u32,
}

impl Default for InstanceGroup {
    fn default() -> Self {
        Self {
            count: 1,
            device: DeviceChoice::Default,
            threads: None,
            resources: Vec::new(),
            priority: 1,
        }
    }
}

/// A device by name, or a rule for finding one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// What the server was told by `--device`.
    #[default]
    Default,
    /// Every GPU, or the CPU where there is none.
    Auto,
    /// The CPU.
    Cpu,
    /// Every CUDA GPU.
    CudaAll,
    /// One CUDA GPU, by its number.
    Cuda(u32),
    /// One simulated device, by its number.
    Simulated(u32),
}

/// What is run before the first request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpPolicy {
    /// Runs of each shape; zero turns warm-up off.
    pub runs: usize,
    /// Shapes for inputs whose dimensions vary, by input name; without the batch dimension.
    pub shapes: Vec<WarmUpShape>,
    /// Requests that are run besides, as they are written.
    pub requests: Vec<WarmUpRequest>,
}

impl Default for WarmUpPolicy {
    fn default() -> Self {
        Self {
            runs: 1,
            shapes: Vec::new(),
            requests: Vec::new(),
        }
    }
}

/// The dimensions one input is warmed up with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpShape {
    /// The input's name.
    pub input: String,
    /// Its dimensions, without the batch dimension.
    pub dimensions: Vec<i64>,
}

/// A request that is run before the first real one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpRequest {
    /// What messages call it.
    pub name: String,
    /// How many rows it has, each like the first.
    pub rows: usize,
    /// How often it is run.
    pub count: usize,
    /// Every input of the model.
    pub inputs: Vec<WarmUpInput>,
}

/// An input of such a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WarmUpInput {
    /// The model's name for it.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions, without the batch dimension.
    pub shape: Vec<i64>,
    /// What is in it.
    pub data: WarmUpData,
}

/// What an input holds when the model is warmed up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmUpData {
    /// Zeros; of BYTES, empty elements.
    Zero,
    /// Made-up numbers.
    Random,
    /// One row as it is in this file of the folder `warmup` beside the versions.
    File(String),
}

/// What runs a model.
#[derive(Clone, Debug, PartialEq)]
pub enum BackendPolicy {
    /// ONNX Runtime.
    OnnxRuntime(OnnxRuntimePolicy),
    /// A stand-in with a given service time, for trying a deployment without its hardware.
    Simulated(SimulatedPolicy),
}

impl Default for BackendPolicy {
    fn default() -> Self {
        Self::OnnxRuntime(OnnxRuntimePolicy::default())
    }
}

/// Settings of ONNX Runtime. Options are handed on as they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxRuntimePolicy {
    /// How much the graph is rewritten at load.
    pub optimization: OptimizationLevel,
    /// Whether a device has one copy of the weights, however many instances; if it is not said, only
    /// the CPU does.
    pub share_weights: Option<bool>,
    /// Session configuration entries, such as `session.intra_op.allow_spinning`.
    pub session: Vec<(String, String)>,
    /// Options of the CUDA execution provider, such as `gpu_mem_limit`.
    pub cuda: Vec<(String, String)>,
    /// Threads for operators that run side by side; none means every core. Only if `parallel`.
    pub inter_threads: Option<usize>,
    /// Whether operators that do not depend on each other run side by side.
    pub parallel: bool,
    /// Whether the use of memory is planned ahead; none: as ONNX Runtime does by itself.
    pub memory_pattern: Option<bool>,
    /// Whether memory of the host is kept for the next run; none: as ONNX Runtime does by itself.
    pub arena: Option<bool>,
    /// Entries of each run's configuration, such as `memory.enable_memory_arena_shrinkage`.
    pub run: Vec<(String, String)>,
    /// Whether TensorRT is put before CUDA, and with which options, such as `trt_fp16_enable`.
    pub tensorrt: Option<Vec<(String, String)>>,
}

/// How much ONNX Runtime rewrites the graph at load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the names are ONNX Runtime's
pub enum OptimizationLevel {
    Disable,
    Basic,
    Extended,
    #[default]
    All,
}

/// A simulated model: what it takes, and what goes wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct SimulatedPolicy {
    /// A folder's `model.onnx` is not read; this is the signature, `(name, dtype, dimensions)`.
    pub inputs: Vec<super::TensorSpec>,
    /// Outputs: each echoes the input of the same position if dtype and shape agree, else zeros.
    pub outputs: Vec<super::TensorSpec>,
    /// The part of the service time that does not depend on the batch: `a` in `a + c n`.
    pub fixed: Duration,
    /// The part that each row adds: `c` in `a + c n`.
    pub per_row: Duration,
    /// The part that each element of the first input adds.
    pub per_element: Duration,
    /// How many first batches of each executor are slow, and by how much.
    pub cold_runs: u64,
    /// What those take more.
    pub cold: Duration,
    /// By the number of a simulated device, how many times as long everything takes there; once beyond.
    pub slowdown: Vec<f64>,
    /// Time that loading takes.
    pub load: Duration,
    /// Memory that the model takes on each device.
    pub memory_bytes: u64,
    /// Memory that each row of a batch takes while it runs.
    pub memory_per_row_bytes: u64,
    /// Numbers of rows that it runs with; empty for any.
    pub batch_sizes: Vec<usize>,
    /// Memory that each simulated device has.
    pub device_memory_bytes: u64,
    /// Whether batches that run on a device at the same time share its time, each taking longer.
    pub time_sliced: bool,
    /// Every so many batches one fails; zero for never.
    pub fail_every: u64,
    /// Every so many batches the executor panics; zero for never.
    pub panic_every: u64,
    /// The executor panics on a batch that has this number in its first input, if that is FP32.
    pub panic_on: Option<f32>,
    /// The process aborts on such a batch, as native code does.
    pub abort_on: Option<f32>,
    /// The executor hangs on such a batch, for ten minutes.
    pub hang_on: Option<f32>,
    /// Every device is lost while this file exists, and one while a file of that name with its number
    /// behind a dot does, so that they can be lost and brought back on demand.
    pub lost_while_exists: Option<PathBuf>,
    /// No run ends while this file exists, so that executors can be kept busy for as long as one likes;
    /// after ten minutes it does.
    pub waits_while_exists: Option<PathBuf>,
}

/// The least of `sizes`, which ascend, that is at least `size`; itself if there is none.
pub fn round_up(sizes: &[usize], size: usize) -> usize {
    let found = sizes.iter().copied().find(|own| *own >= size);
    found.unwrap_or(size)
}
