//! One session on one device, run by one thread.

use std::path::Path;
use std::sync::Arc;

use ::ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ::ort::session::{IoBinding, Session, SessionInputValue, SessionOutputs, SharedSessionInner};
use ::ort::{Error, value::DynValue};

use super::{element, providers::ComputeStream, value};
use crate::backend::{Executor, Input, LoadError, Placement, RunError};
use crate::device::DeviceId;
use crate::model::Signature;
use crate::tensor::Tensor;

/// One session on one device.
pub(super) struct OrtExecutor {
    signature: Signature,
    /// Inputs are handed over in memory of the host, whatever the device.
    host: MemoryInfo<'static>,
    allocator: Allocator,
    path: RunPath,
    // Dropped in this order: the binding before the session, and the stream that the session
    // computes on after both.
    session: Session,
    _stream: Option<ComputeStream>,
}

/// How inputs get to the device and outputs back.
enum RunPath {
    /// The device is the host: pointers will do.
    Direct,
    /// ONNX Runtime copies from and to pinned memory on the executor's stream.
    Bound {
        binding: Box<IoBinding>,
        pinned: MemoryInfo<'static>,
    },
}

impl OrtExecutor {
    pub(super) fn new(
        session: Session,
        file: &Path,
        placement: &Placement,
        stream: Option<ComputeStream>,
    ) -> Result<Self, LoadError> {
        let signature = element::signature(&session, file)?;
        let device = placement.device.id();
        let failed = |error: Error| LoadError::Provider {
            device: device.to_string(),
            reason: error.to_string(),
        };
        let host = MemoryInfo::new(
            AllocationDevice::CPU,
            0,
            AllocatorType::Device,
            MemoryType::Default,
        )
        .map_err(failed)?;
        let path = match device {
            DeviceId::Cuda(number) => bound(&session, number).map_err(failed)?,
            _ => RunPath::Direct,
        };
        Ok(Self {
            signature,
            host,
            allocator: Allocator::default(),
            path,
            session,
            _stream: stream,
        })
    }

    fn values(&self, inputs: &[Input<'_>]) -> Result<Vec<SessionInputValue<'static>>, Error> {
        inputs
            .iter()
            .map(|input| {
                // SAFETY: `run` drops the values, and whatever holds them, before it returns.
                let value = unsafe { value::from_input(input, &self.host, &self.allocator) }?;
                Ok(SessionInputValue::Owned(value))
            })
            .collect()
    }

    fn run_values(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, Error> {
        let values = self.values(inputs)?;
        let inner: Arc<SharedSessionInner> = self.session.inner();
        let names = self.signature.outputs.iter().map(|spec| spec.name.as_str());
        match &mut self.path {
            RunPath::Direct => {
                let outputs = self.session.run(values.as_slice())?;
                tensors(outputs, names, &inner)
            }
            RunPath::Bound { binding, pinned } => {
                let specs = self.signature.inputs.iter();
                for (spec, value) in specs.zip(&values) {
                    let value: &DynValue = value;
                    binding.bind_input(spec.name.as_str(), value)?;
                }
                for name in names.clone() {
                    binding.bind_output_to_device(name, pinned)?;
                }
                binding.synchronize_inputs()?;
                let result = self.session.run_binding(binding).and_then(|outputs| {
                    binding.synchronize_outputs()?;
                    tensors(outputs, names, &inner)
                });
                binding.clear();
                result
            }
        }
    }
}

fn bound(session: &Session, number: u32) -> Result<RunPath, Error> {
    let pinned = MemoryInfo::new(
        AllocationDevice::CUDA_PINNED,
        i32::try_from(number).unwrap_or(i32::MAX),
        AllocatorType::Device,
        MemoryType::CPUOutput,
    )?;
    Ok(RunPath::Bound {
        binding: Box::new(session.create_binding()?),
        pinned,
    })
}

fn tensors<'a>(
    mut outputs: SessionOutputs<'_>,
    names: impl Iterator<Item = &'a str>,
    session: &Arc<SharedSessionInner>,
) -> Result<Vec<Tensor>, Error> {
    names
        .map(|name| {
            let output = outputs
                .remove(name)
                .ok_or_else(|| Error::new(format!("output {name} is missing")))?;
            value::to_tensor(output, session)
        })
        .collect()
}

impl Executor for OrtExecutor {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        self.run_values(inputs)
            .map_err(|error| run_error(error.message()))
    }
}

/// After some CUDA errors the context answers nothing else, and only a new one helps. When memory runs
/// out, fewer rows do.
fn run_error(message: &str) -> RunError {
    const MEMORY: [&str; 4] = [
        "CUDA failure 2:",
        "Failed to allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
    ];
    const STICKY: [&str; 4] = [
        "CUDA failure 700",
        "CUDA failure 710",
        "CUDA failure 719",
        "no CUDA-capable device",
    ];
    if STICKY.iter().any(|text| message.contains(text)) {
        RunError::DeviceLost(message.to_owned())
    } else if MEMORY.iter().any(|text| message.contains(text)) {
        RunError::OutOfMemory(message.to_owned())
    } else {
        RunError::Failed(message.to_owned())
    }
}
