//! Files of models on this machine, keyed by their content, for one server or several.
//!
//! ```text
//! lock             held for a moment by whoever changes what is below
//! objects/DIGEST   contents, by their SHA-256
//! views/DIGEST/M/  model M as a folder, of hard links to objects; never changed once it is there
//! views/DIGEST.lock  locked by every server that uses the view; its time is that of the last use
//! desks/SERVER/    what a server is fetching, at its full length, so that it counts
//! repositories/    what was taken from which store, to tell again what is there
//! ```
//!
//! Whatever is made ready is renamed into place, so that a crash leaves nothing that is taken for whole.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use super::desk::{Desk, Place};
use super::digest::{Digest, of_file, of_text};
use super::error::{RemoteError, at};
use crate::clock::Clock;

/// Others hold the lock while they look through the cache, which takes no longer.
const PATIENCE: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_millis(10);

/// A model as a folder that stays as it is for as long as this lives.
#[derive(Debug)]
pub(super) struct View {
    /// The model's folder, of the model's name.
    pub(super) folder: PathBuf,
    /// Keeps the folder where it is, for whoever holds a copy.
    pub(super) lease: Arc<File>,
}

/// A file of a view before the view is there.
#[derive(Clone, Debug)]
pub(super) struct Made {
    /// Its path below the model's folder.
    pub(super) path: String,
    pub(super) digest: Digest,
    /// Where it lies until then.
    pub(super) place: Arc<Place>,
}

/// The right to change the cache, until it is dropped.
#[derive(Debug)]
pub(super) struct Guard {
    _lock: File,
}

/// The cache of one server; others may have theirs in the same folder.
#[derive(Debug)]
pub(super) struct Cache {
    root: PathBuf,
    limit: u64,
    /// Not there before the lock could be had.
    desk: OnceLock<Arc<Desk>>,
    /// Contents that this process has seen to be what they are called.
    trusted: Mutex<HashSet<Digest>>,
}

