//! Runs a session for one thread.

use std::path::PathBuf;
use std::sync::Arc;

use ::ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ::ort::session::{IoBinding, RunOptions, Session, SessionOutputs, SharedSessionInner};
use ::ort::{Error, value::DynValue};

use super::shared::SharedSession;
use super::{element, providers::ComputeStream, run_options, value};
use crate::backend::{
    Artifact, Executor, Input, LoadError, Outline, Place, RunError, foresight::foresee,
};
use crate::device::DeviceId;
use crate::model::Signature;
use crate::tensor::Tensor;

/// Runs a session for one thread.
pub(super) struct OrtExecutor {
    signature: Signature,
    /// Inputs are handed over in memory of the host, whatever the device.
    host: MemoryInfo<'static>,
    allocator: Allocator,
    path: RunPath,
    /// Whether the model is taken at its word on the shapes of its outputs.
    believed: bool,
}

/// How inputs get to the device and outputs back.
enum RunPath {
    /// By pointers: the device is the host, or ONNX Runtime copies.
    Direct(Arc<SharedSession>),
    /// ONNX Runtime copies from and to pinned memory on the executor's stream.
    Bound(Box<BoundSession>),
}

// Dropped in this order: the binding before the session, and the stream that the session computes on
// after both.
struct BoundSession {
    binding: IoBinding,
    pinned: MemoryInfo<'static>,
    session: Session,
    options: Option<RunOptions>,
    _stream: ComputeStream,
}

impl OrtExecutor {
    /// One of those that run this session, on whatever device it is.
    pub(super) fn direct(session: Arc<SharedSession>, device: DeviceId) -> Result<Self, LoadError> {
        let signature = session.signature().clone();
        Self::new(signature, RunPath::Direct(session), device)
    }

    /// The one that runs this session on GPU `number`, on a stream of its own.
    pub(super) fn bound(
        session: Session,
        artifact: &Artifact,
        number: u32,
        stream: ComputeStream,
    ) -> Result<Self, LoadError> {
        let signature = element::signature(&session, artifact)?;
        let device = DeviceId::Cuda(number);
        let options = run_options(artifact)?;
        let session = BoundSession::new(session, number, stream, options);
        let session = session.map_err(|error| provider_error(device, &error))?;
        Self::new(signature, RunPath::Bound(Box::new(session)), device)
    }

    fn new(signature: Signature, path: RunPath, device: DeviceId) -> Result<Self, LoadError> {
        let host = MemoryInfo::new(
            AllocationDevice::CPU,
            0,
            AllocatorType::Device,
            MemoryType::Default,
        );
        Ok(Self {
            signature,
            host: host.map_err(|error| provider_error(device, &error))?,
            allocator: Allocator::default(),
            path,
            // Elsewhere ONNX Runtime copies, and sees to the number of elements alone.
            believed: device == DeviceId::Cpu,
        })
    }

