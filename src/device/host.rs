//! The processor as a device, and host memory aligned for every element type.

use std::fs;

use super::{Device, DeviceError, DeviceId, HostMemory, Memory};

/// One cache line, and the widest vector register.
const LINE: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

/// Host memory whose start is aligned to a cache line.
pub struct AlignedMemory {
    lines: Vec<Line>,
}

impl AlignedMemory {
    /// At least `bytes` zeros.
    pub fn zeroed(bytes: usize) -> Self {
        Self {
            lines: vec![Line([0; LINE]); bytes.div_ceil(LINE)],
        }
    }
}

impl HostMemory for AlignedMemory {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        let length = self.lines.len() * LINE;
        // SAFETY: `Line` is `repr(C)` over bytes with no padding (its size is its alignment), so
        // the vector's memory is `length` initialised bytes, borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), length) }
    }

    fn as_slice(&self) -> &[u8] {
        let length = self.lines.len() * LINE;
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), length) }
    }
}

/// The processor and its memory.
#[derive(Debug)]
pub struct HostDevice {
    name: String,
}

impl HostDevice {
    /// Reads the processor's name.
    pub fn detect() -> Self {
        let about = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let name = about
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("processor", |(_, name)| name.trim());
        Self {
            name: name.to_owned(),
        }
    }
}

impl Device for HostDevice {
    fn id(&self) -> DeviceId {
        DeviceId::Cpu
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn memory(&self) -> Result<Memory, DeviceError> {
        let about = fs::read_to_string("/proc/meminfo").map_err(|error| DeviceError {
            device: DeviceId::Cpu,
            reason: format!("/proc/meminfo: {error}"),
        })?;
        Ok(Memory {
            total_bytes: kibibytes(&about, "MemTotal:"),
            free_bytes: kibibytes(&about, "MemAvailable:"),
        })
    }

    fn taken_bytes(&self) -> u64 {
        let about = fs::read_to_string("/proc/self/status").unwrap_or_default();
        kibibytes(&about, "VmRSS:")
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        Ok(Box::new(AlignedMemory::zeroed(bytes)))
    }
}

/// What a process has resident for itself: what it shares with this one counts here. Nothing if it is gone.
pub(super) fn resident_bytes(process: u32) -> u64 {
    let about = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    kibibytes(&about, "RssAnon:") + kibibytes(&about, "RssFile:")
}

fn kibibytes(about: &str, key: &str) -> u64 {
    about
        .lines()
        .find_map(|line| line.strip_prefix(key)?.split_whitespace().next())
        .and_then(|count| count.parse::<u64>().ok())
        .unwrap_or(0)
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_aligned_and_large_enough() {
        let mut memory = AlignedMemory::zeroed(65);
        assert_eq!(memory.as_slice().len(), 128);
        assert_eq!(memory.as_slice().as_ptr().align_offset(64), 0);
        memory.as_mut_slice()[127] = 1;
        assert_eq!(memory.as_slice()[127], 1);
    }

    #[test]
    fn the_processor_has_memory() {
        let memory = HostDevice::detect().memory().unwrap();
        assert!(memory.total_bytes >= memory.free_bytes);
        assert!(memory.free_bytes > 0);
    }
}