impl Cache {
    /// The cache in `root`, which is made if it is not there, of up to `limit` bytes. Waits for nobody:
    /// while another server holds the lock, [`Self::set_up`] is still to be called.
    pub(super) fn open(root: &Path, limit: u64) -> Result<Self, RemoteError> {
        for folder in ["objects", "views", "desks", "repositories"] {
            let folder = root.join(folder);
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(&folder).map_err(at(&folder))?;
        }
        let path = root.join("lock");
        let lock = open_lock(&path)?;
        let cache = Self {
            root: root.to_owned(),
            limit,
            desk: OnceLock::new(),
            trusted: Mutex::default(),
        };
        match lock.try_lock() {
            Ok(()) => cache.set_up(&Guard { _lock: lock })?,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(source)) => return Err(at(&path)(source)),
        }
        Ok(cache)
    }

    /// Whether there is nothing to be set up.
    pub(super) fn is_set_up(&self) -> bool {
        self.desk.get().is_some()
    }

    /// Makes this server's desk, unless it is there.
    pub(super) fn set_up(&self, _: &Guard) -> Result<(), RemoteError> {
        if !self.is_set_up() {
            let desk = Desk::set_up(&self.root.join("desks"))?;
            // Nobody else has the guard.
            let _ = self.desk.set(Arc::new(desk));
        }
        Ok(())
    }

    fn place(&self) -> Result<Place, RemoteError> {
        let desk = self.desk.get().ok_or_else(|| self.held())?;
        Ok(desk.place())
    }

    fn held(&self) -> RemoteError {
        RemoteError::Held {
            path: self.root.clone(),
            seconds: PATIENCE.as_secs(),
        }
    }

    /// Where the file is that says what was taken of a store's model.
    pub(super) fn record(&self, url: &str) -> PathBuf {
        let name = of_text(url);
        self.root.join("repositories").join(name.as_str())
    }

    /// Waits for the right to change the cache.
    pub(super) async fn enter(&self, clock: &dyn Clock) -> Result<Guard, RemoteError> {
        let path = self.root.join("lock");
        let lock = open_lock(&path)?;
        let patience = clock.now() + PATIENCE;
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Guard { _lock: lock }),
                Err(TryLockError::Error(source)) => return Err(at(&path)(source)),
                Err(TryLockError::WouldBlock) if clock.now() >= patience => {
                    return Err(self.held());
                }
                Err(TryLockError::WouldBlock) => {
                    clock.sleep_until(clock.now() + BETWEEN_TRIES).await;
                }
            }
        }
    }

    /// A place on the desk with the content `digest`, if the cache has it; what is not what it is
    /// called is thrown away.
    ///
    /// The link keeps the content from being evicted meanwhile. The first time that this process
    /// asks for a content it is read through.
    pub(super) fn find(&self, digest: &Digest) -> Result<Option<Arc<Place>>, RemoteError> {
        let object = self.object(digest);
        let place = self.place()?;
        match fs::hard_link(&object, &place.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(at(&object)(error)),
        }
        if self.trusted().contains(digest) {
            return Ok(Some(Arc::new(place)));
        }
        if of_file(&place.path).map_err(at(&object))? != *digest {
            tracing::error!(path = %object.display(), "not what was put into the cache; thrown away");
            fs::remove_file(&object).map_err(at(&object))?;
            return Ok(None);
        }
        self.trusted().insert(digest.clone());
        Ok(Some(Arc::new(place)))
    }

    /// Places on the desk for files of these sizes, with room made for them.
    pub(super) fn reserve(&self, _: &Guard, sizes: &[u64]) -> Result<Vec<Place>, RemoteError> {
        let needed = sizes
            .iter()
            .fold(0, |sum: u64, size| sum.saturating_add(*size));
        self.make_room(needed)?;
        let places = sizes.iter().map(|size| {
            let place = self.place()?;
            let file = File::create_new(&place.path).map_err(at(&place.path))?;
            file.set_len(*size).map_err(at(&place.path))?;
            Ok(place)
        });
        places.collect()
    }

    /// A place on the desk for a file that is renamed from there.
    pub(super) fn draft(&self) -> Result<Place, RemoteError> {
        self.place()
    }

    /// A folder on the desk with these files in it, as `model` sees them.
    pub(super) fn lay_out(
        &self,
        model: &str,
        files: &[Made],
        folders: &[u64],
    ) -> Result<Place, RemoteError> {
        let place = self.place()?;
        let root = place.path.join(model);
        fs::create_dir_all(&root).map_err(at(&root))?;
        for folder in folders {
            let path = root.join(folder.to_string());
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        for file in files {
            let path = root.join(&file.path);
            let folder = path.parent().unwrap_or(&root);
            fs::create_dir_all(folder).map_err(at(folder))?;
            fs::hard_link(&file.place.path, &path).map_err(at(&path))?;
        }
        Ok(place)
    }

    /// Puts these files into the cache and makes a view of them, and of folders for versions that
    /// are not in it.
    pub(super) fn put(
        &self,
        _: &Guard,
        model: &str,
        mut files: Vec<Made>,
        folders: &[u64],
    ) -> Result<View, RemoteError> {
        files.sort_by(|one, other| one.path.cmp(&other.path));
        for file in &mut files {
            self.put_object(file)?;
        }
        sync(&self.root.join("objects"))?;
        let name = view_name(model, &files, folders);
        let views = self.root.join("views");
        let path = views.join(name.as_str());
        let lease = lease(&views.join(format!("{}.lock", name.as_str())))?;
        if !self.is_intact(&path.join(model), &files) {
            let _ = fs::remove_dir_all(&path);
            let made = self.lay_out(model, &files, folders)?;
            fs::rename(&made.path, &path).map_err(at(&path))?;
            sync(&views)?;
        }
        Ok(View {
            folder: path.join(model),
            lease: Arc::new(lease),
        })
    }

    // If two servers fetched the same, the first one's stays.
    fn put_object(&self, file: &mut Made) -> Result<(), RemoteError> {
        let object = self.object(&file.digest);
        match fs::hard_link(&file.place.path, &object) {
            Ok(()) => {
                // Nothing writes to it by mistake.
                let readable = fs::Permissions::from_mode(0o444);
                fs::set_permissions(&object, readable).map_err(at(&object))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(place) = self.find(&file.digest)? {
                    file.place = place;
                    return Ok(());
                }
                fs::hard_link(&file.place.path, &object).map_err(at(&object))?;
            }
            Err(error) => return Err(at(&object)(error)),
        }
        self.trusted().insert(file.digest.clone());
        Ok(())
    }

    // A view that links to what was since thrown away is not.
    fn is_intact(&self, folder: &Path, files: &[Made]) -> bool {
        let same = |one: &Path, other: &Path| {
            let (one, other) = (fs::metadata(one).ok()?, fs::metadata(other).ok()?);
            Some(one.ino() == other.ino())
        };
        folder.is_dir()
            && files.iter().all(|file| {
                same(&folder.join(&file.path), &self.object(&file.digest)) == Some(true)
            })
    }

    fn make_room(&self, needed: u64) -> Result<(), RemoteError> {
        let fits = |used: u64| used.saturating_add(needed) <= self.limit;
        let mut used = self.used()?;
        if fits(used) {
            return Ok(());
        }
        let mut views = self.unused_views()?.into_iter();
        while !fits(used) {
            self.drop_unlinked()?;
            used = self.used()?;
            if fits(used) {
                break;
            }
            let Some((lock, _locked)) = views.next() else {
                return Err(RemoteError::NoRoom {
                    path: self.root.clone(),
                    needed,
                    used,
                    limit: self.limit,
                });
            };
            tracing::info!(view = %lock.display(), "evicted from the cache");
            let view = lock.with_extension("");
            fs::remove_dir_all(&view)
                .or_else(absent)
                .map_err(at(&view))?;
            fs::remove_file(&lock).map_err(at(&lock))?;
        }
        Ok(())
    }

    /// Bytes of all contents, those that are being fetched among them; each once, however often linked.
    fn used(&self) -> Result<u64, RemoteError> {
        let mut sizes = HashMap::new();
        for folder in ["objects", "desks"] {
            measure(&self.root.join(folder), &mut sizes)?;
        }
        Ok(sizes.values().sum())
    }

    /// Views that no server uses, locked, the longest unused first.
    fn unused_views(&self) -> Result<Vec<(PathBuf, File)>, RemoteError> {
        let mut unused = Vec::new();
        for path in entries(&self.root.join("views"))? {
            if path.extension().is_none_or(|extension| extension != "lock") {
                continue;
            }
            let lock = open_lock(&path)?;
            if lock.try_lock().is_ok() {
                let last_use = fs::metadata(&path).and_then(|about| about.modified()).ok();
                unused.push((last_use, path, lock));
            }
        }
        unused.sort_by_key(|(last_use, ..)| *last_use);
        let unused = unused.into_iter();
        Ok(unused.map(|(_, path, lock)| (path, lock)).collect())
    }

    /// Forgets contents that no view and no desk links to.
    fn drop_unlinked(&self) -> Result<(), RemoteError> {
        // Read through again if it comes back; and so this does not grow for ever.
        self.trusted().clear();
        for path in entries(&self.root.join("objects"))? {
            if fs::metadata(&path).map_err(at(&path))?.nlink() == 1 {
                fs::remove_file(&path).map_err(at(&path))?;
            }
        }
        Ok(())
    }

    fn object(&self, digest: &Digest) -> PathBuf {
        self.root.join("objects").join(digest.as_str())
    }

    fn trusted(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.trusted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_lock(path: &Path) -> Result<File, RemoteError> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false);
    options.open(path).map_err(at(path))
}