    /// A value for each input; none for one that is left out.
    fn values(&self, inputs: &[Input<'_>]) -> Result<Vec<Option<DynValue>>, Error> {
        let values = inputs.iter().map(|input| {
            if input.is_absent() {
                return Ok(None);
            }
            // SAFETY: `run_values` drops the values, and whatever holds them, before it returns.
            unsafe { value::from_input(input, &self.host, &self.allocator) }.map(Some)
        });
        values.collect()
    }

    fn run_values(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, Error> {
        let values = self.values(inputs)?;
        match &mut self.path {
            RunPath::Direct(session) => session.run(&values, &self.allocator),
            RunPath::Bound(session) => session.run(&values, &self.signature),
        }
    }

    /// False if the outputs of this session cannot be put anywhere.
    fn put_values(&self, inputs: &[Input<'_>], places: &mut [Place<'_>]) -> Result<bool, Error> {
        let RunPath::Direct(session) = &self.path else {
            return Ok(false);
        };
        let values = self.values(inputs)?;
        let outputs = places.iter_mut().map(|place| {
            // SAFETY: the values are dropped before this returns.
            unsafe { value::over_place(place, &self.host, &self.allocator) }
        });
        session.run_into(&values, &outputs.collect::<Result<Vec<_>, _>>()?)?;
        Ok(true)
    }
}

impl BoundSession {
    fn new(
        session: Session,
        number: u32,
        stream: ComputeStream,
        options: Option<RunOptions>,
    ) -> Result<Self, Error> {
        let pinned = MemoryInfo::new(
            AllocationDevice::CUDA_PINNED,
            i32::try_from(number).unwrap_or(i32::MAX),
            AllocatorType::Device,
            MemoryType::CPUOutput,
        )?;
        Ok(Self {
            binding: session.create_binding()?,
            pinned,
            session,
            options,
            _stream: stream,
        })
    }

    fn run(
        &mut self,
        values: &[Option<DynValue>],
        signature: &Signature,
    ) -> Result<Vec<Tensor>, Error> {
        let inner: Arc<SharedSessionInner> = self.session.inner();
        let names = signature.outputs.iter().map(|spec| spec.name.as_str());
        let binding = &mut self.binding;
        for (spec, value) in signature.inputs.iter().zip(values) {
            if let Some(value) = value {
                binding.bind_input(spec.name.as_str(), value)?;
            }
        }
        for name in names.clone() {
            binding.bind_output_to_device(name, &self.pinned)?;
        }
        binding.synchronize_inputs()?;
        let result = match &self.options {
            None => self.session.run_binding(binding),
            Some(options) => self.session.run_binding_with_options(binding, options),
        };
        let result = result.and_then(|outputs| {
            binding.synchronize_outputs()?;
            tensors(outputs, names, &inner)
        });
        binding.clear();
        result
    }
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

fn provider_error(device: DeviceId, error: &Error) -> LoadError {
    LoadError::Provider {
        device: device.to_string(),
        reason: error.to_string(),
    }
}

impl Executor for OrtExecutor {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        self.run_values(inputs)
            .map_err(|error| run_error(error.message()))
    }

    fn foresee(&self, inputs: &[Input<'_>]) -> Option<Vec<Outline>> {
        self.believed.then(|| foresee(&self.signature, inputs))?
    }

    fn run_into(
        &mut self,
        inputs: &[Input<'_>],
        places: &mut [Place<'_>],
    ) -> Result<Option<Vec<Tensor>>, RunError> {
        if let Ok(true) = self.put_values(inputs, places) {
            return Ok(None);
        }
        // Either these inputs are wrong, or what the model says of its outputs: then that is not believed
        // again.
        let outputs = self.run(inputs)?;
        self.believed = false;
        Ok(Some(outputs))
    }

    fn end_profile(&mut self) -> Result<PathBuf, String> {
        let ended = match &mut self.path {
            RunPath::Direct(session) => session.end_profile(&self.allocator),
            RunPath::Bound(session) => session.session.end_profiling(),
        };
        let file = ended.map_err(|error| error.message().to_owned())?;
        Ok(PathBuf::from(file))
    }
}

/// Errors after which CUDA answers nothing else in this process, which "must be terminated and relaunched", or
/// in this context, "which cannot be used" any more (CUresult in the driver API's documentation): 700, 702, 709,
/// 710, 714 to 719, 721, 226, 810, 911; and memory or links that are broken beyond correction: 214, 220.
const STICKY: [u32; 16] = [
    214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911,
];
/// CUDA's error for memory that is not there.
const CUDA_OUT_OF_MEMORY: u32 = 2;

/// After some CUDA errors only a new process helps. When memory runs out, fewer rows do.
fn run_error(message: &str) -> RunError {
    const MEMORY: [&str; 3] = [
        "Failed to allocate memory",
        "CUBLAS_STATUS_ALLOC_FAILED",
        "std::bad_alloc",
    ];
    let has = |wanted: &dyn Fn(u32) -> bool| cuda_failures(message).any(wanted);
    if has(&|code| STICKY.contains(&code)) || message.contains("no CUDA-capable device") {
        RunError::DeviceLost(message.to_owned())
    } else if has(&|code| code == CUDA_OUT_OF_MEMORY)
        || MEMORY.iter().any(|text| message.contains(text))
    {
        RunError::OutOfMemory(message.to_owned())
    } else {
        RunError::Failed(message.to_owned())
    }
}

/// The numbers of the CUDA errors that ONNX Runtime tells of.
fn cuda_failures(message: &str) -> impl Iterator<Item = u32> {
    let told = message.split("CUDA failure ").skip(1);
    told.filter_map(|told| {
        let end = told.find(|character: char| !character.is_ascii_digit());
        told.get(..end.unwrap_or(told.len()))?.parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(code: u32) -> RunError {
        run_error(&format!(
            "Non-zero status code returned while running Add node. CUDA failure {code}: what it means ; GPU=0"
        ))
    }

    #[test]
    fn errors_after_which_cuda_answers_nothing_else_lose_the_device() {
        let lost = [
            214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 810, 911,
        ];
        for code in lost {
            assert!(matches!(told(code), RunError::DeviceLost(_)), "{code}");
        }
        let absent = run_error("CUDA failure 100: no CUDA-capable device is detected");
        assert!(matches!(absent, RunError::DeviceLost(_)));
        // Invalid arguments, and numbers that only begin or end like others.
        for code in [1, 9, 71, 98, 400, 701, 704, 720, 7000, 2140, 1700] {
            assert!(matches!(told(code), RunError::Failed(_)), "{code}");
        }
    }

    #[test]
    fn memory_that_runs_out_is_told_apart() {
        for said in [
            "CUDA failure 2: out of memory ; GPU=0",
            "Failed to allocate memory for requested buffer of size 7",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED",
        ] {
            assert!(
                matches!(run_error(said), RunError::OutOfMemory(_)),
                "{said}"
            );
        }
        assert!(matches!(told(2), RunError::OutOfMemory(_)));
        assert!(matches!(told(21), RunError::Failed(_)));
    }
}
