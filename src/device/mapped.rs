//! Memory of the host that another process maps, too, so that tensors reach it without a copy.
//!
//! Each piece is a file without a name (`memfd_create(2)`), sealed by its maker: nobody can change its
//! length, so that no access faults, and nobody else can map it to write.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{
    MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::host::resident_bytes;
use super::{Device, DeviceError, DeviceId, HostMemory, Memory, SharedDevice};

/// A file without a name, in the memory of this process.
pub struct Mapping {
    id: u64,
    /// For as long as others may have to be given it: the memory itself needs none.
    file: Option<OwnedFd>,
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: a mapping belongs to the process, not to a thread; who may read or write it is settled by
// those that own it, `MappedMemory` and `MappedBytes`.
unsafe impl Send for Mapping {}
// SAFETY: a shared one gives its file and its place, and no access.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: impl AsFd, length: usize, protection: ProtFlags) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // SAFETY: a new mapping, at a place that the kernel chooses, replaces none.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                file,
                0,
            )
        }?;
        let start = NonNull::new(start.cast());
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            file: None,
            start: start.ok_or(io::ErrorKind::OutOfMemory)?,
            length,
        })
    }

    /// A number that no other mapping of this process has had.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What another process has to be given to map it, until that was taken.
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    fn offset_of(&self, data: &[u8]) -> Option<usize> {
        let offset = (data.as_ptr() as usize).checked_sub(self.start.as_ptr() as usize)?;
        (offset.checked_add(data.len())? <= self.length).then_some(offset)
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "mapping {} of {} bytes", self.id, self.length)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped with this length, and whoever had access to it owned it.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.length) };
    }
}

/// Memory that this process writes and another reads.
#[derive(Debug)]
pub struct MappedMemory(Arc<Mapping>);

impl MappedMemory {
    /// At least `bytes` zeros, aligned to a page.
    pub fn zeroed(bytes: usize) -> io::Result<Self> {
        let length = bytes.max(1);
        let file = memfd_create("jitney", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&file, length as u64)?;
        let mut mapping = Mapping::new(&file, length, ProtFlags::READ | ProtFlags::WRITE)?;
        // From here on nobody maps it to write; this mapping stays as it is.
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&file, seals)?;
        mapping.file = Some(file);
        Ok(Self(Arc::new(mapping)))
    }

    /// Takes the file, for the one process that is to have it, so that this one holds no descriptor for
    /// memory that waits to be read. Nothing if it was taken, or if others hold the mapping.
    pub fn take_file(&mut self) -> Option<OwnedFd> {
        Arc::get_mut(&mut self.0)?.file.take()
    }

    /// Where it is, for others.
    pub fn mapping(&self) -> &Arc<Mapping> {
        &self.0
    }
}

impl HostMemory for MappedMemory {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: it is mapped to be read and written for as long as `self` is; nobody else in this
        // process has access, and no other process can write it.
        unsafe { std::slice::from_raw_parts_mut(self.0.start.as_ptr(), self.0.length) }
    }

    fn as_slice(&self) -> &[u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

/// Memory that another process writes and this one reads.
#[derive(Debug)]
pub struct MappedBytes(Mapping);

impl MappedBytes {
    /// Maps what another process has made; refuses a file whose length could change. The file is closed:
    /// there may be more such memory than a process may have files.
    pub fn open(file: OwnedFd) -> io::Result<Self> {
        let fixed = SealFlags::SHRINK | SealFlags::GROW;
        if !fcntl_get_seals(&file)?.contains(fixed) {
            return Err(io::Error::other("memory whose length is not sealed"));
        }
        let length = usize::try_from(fstat(&file)?.st_size).unwrap_or(0);
        Ok(Self(Mapping::new(&file, length, ProtFlags::READ)?))
    }
}

impl AsRef<[u8]> for MappedBytes {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: it is mapped to be read for as long as `self` is, and its file cannot shrink. Whoever
        // writes it does so before it says what is in it. One that lies changes numbers that are handed
        // on as they are, and lengths that are checked where they are used.
        unsafe { std::slice::from_raw_parts(self.0.start.as_ptr(), self.0.length) }
    }
}

/// What a device has handed out, by where it begins.
type HandedOut = Mutex<BTreeMap<usize, Arc<Mapping>>>;

/// A process that maps this memory, and takes some of its own.
#[derive(Debug)]
pub struct Neighbour(u32);

/// A device whose staging memory other processes can map.
#[derive(Debug)]
pub struct MappedDevice {
    device: SharedDevice,
    handed_out: Arc<HandedOut>,
    neighbours: Mutex<Vec<Weak<Neighbour>>>,
}

impl MappedDevice {
    /// This device, with such memory.
    pub fn new(device: SharedDevice) -> Self {
        Self {
            device,
            handed_out: Arc::default(),
            neighbours: Mutex::default(),
        }
    }

    /// What this process takes is taken from here on, until what comes back is dropped.
    pub fn count(&self, process: u32) -> Arc<Neighbour> {
        let neighbour = Arc::new(Neighbour(process));
        self.neighbours().push(Arc::downgrade(&neighbour));
        neighbour
    }

