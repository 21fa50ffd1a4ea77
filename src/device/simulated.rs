//! Devices that are not there: memory that is counted, and loss on demand.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, Moment};

use super::{AlignedMemory, Device, DeviceError, DeviceId, HostMemory, Memory};

/// A device that is not there.
#[derive(Debug)]
pub struct SimulatedDevice {
    number: u32,
    state: Mutex<State>,
    /// Told when work comes or goes.
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    total_bytes: u64,
    used_bytes: u64,
    lost: bool,
    lost_while_exists: Option<PathBuf>,
    slices: Slices,
}

/// Time that is divided among the work that runs.
#[derive(Debug, Default)]
struct Slices {
    running: u32,
    /// What each that runs has been given since the beginning, and up to when.
    given: Duration,
    until: Moment,
}

impl Slices {
    fn pass(&mut self, now: Moment) {
        let passed = now - self.until;
        self.until = self.until.max(now);
        self.given += passed.checked_div(self.running).unwrap_or_default();
    }
}

/// Memory until a model says how much its devices have.
const DEFAULT_MEMORY: u64 = 16 << 30;

impl SimulatedDevice {
    fn new(number: u32) -> Self {
        Self {
            number,
            state: Mutex::new(State {
                total_bytes: DEFAULT_MEMORY,
                used_bytes: 0,
                lost: false,
                lost_while_exists: None,
                slices: Slices::default(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Sets how much memory it has, and the file whose presence means that it is lost; with its
    /// number behind a dot, it alone.
    pub fn configure(&self, total_bytes: u64, lost_while_exists: Option<PathBuf>) {
        let mut state = self.state();
        state.total_bytes = total_bytes;
        state.lost_while_exists = lost_while_exists;
    }

    /// Takes memory until the reservation is dropped; refuses with the numbers.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Reservation, DeviceError> {
        let mut state = self.state();
        let free = state.total_bytes.saturating_sub(state.used_bytes);
        if bytes > free {
            return Err(DeviceError {
                device: self.id(),
                reason: format!(
                    "out of memory: {bytes} bytes are needed and {free} of {} are free",
                    state.total_bytes
                ),
            });
        }
        state.used_bytes += bytes;
        Ok(Reservation {
            device: Arc::clone(self),
            bytes,
        })
    }

    /// Blocks for as long as work of this length takes while the device's time is divided among all
    /// such work.
    pub fn work(&self, clock: &dyn Clock, service: Duration) {
        let mut state = self.state();
        state.slices.pass(clock.now());
        state.slices.running += 1;
        self.changed.notify_all();
        let end = state.slices.given + service;
        loop {
            state.slices.pass(clock.now());
            let left = end.saturating_sub(state.slices.given);
            if left.is_zero() {
                break;
            }
            let left = left * state.slices.running;
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.slices.running -= 1;
        self.changed.notify_all();
    }

    /// Loses the device, or brings it back.
    pub fn set_lost(&self, lost: bool) {
        self.state().lost = lost;
    }

    /// Whether it is lost.
    pub fn is_lost(&self) -> bool {
        let state = self.state();
        let by_file = state.lost_while_exists.as_ref();
        let alone = |file: &PathBuf| {
            let mut name = file.clone().into_os_string();
            name.push(format!(".{}", self.number));
            PathBuf::from(name)
        };
        state.lost || by_file.is_some_and(|file| file.exists() || alone(file).exists())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory of a simulated device, given back when dropped.
#[derive(Debug)]
pub struct Reservation {
    device: Arc<SimulatedDevice>,
    bytes: u64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.device.state();
        state.used_bytes = state.used_bytes.saturating_sub(self.bytes);
    }
}

impl Device for SimulatedDevice {
    fn id(&self) -> DeviceId {
        DeviceId::Simulated(self.number)
    }

    fn name(&self) -> &str {
        "simulated"
    }

    fn memory(&self) -> Result<Memory, DeviceError> {
        let state = self.state();
        Ok(Memory {
            total_bytes: state.total_bytes,
            free_bytes: state.total_bytes.saturating_sub(state.used_bytes),
        })
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        Ok(Box::new(AlignedMemory::zeroed(bytes)))
    }
}

/// The simulated devices that were asked for, each made when it is first named.
#[derive(Debug, Default)]
pub struct SimulatedDevices(Mutex<BTreeMap<u32, Arc<SimulatedDevice>>>);

impl SimulatedDevices {
    /// The device of this number, the same at every call.
    pub fn get(&self, number: u32) -> Arc<SimulatedDevice> {
        let mut devices = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let device = devices
            .entry(number)
            .or_insert_with(|| Arc::new(SimulatedDevice::new(number)));
        Arc::clone(device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_refused_with_the_numbers_and_given_back() {
        let devices = SimulatedDevices::default();
        let device = devices.get(3);
        device.configure(100, None);
        let first = device.reserve(60).unwrap();
        let error = devices.get(3).reserve(50).unwrap_err().to_string();
        assert_eq!(
            error,
            "simulated:3: out of memory: 50 bytes are needed and 40 of 100 are free"
        );
        drop(first);
        assert!(device.reserve(50).is_ok());
    }

    #[test]
    fn a_file_loses_the_device() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("lost");
        let device = SimulatedDevices::default().get(0);
        device.configure(1, Some(file.clone()));
        assert!(!device.is_lost());
        std::fs::write(&file, "").unwrap();
        assert!(device.is_lost());
        std::fs::remove_file(&file).unwrap();
        assert!(!device.is_lost());
        std::fs::write(folder.path().join("lost.1"), "").unwrap();
        assert!(!device.is_lost());
        std::fs::write(folder.path().join("lost.0"), "").unwrap();
        assert!(device.is_lost());
    }
}
