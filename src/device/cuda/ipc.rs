//! Memory of a GPU that another process has allocated and given a handle of (CUDA IPC).

use std::fmt;
use std::sync::Arc;

use cudarc::driver::{CudaContext, DriverError, result, sys};

use super::failed;
use crate::device::{DeviceError, DeviceId};

/// Memory of another process, open in this one. Closed when dropped.
pub struct CudaIpcMemory {
    start: sys::CUdeviceptr,
    length: usize,
    number: u32,
    context: Arc<CudaContext>,
}

impl fmt::Debug for CudaIpcMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} bytes on cuda:{}", self.length, self.number)
    }
}

impl CudaIpcMemory {
    /// Opens `length` bytes on GPU `number`, of which `handle` is the 64 bytes of a
    /// `CUipcMemHandle`. The driver must be there.
    pub fn open(number: u32, handle: &[u8], length: usize) -> Result<Self, DeviceError> {
        let wrong = |reason: String| DeviceError {
            device: DeviceId::Cuda(number),
            reason,
        };
        let Ok(handle) = <[u8; 64]>::try_from(handle) else {
            let reason = format!("a CUDA IPC handle has 64 bytes; {} came", handle.len());
            return Err(wrong(reason));
        };
        let mut memory = Self::map(number, handle).map_err(|error| failed(number, error))?;
        if length > memory.length {
            let reason = format!(
                "byte_size is {length}; what was shared has {}",
                memory.length
            );
            return Err(wrong(reason));
        }
        memory.length = length;
        Ok(memory)
    }

    fn map(number: u32, handle: [u8; 64]) -> Result<Self, DriverError> {
        let context = CudaContext::new(number as usize)?;
        context.bind_to_thread()?;
        let handle = sys::CUipcMemHandle {
            reserved: handle.map(|byte| byte as std::ffi::c_char),
        };
        let lazily = sys::CUipcMem_flags::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as u32;
        let mut start: sys::CUdeviceptr = 0;
        // SAFETY: the calling thread has a context, `start` is ours to write, and the driver checks
        // the handle.
        unsafe { sys::cuIpcOpenMemHandle_v2(&mut start, handle, lazily) }.result()?;
        let mut memory = Self {
            start,
            length: 0,
            number,
            context,
        };
        let mut base: sys::CUdeviceptr = 0;
        // SAFETY: `start` was opened in this context; base and length are ours to write.
        unsafe { sys::cuMemGetAddressRange_v2(&mut base, &mut memory.length, start) }.result()?;
        Ok(memory)
    }

    /// Copies `length` bytes from `offset` to the host.
    pub fn read(&self, offset: usize, length: usize) -> Result<Vec<u8>, DeviceError> {
        let mut data = vec![0; length];
        let copied = self.at(offset, length).and_then(|start| {
            // SAFETY: `start` and `length` bytes behind it are inside what was opened.
            unsafe { result::memcpy_dtoh_sync(&mut data, start) }
        });
        copied.map_err(|error| failed(self.number, error))?;
        Ok(data)
    }

    /// Copies `data` to the device, from `offset` on; it is there when this returns.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), DeviceError> {
        let copied = self.at(offset, data.len()).and_then(|start| {
            // SAFETY: `start` and as many bytes behind it are inside what was opened.
            unsafe { result::memcpy_htod_sync(start, data) }?;
            // From memory that is not page-locked the copy may return when `data` was read, before the
            // device has it ("API synchronization behavior" in the driver API's documentation), and whoever
            // shares the memory is told next.
            // SAFETY: the default stream of the context that the thread has is always there.
            unsafe { result::stream::synchronize(std::ptr::null_mut()) }
        });
        copied.map_err(|error| failed(self.number, error))
    }

    /// Where `length` bytes from `offset` begin, if they are inside; the thread has the context then.
    fn at(&self, offset: usize, length: usize) -> Result<sys::CUdeviceptr, DriverError> {
        let outside = DriverError(sys::CUresult::CUDA_ERROR_INVALID_VALUE);
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.length) {
            return Err(outside);
        }
        self.context.bind_to_thread()?;
        self.start.checked_add(offset as u64).ok_or(outside)
    }
}

impl Drop for CudaIpcMemory {
    fn drop(&mut self) {
        let _ = self.context.bind_to_thread();
        // SAFETY: `start` came from cuIpcOpenMemHandle and is closed once. If the device is lost
        // there is nothing left to do.
        let _ = unsafe { sys::cuIpcCloseMemHandle(self.start) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::CudaDevice;

    /// A handle cannot be opened by the process that made it; that it is refused, and that nonsense
    /// is, shows that the driver was asked.
    #[test]
    fn nonsense_is_refused_by_the_driver() {
        if let Err(absence) = CudaDevice::enumerate() {
            eprintln!("skipped: {absence}");
            return;
        }
        assert!(CudaIpcMemory::open(0, &[7; 64], 1).is_err());
        let short = CudaIpcMemory::open(0, &[7; 63], 1).unwrap_err();
        assert!(short.to_string().contains("64 bytes; 63 came"));
    }
}
