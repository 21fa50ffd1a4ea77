//! The folder in which one server keeps what came with loads, gone when the server is.

use std::fs::{self, DirBuilder, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// How such folders are called, before what tells them apart: process ids come again, in containers always.
const PREFIX: &str = "jitney-uploads-";
/// Names that are tried. One is taken when a server that starts just then finds it not locked yet.
const TRIES: usize = 10;

/// A folder that nobody else may look into. The lock on it tells others that its server lives, and
/// systemd-tmpfiles to leave it alone.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    _alive: File,
}

impl Root {
    /// A new one in `parent`.
    pub(super) fn make(parent: &Path) -> io::Result<Self> {
        for _ in 0..TRIES {
            let number = RandomState::new().build_hasher().finish();
            let path = parent.join(format!("{PREFIX}{number:016x}"));
            match private_folder(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                made => made?,
            }
            match locked(&path) {
                Err(error) if is_cleared(&error) => {}
                Err(error) => {
                    let _ = fs::remove_dir(&path);
                    return Err(error);
                }
                Ok(_alive) => return Ok(Self { path, _alive }),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        // What is left is cleared by the next server.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The lock on a folder that is still there once it is locked.
fn locked(path: &Path) -> io::Result<File> {
    let folder = File::open(path)?;
    folder.try_lock()?;
    let (own, there) = (folder.metadata()?, fs::symlink_metadata(path)?);
    match (own.dev(), own.ino()) == (there.dev(), there.ino()) {
        true => Ok(folder),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Whether a new folder could not be locked because another server takes it for one that was left.
fn is_cleared(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::WouldBlock
    )
}

/// Makes a folder for this user alone.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Removes the folders in `parent` whose servers are gone, as far as they can be removed.
pub(super) fn clear_abandoned(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_one = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        if !is_one || !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        // The lock is held until all of it is gone.
        if let Ok(_lock) = locked(&path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => {
                    tracing::info!(path = %path.display(), "removed what a server that was killed left of loads")
                }
                Err(error) => {
                    tracing::warn!(path = %path.display(), "a server that was killed left files of loads: {error}")
                }
            }
        }
    }
}
