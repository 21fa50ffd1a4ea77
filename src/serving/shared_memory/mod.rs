//! Regions of memory that clients share with the server, by name: bounded, checked, copied from and to.
//! Uses `device` for memory of GPUs.
//! Never maps a client's file: what the client does to it meanwhile is an error, not a signal.

mod files;
mod region;

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use region::{Region, RegionKind, RegionMemory, RegionPart, Span};

use crate::device::{CudaIpcMemory, Inventory};
use crate::model::SharedMemoryPolicy;
use crate::status::{Code, Status};
use files::Files;

/// Longest name of a region, in bytes.
const LONGEST_NAME: usize = 255;

/// Every region that is registered. They stay until they are unregistered.
#[derive(Debug)]
pub struct SharedMemory {
    policy: SharedMemoryPolicy,
    files: Option<Files>,
    inventory: Arc<Inventory>,
    regions: Mutex<BTreeMap<String, Arc<Region>>>,
}

impl SharedMemory {
    /// No region yet; fails if the prefix is in no folder that can be opened.
    pub fn open(policy: SharedMemoryPolicy, inventory: Arc<Inventory>) -> std::io::Result<Self> {
        let files = policy.prefix.as_deref().map(Files::open).transpose()?;
        Ok(Self {
            policy,
            files,
            inventory,
            regions: Mutex::default(),
        })
    }

    /// Makes `bytes` from `offset` of the file that `key` names known as `name`.
    pub fn register_system(
        &self,
        name: &str,
        key: &str,
        offset: u64,
        bytes: u64,
    ) -> Result<(), Status> {
        let about = |status: Status| status.about(format_args!("shared memory region {name:?}"));
        let files = self.files.as_ref().ok_or_else(|| {
            off("system shared memory is off; --shared-memory-prefix says where its files may lie")
        });
        let file = files.and_then(|files| files.file(key, offset, bytes));
        let memory = file.map(|file: File| RegionMemory::System {
            key: key.to_owned(),
            offset,
            file,
        });
        let region = memory.map(|memory| Region::new(name, bytes, memory));
        region.and_then(|region| self.add(region)).map_err(about)
    }

    /// Makes `bytes` of memory of a GPU, which another process has given `handle` of, known as `name`.
    pub fn register_cuda(
        &self,
        name: &str,
        handle: &[u8],
        device: i64,
        bytes: u64,
    ) -> Result<(), Status> {
        let about = |status: Status| status.about(format_args!("shared memory region {name:?}"));
        let memory = self.cuda_memory(handle, device, bytes).map_err(about)?;
        let region = Region::new(name, bytes, RegionMemory::Cuda { device, memory });
        self.add(region).map_err(about)
    }

    fn cuda_memory(&self, handle: &[u8], device: i64, bytes: u64) -> Result<CudaIpcMemory, Status> {
        if let Some(absence) = self.inventory.cuda_absence() {
            return Err(off(&format!("there is no CUDA device here: {absence}")));
        }
        if !self.policy.cuda {
            return Err(off(
                "CUDA shared memory is off; --cuda-shared-memory true offers it",
            ));
        }
        let number = u32::try_from(device)
            .map_err(|_| Status::invalid(format!("device_id {device}: GPUs count from 0")))?;
        let length = usize::try_from(bytes)
            .map_err(|_| Status::invalid(format!("byte_size {bytes} cannot be addressed")))?;
        CudaIpcMemory::open(number, handle, length)
            .map_err(|error| Status::invalid(error.to_string()))
    }

    fn add(&self, region: Region) -> Result<(), Status> {
        if region.name.is_empty() || region.name.len() > LONGEST_NAME {
            return Err(Status::invalid(format!(
                "a name has 1 to {LONGEST_NAME} bytes"
            )));
        }
        if region.bytes == 0 {
            return Err(Status::invalid("byte_size is 0; a region has at least 1"));
        }
        let mut regions = self.lock();
        if regions.contains_key(&region.name) {
            return Err(off("it is registered already; unregister it first"));
        }
        if regions.len() >= self.policy.max_regions {
            return Err(full(format!(
                "{} regions are registered (max_shared_memory_regions)",
                regions.len()
            )));
        }
        let taken: u64 = regions.values().map(|region| region.bytes).sum();
        if region.bytes > self.policy.max_bytes.saturating_sub(taken) {
            return Err(full(format!(
                "it has {} bytes, and of {} (max_shared_memory_bytes) {taken} are taken",
                region.bytes, self.policy.max_bytes
            )));
        }
        regions.insert(region.name.clone(), Arc::new(region));
        Ok(())
    }

    /// Forgets the region of this name, or every one of its kind if the name is empty. Requests that
    /// have begun keep what they use.
    pub fn unregister(&self, kind: RegionKind, name: &str) {
        let forgotten =
            |region: &Region| region.kind() == kind && (name.is_empty() || name == region.name);
        self.lock().retain(|_, region| !forgotten(region));
    }

    /// The region of this name, or every one of its kind if the name is empty, by name.
    pub fn regions(&self, kind: RegionKind, name: &str) -> Result<Vec<Arc<Region>>, Status> {
        let regions = self.lock();
        let asked = regions
            .values()
            .filter(|region| region.kind() == kind && (name.is_empty() || name == region.name));
        let found: Vec<Arc<Region>> = asked.cloned().collect();
        if found.is_empty() && !name.is_empty() {
            return Err(unknown(name));
        }
        Ok(found)
    }

    /// A part of a region, which stays usable however long it is held.
    pub fn span(&self, part: &RegionPart) -> Result<Span, Status> {
        let found = self.lock().get(&part.region).cloned();
        let region = found.ok_or_else(|| unknown(&part.region))?;
        Span::of(region, part)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Region>>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unknown(name: &str) -> Status {
    // A name can be as long as the message that brought it.
    let name: String = name.chars().take(64).collect();
    Status::not_found(format!(
        "there is no shared memory region {name:?}; register it first"
    ))
}

fn off(why: &str) -> Status {
    Status::new(Code::FailedPrecondition, why)
}

/// Room comes when a client unregisters, not with time.
fn full(why: String) -> Status {
    Status::new(Code::ResourceExhausted, why)
}

#[cfg(test)]
mod tests;