// Nobody else waits for it: whoever wants it alone holds the cache's lock.
fn lease(path: &Path) -> Result<File, RemoteError> {
    let mut file = open_lock(path)?;
    file.lock_shared().map_err(at(path))?;
    file.write_all(b"\n").map_err(at(path))?;
    Ok(file)
}

fn view_name(model: &str, files: &[Made], folders: &[u64]) -> Digest {
    let mut text = format!("{model}\n{folders:?}\n");
    for file in files {
        // No path holds a line's end.
        text.push_str(&format!("{} {}\n", file.digest.as_str(), file.path));
    }
    of_text(&text)
}

fn measure(folder: &Path, sizes: &mut HashMap<(u64, u64), u64>) -> Result<(), RemoteError> {
    for path in entries(folder)? {
        match fs::symlink_metadata(&path) {
            Ok(about) if about.is_dir() => measure(&path, sizes)?,
            Ok(about) => drop(sizes.insert((about.dev(), about.ino()), about.len())),
            // Another server's desk changes meanwhile.
            Err(error) => absent(error).map_err(at(&path))?,
        }
    }
    Ok(())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, RemoteError> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => {
            absent(error).map_err(at(folder))?;
            return Ok(Vec::new());
        }
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<Result<_, _>>().map_err(at(folder))
}

fn absent(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn sync(folder: &Path) -> Result<(), RemoteError> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(at(folder))
}

#[cfg(test)]
mod tests;
