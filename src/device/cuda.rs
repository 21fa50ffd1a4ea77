//! CUDA GPUs by the driver API, whose library is looked for at run time.
//!
//! Kept thin: each function is one or two calls of the driver, after its documentation
//! (<https://docs.nvidia.com/cuda/cuda-driver-api>). Not run on a GPU yet: the tests below run where
//! there is one and say so where there is none; tests/it/driver.rs has a driver that is not one.

mod ipc;

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::{Device, DeviceError, DeviceId, HostMemory, Memory};
pub use ipc::CudaIpcMemory;

/// The CUDA version, times 1000, that has every entry point which is called (cuIpcOpenMemHandle_v2 and
/// cuDevicePrimaryCtxRelease_v2 are the newest). A missing one would be a panic.
const OLDEST: i32 = 11_000;

/// Why there is no CUDA GPU, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaAbsence {
    /// The driver's library is not there.
    #[error(
        "the NVIDIA driver's library libcuda.so.1 was not found: install the driver, or start the container with GPUs (docker run --gpus all)"
    )]
    NoDriver,
    /// The driver is there and does not start.
    #[error("the NVIDIA driver did not start: {0}; see what nvidia-smi says")]
    DriverFailed(String),
    /// The driver is older than the entry points that are called.
    #[error(
        "the NVIDIA driver is too old: it offers CUDA {0}.{1}, and at least {major}.{minor} is needed; update the driver",
        major = OLDEST / 1000,
        minor = OLDEST % 1000 / 10
    )]
    TooOld(i32, i32),
    /// The driver sees no GPU.
    #[error(
        "the NVIDIA driver sees no GPU: check nvidia-smi and CUDA_VISIBLE_DEVICES, or that the container was given one"
    )]
    NoDevice,
}

/// A CUDA GPU.
pub struct CudaDevice {
    number: u32,
    name: String,
    context: Arc<CudaContext>,
}

impl fmt::Debug for CudaDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cuda:{} ({})", self.number, self.name)
    }
}

impl CudaDevice {
    /// Every CUDA GPU that the driver sees, and the errors of those that cannot be used; an error if none
    /// can.
    pub fn enumerate() -> Result<(Vec<Self>, Vec<DeviceError>), CudaAbsence> {
        // SAFETY: only opens the driver's library and closes it, which runs nothing but its
        // initialisers. Without this look, the first call of the driver would panic.
        if !unsafe { sys::is_culib_present() } {
            return Err(CudaAbsence::NoDriver);
        }
        let failed = |error: DriverError| match error.0 {
            sys::CUresult::CUDA_ERROR_NO_DEVICE => CudaAbsence::NoDevice,
            _ => CudaAbsence::DriverFailed(error.to_string()),
        };
        let version = version().map_err(failed)?;
        if version < OLDEST {
            return Err(CudaAbsence::TooOld(version / 1000, version % 1000 / 10));
        }
        result::init().map_err(failed)?;
        let count = u32::try_from(CudaContext::device_count().map_err(failed)?).unwrap_or(0);
        let (mut usable, mut broken) = (Vec::new(), Vec::new());
        for number in 0..count {
            match Self::open(number) {
                Ok(device) => usable.push(device),
                Err(error) => broken.push(self::failed(number, error)),
            }
        }
        match (usable.is_empty(), broken.first()) {
            (true, Some(error)) => Err(CudaAbsence::DriverFailed(error.to_string())),
            (true, None) => Err(CudaAbsence::NoDevice),
            (false, _) => Ok((usable, broken)),
        }
    }

    fn open(number: u32) -> Result<Self, DriverError> {
        let context = CudaContext::new(number as usize)?;
        Ok(Self {
            number,
            name: context.name()?,
            context,
        })
    }
}

