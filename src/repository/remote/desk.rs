//! Where one server makes ready what it puts into the cache, gone when the server is.

use std::fs::{self, File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{RemoteError, at};

/// A folder of this server's own in the cache. The lock on its file tells others that it lives.
#[derive(Debug)]
pub(super) struct Desk {
    folder: PathBuf,
    lock: PathBuf,
    _alive: File,
    next: AtomicU64,
}

impl Desk {
    /// A new desk below `desks`; those of servers that are gone are cleared.
    ///
    /// Called with the cache's lock held, or a desk could be cleared while it is set up.
    pub(super) fn set_up(desks: &Path) -> Result<Self, RemoteError> {
        clear_abandoned(desks)?;
        let number = RandomState::new().build_hasher().finish();
        let folder = desks.join(format!("{}-{number:016x}", std::process::id()));
        let lock = folder.with_extension("lock");
        let alive = File::create_new(&lock).map_err(at(&lock))?;
        alive.lock().map_err(at(&lock))?;
        fs::create_dir(&folder).map_err(at(&folder))?;
        Ok(Self {
            folder,
            lock,
            _alive: alive,
            next: AtomicU64::default(),
        })
    }

    /// A place for a file or folder, which goes when it is dropped.
    pub(super) fn place(self: &Arc<Self>) -> Place {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        Place {
            path: self.folder.join(number.to_string()),
            _desk: Arc::clone(self),
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        // What is left is cleared by the next server.
        let _ = fs::remove_dir_all(&self.folder);
        let _ = fs::remove_file(&self.lock);
    }
}

/// A path on the desk. What is there goes when this does.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    _desk: Arc<Desk>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.path.is_dir() {
            let _ = fs::remove_dir_all(&self.path);
        } else {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn clear_abandoned(desks: &Path) -> Result<(), RemoteError> {
    for entry in fs::read_dir(desks).map_err(at(desks))? {
        let path = entry.map_err(at(desks))?.path();
        if path.extension().is_none_or(|extension| extension != "lock") {
            continue;
        }
        let lock = match File::open(&path) {
            Ok(lock) => lock,
            // A server that ends takes its desk with it, and needs no lock for that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(at(&path)(error)),
        };
        if !matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            let _ = fs::remove_dir_all(path.with_extension(""));
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}
