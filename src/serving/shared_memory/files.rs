//! Files of system shared memory: opened by name in one folder, read and written where they are.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, pread};

use crate::status::Status;

/// The only files that may be registered: those of one folder whose names begin as is said.
#[derive(Debug)]
pub(super) struct Files {
    folder_path: PathBuf,
    folder: OwnedFd,
    start: String,
}

impl Files {
    /// A folder, or a folder and how names in it begin: `/dev/shm/jitney-`.
    pub(super) fn open(prefix: &Path) -> std::io::Result<Self> {
        let (folder, start) = match (prefix.parent(), prefix.file_name()) {
            (Some(parent), Some(start)) if !prefix.is_dir() => (parent, start.to_string_lossy()),
            _ => (prefix, "".into()),
        };
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            folder: openat(CWD, folder, flags, Mode::empty())?,
            folder_path: folder.to_owned(),
            start: start.into_owned(),
        })
    }

    /// The file that a key names, which has `bytes` from `offset`.
    pub(super) fn file(&self, key: &str, offset: u64, bytes: u64) -> Result<File, Status> {
        let name = self.name(key)?;
        let wrong = |why: &str| Status::invalid(format!("key {key:?}: {why}"));
        // A pipe must not be waited for.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let opened = openat(&self.folder, name, flags, Mode::empty());
        let file = File::from(opened.map_err(|error| match error {
            Errno::LOOP => wrong("it is a link, and links are not followed"),
            error => wrong(&std::io::Error::from(error).to_string()),
        })?);
        let about = file.metadata().map_err(|error| wrong(&error.to_string()))?;
        if !about.is_file() {
            return Err(wrong("it is not a file"));
        }
        let end = offset.checked_add(bytes);
        if end.is_none_or(|end| end > about.len()) {
            return Err(wrong(&format!(
                "{bytes} bytes at offset {offset} are not inside it; it has {}",
                about.len()
            )));
        }
        Ok(file)
    }

    /// The name in the folder: keys are those of `shm_open`, a name with or without one slash before.
    fn name<'a>(&self, key: &'a str) -> Result<&'a str, Status> {
        let name = key.strip_prefix('/').unwrap_or(key);
        let single = !name.is_empty() && name != "." && name != ".." && !name.contains('/');
        if single && name.starts_with(&self.start) && name.len() <= 255 {
            return Ok(name);
        }
        let key: String = key.chars().take(64).collect();
        let folder = self.folder_path.display();
        Err(Status::invalid(format!(
            "key {key:?} is not allowed: it has to be the name of a file in {folder}, without folders in \
             it{} (shared_memory_prefix)",
            match self.start.as_str() {
                "" => String::new(),
                start => format!(", that begins with {start:?}"),
            }
        )))
    }
}

/// What is in the file there; the file may have become shorter since it was registered.
pub(super) fn read(file: &File, offset: u64, bytes: usize) -> Result<Vec<u8>, String> {
    // Not zeroed first: that would cost as much again.
    let mut data = Vec::with_capacity(bytes);
    while data.len() < bytes {
        let at = offset.saturating_add(data.len() as u64);
        match pread(file, spare_capacity(&mut data), at) {
            Ok(0) => return Err(shorter(file)),
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).to_string()),
        }
    }
    // The allocator may have given more room than was asked for.
    data.truncate(bytes);
    Ok(data)
}

/// Overwrites what is in the file there, and never makes it longer on purpose.
pub(super) fn write(file: &File, offset: u64, data: &[u8]) -> Result<(), String> {
    let end = offset.checked_add(data.len() as u64);
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    if end.is_none_or(|end| end > length) {
        return Err(shorter(file));
    }
    file.write_all_at(data, offset)
        .map_err(|error| error.to_string())
}

fn shorter(file: &File) -> String {
    let length = file.metadata().map_or(0, |about| about.len());
    format!("its file has become shorter since it was registered; it has {length} bytes")
}