/// CUDA's version, times 1000, that the driver offers; it need not be started.
fn version() -> Result<i32, DriverError> {
    let mut version = 0;
    // SAFETY: `version` is ours to write.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

fn failed(number: u32, error: DriverError) -> DeviceError {
    DeviceError {
        device: DeviceId::Cuda(number),
        reason: error.to_string(),
    }
}

impl Device for CudaDevice {
    fn id(&self) -> DeviceId {
        DeviceId::Cuda(self.number)
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn uuid(&self) -> Option<String> {
        let uuid = self.context.uuid().ok()?;
        let digits: String = uuid
            .bytes
            .iter()
            // A char of C, which has a sign here.
            .map(|byte| format!("{:02x}", *byte as u8))
            .collect();
        let part = |range| digits.get(range).unwrap_or_default();
        Some(format!(
            "GPU-{}-{}-{}-{}-{}",
            part(0..8),
            part(8..12),
            part(12..16),
            part(16..20),
            part(20..32)
        ))
    }

    fn memory(&self) -> Result<Memory, DeviceError> {
        let (free, total) = self
            .context
            .mem_get_info()
            .map_err(|error| failed(self.number, error))?;
        Ok(Memory {
            total_bytes: total as u64,
            free_bytes: free as u64,
        })
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        PinnedMemory::new(&self.context, bytes)
            .map(|memory| Box::new(memory) as Box<dyn HostMemory>)
            .map_err(|error| failed(self.number, error))
    }
}

/// Page-locked memory of the host, from which the GPU copies without the processor's help.
///
/// Not write-combined: that would make reading it back slow, and it is worth little on the bus.
struct PinnedMemory {
    start: NonNull<u8>,
    length: usize,
    context: Arc<CudaContext>,
}

// SAFETY: page-locked memory belongs to the process, and CU_MEMHOSTALLOC_PORTABLE makes it valid in
// every context; nothing else holds the pointer.
unsafe impl Send for PinnedMemory {}

impl PinnedMemory {
    fn new(context: &Arc<CudaContext>, length: usize) -> Result<Self, DriverError> {
        context.bind_to_thread()?;
        let length = length.max(1);
        // SAFETY: the calling thread has a context, as cuMemHostAlloc asks.
        let start = unsafe { result::malloc_host(length, sys::CU_MEMHOSTALLOC_PORTABLE) }?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: the driver has just given `length` bytes, which nobody else knows; they are
        // written once so that a slice of them never shows memory that was not initialised.
        unsafe { start.write_bytes(0, length) };
        Ok(Self {
            start,
            length,
            context: Arc::clone(context),
        })
    }
}

impl HostMemory for PinnedMemory {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: `start` points to `length` initialised bytes that only `self` owns.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.length) }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }
}

impl Drop for PinnedMemory {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // SAFETY: `start` came from `malloc_host` and is freed once. If the device is lost the
        // driver refuses, and there is nothing left to do.
        let _ = unsafe { result::free_host(self.start.as_ptr().cast::<c_void>()) };
    }
}

/// A stream on which one executor's work is done in order.
pub struct ComputeStream {
    stream: Arc<CudaStream>,
}

impl fmt::Debug for ComputeStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ComputeStream")
            .finish_non_exhaustive()
    }
}

impl ComputeStream {
    /// A new stream on GPU `number`.
    pub fn new(number: u32) -> Result<Self, DeviceError> {
        let stream = CudaContext::new(number as usize)
            .and_then(|context| context.new_stream())
            .map_err(|error| failed(number, error))?;
        Ok(Self { stream })
    }

    /// The driver's handle, valid as long as this lives.
    pub fn handle(&self) -> *mut () {
        self.stream.cu_stream().cast()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_has_memory_and_gives_pinned_memory() {
        let devices = match CudaDevice::enumerate() {
            Ok((devices, _)) => devices,
            Err(absence) => {
                eprintln!("skipped: {absence}");
                return;
            }
        };
        for device in devices {
            let memory = device.memory().unwrap();
            assert!(memory.total_bytes >= memory.free_bytes);
            let mut staging = device.staging(4096).unwrap();
            staging.as_mut_slice().fill(7);
            assert!(staging.as_slice().iter().all(|byte| *byte == 7));
            assert_eq!(staging.as_slice().as_ptr().align_offset(64), 0);
            let DeviceId::Cuda(number) = device.id() else {
                panic!("not a GPU");
            };
            assert!(!ComputeStream::new(number).unwrap().handle().is_null());
        }
    }
}
