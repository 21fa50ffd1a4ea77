//! One region, and parts of it.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use super::files;
use crate::device::CudaIpcMemory;
use crate::status::Status;

/// A part of a region, as a request names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionPart {
    /// The region's name.
    pub region: String,
    /// Where the part begins in the region, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// What regions are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RegionKind {
    /// A file of the system's shared memory.
    System,
    /// Memory of a GPU.
    Cuda,
}

/// What a region is made of.
#[derive(Debug)]
pub enum RegionMemory {
    /// A file.
    System {
        /// By which the client named it.
        key: String,
        /// Where the region begins in it, in bytes.
        offset: u64,
        /// Open, so that unlinking it changes nothing.
        file: File,
    },
    /// Memory of a GPU.
    Cuda {
        /// The GPU's number.
        device: i64,
        /// Open.
        memory: CudaIpcMemory,
    },
}

/// Memory that a client shares with the server.
#[derive(Debug)]
pub struct Region {
    /// By which requests name it.
    pub name: String,
    /// How long it is.
    pub bytes: u64,
    /// What it is made of.
    pub memory: RegionMemory,
}

impl Region {
    pub(super) fn new(name: &str, bytes: u64, memory: RegionMemory) -> Self {
        Self {
            name: name.to_owned(),
            bytes,
            memory,
        }
    }

    /// What it is made of.
    pub fn kind(&self) -> RegionKind {
        match self.memory {
            RegionMemory::System { .. } => RegionKind::System,
            RegionMemory::Cuda { .. } => RegionKind::Cuda,
        }
    }
}

/// A part of a region that is inside it.
#[derive(Debug)]
pub struct Span {
    region: Arc<Region>,
    offset: u64,
    bytes: usize,
}

impl Span {
    pub(super) fn of(region: Arc<Region>, part: &RegionPart) -> Result<Self, Status> {
        let end = part.offset.checked_add(part.bytes);
        let inside = end.is_some_and(|end| end <= region.bytes);
        match usize::try_from(part.bytes) {
            Ok(bytes) if inside => Ok(Self {
                region,
                offset: part.offset,
                bytes,
            }),
            _ => Err(Status::invalid(format!(
                "{} bytes at offset {} are not inside shared memory region {:?}, which has {}",
                part.bytes, part.offset, region.name, region.bytes
            ))),
        }
    }

    /// How long it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// A copy of what is in it now.
    pub fn read(&self) -> Result<Bytes, Status> {
        let read = match &self.region.memory {
            RegionMemory::System { offset, file, .. } => {
                files::read(file, offset.saturating_add(self.offset), self.bytes)
            }
            RegionMemory::Cuda { memory, .. } => memory
                .read(self.start(), self.bytes)
                .map_err(|error| error.to_string()),
        };
        read.map(Bytes::from).map_err(|reason| self.failed(&reason))
    }

    /// Puts `data` at its beginning, or nothing if that is too long.
    pub fn write(&self, data: &[u8]) -> Result<(), Status> {
        if data.len() > self.bytes {
            return Err(Status::invalid(format!(
                "it has {} bytes where shared_memory_byte_size leaves room for {} in region {:?}",
                data.len(),
                self.bytes,
                self.region.name
            )));
        }
        let written = match &self.region.memory {
            RegionMemory::System { offset, file, .. } => {
                files::write(file, offset.saturating_add(self.offset), data)
            }
            RegionMemory::Cuda { memory, .. } => memory
                .write(self.start(), data)
                .map_err(|error| error.to_string()),
        };
        written.map_err(|reason| self.failed(&reason))
    }

    // Inside the region, whose length fitted.
    fn start(&self) -> usize {
        usize::try_from(self.offset).unwrap_or(usize::MAX)
    }

    /// What happens to a file is the client's doing; what happens to a GPU is not.
    fn failed(&self, reason: &str) -> Status {
        let message = format!("shared memory region {:?}: {reason}", self.region.name);
        match self.region.kind() {
            RegionKind::System => Status::invalid(message),
            RegionKind::Cuda => Status::unavailable(message),
        }
    }
}