    fn neighbours(&self) -> MutexGuard<'_, Vec<Weak<Neighbour>>> {
        let mut neighbours = lock(&self.neighbours);
        neighbours.retain(|neighbour| neighbour.strong_count() > 0);
        neighbours
    }

    /// Where these bytes are for another process, if they lie in such memory.
    pub fn place(&self, data: &[u8]) -> Option<(Arc<Mapping>, usize)> {
        let handed_out = lock(&self.handed_out);
        let up_to = handed_out.range(..=data.as_ptr() as usize);
        let (_, mapping) = up_to.last()?;
        let offset = mapping.offset_of(data)?;
        Some((Arc::clone(mapping), offset))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device for MappedDevice {
    fn id(&self) -> DeviceId {
        self.device.id()
    }

    fn name(&self) -> &str {
        self.device.name()
    }

    fn uuid(&self) -> Option<String> {
        self.device.uuid()
    }

    fn memory(&self) -> Result<Memory, DeviceError> {
        self.device.memory()
    }

    fn taken_bytes(&self) -> u64 {
        let own = self.device.taken_bytes();
        match self.id() {
            DeviceId::Cpu => {
                let neighbours = self.neighbours();
                let there = neighbours.iter().filter_map(Weak::upgrade);
                let bytes = there.map(|neighbour| resident_bytes(neighbour.0));
                bytes.fold(own, u64::saturating_add)
            }
            // Of a GPU the driver knows what everybody has.
            DeviceId::Cuda(_) | DeviceId::Simulated(_) => own,
        }
    }

    fn staging(&self, bytes: usize) -> Result<Box<dyn HostMemory>, DeviceError> {
        let memory = MappedMemory::zeroed(bytes).map_err(|error| DeviceError {
            device: self.id(),
            reason: format!("no memory to share: {error}"),
        })?;
        let mapping = Arc::clone(memory.mapping());
        let start = mapping.start.as_ptr() as usize;
        lock(&self.handed_out).insert(start, mapping);
        Ok(Box::new(Staging {
            memory,
            start,
            handed_out: Arc::clone(&self.handed_out),
        }))
    }
}

/// Memory that is known to its device for as long as it is there.
struct Staging {
    memory: MappedMemory,
    start: usize,
    handed_out: Arc<HandedOut>,
}

impl HostMemory for Staging {
    fn as_mut_slice(&mut self) -> &mut [u8] {
        self.memory.as_mut_slice()
    }

    fn as_slice(&self) -> &[u8] {
        self.memory.as_slice()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        lock(&self.handed_out).remove(&self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{HostDevice, SimulatedDevices};

    fn file_of(mapping: &Mapping) -> OwnedFd {
        mapping.file().unwrap().try_clone_to_owned().unwrap()
    }

    #[test]
    fn what_one_writes_the_other_reads() {
        let mut memory = MappedMemory::zeroed(5_000).unwrap();
        let bytes = MappedBytes::open(file_of(memory.mapping())).unwrap();
        memory.as_mut_slice()[4_999] = 7;
        assert_eq!(bytes.as_ref().len(), 5_000);
        assert_eq!(bytes.as_ref()[4_999], 7);
    }

    #[test]
    fn memory_needs_no_file() {
        let mut memory = MappedMemory::zeroed(5_000).unwrap();
        let file = memory.take_file().unwrap();
        assert!(memory.take_file().is_none() && memory.mapping().file().is_none());
        let bytes = MappedBytes::open(file).unwrap();
        assert!(bytes.0.file().is_none());
        memory.as_mut_slice()[4_999] = 7;
        assert_eq!(bytes.as_ref()[4_999], 7);
    }

    #[test]
    fn nobody_else_writes_it_or_changes_its_length() {
        let memory = MappedMemory::zeroed(10).unwrap();
        let file = file_of(memory.mapping());
        assert!(ftruncate(&file, 0).is_err());
        assert!(rustix::io::write(&file, b"x").is_err());
        assert!(Mapping::new(&file, 10, ProtFlags::READ | ProtFlags::WRITE).is_err());
    }

    #[test]
    fn what_could_shrink_is_refused() {
        let file = memfd_create("t", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&file, 10).unwrap();
        assert!(MappedBytes::open(file).is_err());
    }

    #[test]
    fn staging_memory_is_found_until_it_is_dropped() {
        let device = MappedDevice::new(SimulatedDevices::default().get(0));
        let memory = device.staging(64).unwrap();
        let other = device.staging(64).unwrap();
        let (mapping, offset) = device.place(&memory.as_slice()[16..48]).unwrap();
        assert_eq!((offset, mapping.length), (16, 64));
        assert_ne!(device.place(other.as_slice()).unwrap().0.id(), mapping.id());
        assert!(device.place(&[0; 8]).is_none());
        let (start, length) = (memory.as_slice().as_ptr(), memory.as_slice().len());
        drop(memory);
        assert!(lock(&device.handed_out).get(&(start as usize)).is_none());
        assert_eq!((length, lock(&device.handed_out).len()), (64, 1));
    }

    #[test]
    fn a_process_counts_for_as_long_as_somebody_wants_it_to() {
        let host = MappedDevice::new(Arc::new(HostDevice::detect()));
        let itself = host.count(std::process::id());
        let with = host.taken_bytes();
        // Twice now: other tests take memory meanwhile, and hardly as much as this process has.
        assert!(with > resident_bytes(std::process::id()) * 3 / 2);
        drop(itself);
        assert!(host.neighbours().is_empty());
        assert_eq!(resident_bytes(u32::MAX), 0);
    }
}
