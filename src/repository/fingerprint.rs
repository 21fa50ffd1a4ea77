//! What files look like from outside, to tell when they have changed.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::RepositoryError;

/// Deeper folders than this are not looked into; a model has no reason to be there.
pub(super) const MOST_DEPTH: usize = 8;

/// Names, sizes and times of all files below a folder; of objects also what the store calls them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Mark>);

/// A path below the model's folder, a size, a time, and a store's name for the content.
type Mark = (PathBuf, u64, Option<SystemTime>, Option<String>);

impl Fingerprint {
    /// Looks at every file at or below `path` in `folder`; what is not there leaves no mark.
    pub fn of(folder: &Path, path: &Path) -> Result<Self, RepositoryError> {
        let mut fingerprint = Self::default();
        fingerprint.add(folder, &folder.join(path), 0)?;
        fingerprint.0.sort();
        Ok(fingerprint)
    }

    /// Of objects as a store lists them.
    pub(super) fn listed(
        objects: impl Iterator<Item = (PathBuf, u64, SystemTime, Option<String>)>,
    ) -> Self {
        Self(
            objects
                .map(|(path, size, time, tag)| (path, size, Some(time), tag))
                .collect(),
        )
    }

    /// What a text that is in no file looks like.
    pub(super) fn of_text(text: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        Self(vec![(PathBuf::new(), hasher.finish(), None, None)])
    }

    /// This one and another as one.
    pub(super) fn with(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self.0.sort();
        self
    }

    fn add(&mut self, folder: &Path, path: &Path, depth: usize) -> Result<(), RepositoryError> {
        let failed = |source| RepositoryError::File {
            path: path.to_owned(),
            source,
        };
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        if !about.is_dir() {
            let below = path.strip_prefix(folder).unwrap_or(path).to_owned();
            self.0
                .push((below, about.len(), about.modified().ok(), None));
            return Ok(());
        }
        if depth >= MOST_DEPTH {
            return Ok(());
        }
        for entry in fs::read_dir(path).map_err(failed)? {
            self.add(folder, &entry.map_err(failed)?.path(), depth + 1)?;
        }
        Ok(())
    }
}
