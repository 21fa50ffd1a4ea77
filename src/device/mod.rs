//! The devices of this machine: what they are, how much memory they have, whether they are well,
//! and memory of the host that they can read and write quickly.
//! Uses `model` for the way a person names a device.
//! Never loads a model. `cudarc` appears in `cuda` and nowhere else.

mod cuda;
mod host;
mod inventory;
mod mapped;
mod simulated;

use std::fmt;
use std::sync::Arc;

pub use cuda::{ComputeStream, CudaAbsence, CudaDevice, CudaIpcMemory};
pub use host::{AlignedMemory, HostDevice};
pub use inventory::{Inventory, Unavailable};
pub use mapped::{MappedBytes, MappedDevice, MappedMemory, Mapping, Neighbour};
pub use simulated::{Reservation, SimulatedDevice, SimulatedDevices};

/// A device's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceId {
    /// The processor and its memory.
    Cpu,
    /// A CUDA GPU, by its number.
    Cuda(u32),
    /// A simulated device, by its number.
    Simulated(u32),
}

impl fmt::Display for DeviceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("cpu"),
            Self::Cuda(number) => write!(formatter, "cuda:{number}"),
            Self::Simulated(number) => write!(formatter, "simulated:{number}"),
        }
    }
}

/// Memory of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What is free at this moment.
    pub free_bytes: u64,
}

/// A device was asked for something and failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{device}: {reason}")]
pub struct DeviceError {
    /// Which one.
    pub device: DeviceId,
    /// What it said.
    pub reason: String,
}

/// Memory of the host into which a batch is stacked. Freed when dropped.
pub trait HostMemory: Send {
    /// All of it, for writing.
    fn as_mut_slice(&mut self) -> &mut [u8];

    /// All of it, for reading.
    fn as_slice(&self) -> &[u8];
}

/// Something that runs models.
pub trait Device: Send + Sync + fmt::Debug {
    /// Which one it is.
    fn id(&self) -> DeviceId;

    /// What a person would call it, such as its marketing name.
    fn name(&self) -> &str;

    /// The identity that the vendor's tools know it by, if they know it.
    fn uuid(&self) -> Option<String> {
        None
    }

    /// Its memory now.
    fn memory(&self) -> Result<Memory, DeviceError>;

    /// Bytes taken on it: by this process where that can be told, else by everybody. What a model
    /// takes is the difference that its load makes.
    fn taken_bytes(&self) -> u64 {
        let memory = self.memory();
        memory.map_or(0, |memory| {
            memory.total_bytes.saturating_sub(memory.free_bytes)
        })
    }

    /// Host memory of at least `bytes`, aligned for every element type, from which this device
    /// reads as fast as it can.
    fn staging(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError>;
}

/// A device that several executors share.
pub type SharedDevice = Arc<dyn Device>;
