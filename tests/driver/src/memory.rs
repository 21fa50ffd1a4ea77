//! The GPUs' memory: a file an allocation, named for the GPU and the process that has it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// One allocation, and what it is named by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) device: u32,
    pub(crate) process: u32,
    pub(crate) number: u64,
}

/// The bytes that a handle of this driver begins with.
const MARK: &[u8; 8] = b"jitneyIP";

impl Name {
    /// Where it is.
    pub(crate) fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.{}.{}", self.device, self.process, self.number))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let name = Self {
            device: parts.next()?.parse().ok()?,
            process: parts.next()?.parse().ok()?,
            number: parts.next()?.parse().ok()?,
        };
        parts.next().is_none().then_some(name)
    }

    /// As 64 bytes for other processes.
    pub(crate) fn handle(self) -> [u8; 64] {
        let mut handle = [0; 64];
        let text = format!("{}.{}.{}", self.device, self.process, self.number);
        let parts = MARK.iter().chain(text.as_bytes());
        for (place, byte) in handle.iter_mut().zip(parts) {
            *place = *byte;
        }
        handle
    }

    /// What a handle stands for, if it is one of this driver's.
    pub(crate) fn of_handle(handle: &[u8; 64]) -> Option<Self> {
        let text = handle.strip_prefix(MARK)?;
        let text = text.split(|byte| *byte == 0).next()?;
        Self::parse(std::str::from_utf8(text).ok()?)
    }

    /// Makes it: so many zeros, which take no room until they are written.
    pub(crate) fn allocate(self, folder: &Path, bytes: u64) -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(self.path(folder))?;
        file.set_len(bytes)?;
        Ok(file)
    }

    /// Opens what another has made.
    pub(crate) fn open(self, folder: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.path(folder))
    }
}

/// Bytes that processes have of a GPU; a process that has ended has none.
pub(crate) fn used(folder: &Path, device: u32) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut used = 0;
    for entry in entries {
        let name = Name::parse(&entry.file_name().to_string_lossy());
        let Some(name) = name.filter(|name| name.device == device) else {
            continue;
        };
        if Path::new("/proc").join(name.process.to_string()).exists() {
            used += entry.metadata().map_or(0, |about| about.len());
        } else {
            let _ = fs::remove_file(entry.path());
        }
    }
    used
}
