//! The driver as a test installs it.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::control::{FILE, FOLDER};
use crate::memory::Name;

/// The driver in a folder of its own.
pub struct Installed {
    folder: PathBuf,
    /// None for a process under the driver, which is not to remove it.
    _owned: Option<TempDir>,
}

impl Installed {
    /// Installs the driver that was built beside the program that runs, with these lines of `control`.
    pub fn new(control: &str) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let built = program.with_file_name("libjitney_driver.so");
        fs::metadata(&built)?;
        let owned = tempfile::tempdir()?;
        symlink(built, owned.path().join("libcuda.so.1"))?;
        let installed = Self {
            folder: owned.path().to_owned(),
            _owned: Some(owned),
        };
        installed.set(control)?;
        Ok(installed)
    }

    /// The one under which this process runs, if it does.
    pub fn here() -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os(FOLDER)?);
        Some(Self {
            folder,
            _owned: None,
        })
    }

    /// Changes what the driver is like, in every process that has it.
    pub fn set(&self, control: &str) -> io::Result<()> {
        // Whole at every moment.
        let written = self.folder.join("control.new");
        fs::write(&written, control)?;
        fs::rename(written, self.folder.join(FILE))
    }

    /// A program that finds this driver where it looks for NVIDIA's.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env("LD_LIBRARY_PATH", &self.folder)
            .env(FOLDER, &self.folder);
        command
    }

    /// Memory of GPU `device` with these bytes, as if the process that started this one had allocated it
    /// and given this one a handle.
    pub fn share(&self, device: u32, number: u64, bytes: &[u8]) -> io::Result<Shared> {
        let name = Name {
            device,
            process: parent_id(),
            number,
        };
        name.allocate(&self.folder, bytes.len() as u64)?;
        let path = name.path(&self.folder);
        fs::write(&path, bytes)?;
        Ok(Shared {
            handle: name.handle(),
            path,
        })
    }
}

/// Memory of a GPU that another process has allocated.
pub struct Shared {
    /// What it is opened by.
    pub handle: [u8; 64],
    path: PathBuf,
}

impl Shared {
    /// What is in it now.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        fs::read(&self.path)
    }
}
