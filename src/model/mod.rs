//! What a model is: its name and version, what goes in and comes out, and how it is to be served.
//! Uses `tensor` for element types.
//! Never loads or runs anything.

mod access;
mod ensemble;
mod id;
mod labels;
mod metric_tags;
mod policy;
mod ragged;
mod resource;
mod sequence;
mod shared_memory;
mod signature;
mod tensors;
mod waiting;

pub use access::{
    Access, Certificate, ClientLimits, Digest, JwtPolicy, Role, Roles, Subject, TlsFiles, Token,
};
pub use ensemble::{EnsemblePolicy, EnsembleStep};
pub use id::{InvalidName, VersionId, check_name};
pub use labels::{LabelPolicy, OutputLabels};
pub use metric_tags::{MOST_TAGS, TAKEN_LABELS, wrong_tag};
pub use policy::{
    BackendPolicy, BatchAxis, BatchPolicy, DeviceChoice, InstanceGroup, ModelPolicy, Notes,
    OnnxRuntimePolicy, OptimizationLevel, PaddingPolicy, QueuePolicy, SimulatedPolicy,
    VersionPolicy, WarmUpData, WarmUpInput, WarmUpPolicy, WarmUpRequest, WarmUpShape, round_up,
};
pub use ragged::{BatchInput, BatchInputKind, BatchOutput, MOST_FP32_COUNT, RaggedPolicy};
pub use resource::{NeededResource, OfferedResource};
pub use sequence::{
    Choice, ControlKind, SequenceControl, SequencePolicy, SequenceState, SequenceStrategy,
};
pub use shared_memory::SharedMemoryPolicy;
pub use signature::{Batching, Dimension, Signature, TensorSpec};
pub use tensors::{TensorFormat, TensorPolicy, TensorsPolicy, declared};
pub use waiting::{PriorityPolicy, QueueTimeout, TimeoutAction};
