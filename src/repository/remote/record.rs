//! What was taken of a model, written down, so that a server that starts again knows what it has.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::error::{RemoteError, at};
use super::object::{Object, Unit, check_path};
use crate::model::check_name;

/// One object, and what it holds if it was fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    #[serde(flatten)]
    pub(super) object: Object,
    pub(super) digest: Option<Digest>,
    /// Whether what came may not be what the store has.
    #[serde(default)]
    pub(super) doubted: bool,
}

/// What was taken of a model: every object that was at rest, fetched or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) entries: Vec<Entry>,
}

impl Record {
    /// The objects, sorted.
    pub(super) fn objects(&self) -> Vec<Object> {
        self.entries
            .iter()
            .map(|entry| entry.object.clone())
            .collect()
    }

    /// What is known to be in which object.
    pub(super) fn digests(&self) -> HashMap<Object, Digest> {
        let known = self.entries.iter().filter_map(|entry| {
            let digest = entry.digest.clone()?;
            Some((entry.object.clone(), digest))
        });
        known.collect()
    }

    /// Doubts what came of a unit.
    pub(super) fn doubt(&mut self, unit: Unit) {
        let own = |entry: &&mut Entry| entry.object.unit() == unit && entry.digest.is_some();
        for entry in self.entries.iter_mut().filter(own) {
            entry.doubted = true;
        }
    }

    /// Whether what came of an object is doubted.
    pub(super) fn doubts(&self, object: &Object) -> bool {
        let mut entries = self.entries.iter();
        entries.any(|entry| entry.doubted && entry.object == *object)
    }

    /// Whether anything of it is doubted.
    pub(super) fn has_doubts(&self) -> bool {
        self.entries.iter().any(|entry| entry.doubted)
    }

    /// What is written at `folder` of `model`, if anything that can be read is.
    pub(super) fn read(folder: &Path, model: &str) -> Option<Self> {
        let source = fs::read(file(folder, model)).ok()?;
        let record: Self = serde_json::from_slice(&source).ok()?;
        let sound = |entry: &Entry| {
            let digest = entry.digest.as_ref();
            check_path(&entry.object.path).is_ok() && digest.is_none_or(Digest::is_sound)
        };
        record.entries.iter().all(sound).then_some(record)
    }

    /// The names of the models that something is written of.
    pub(super) fn models(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.strip_suffix(".json").map(str::to_owned)
        });
        names.filter(|name| check_name(name).is_ok()).collect()
    }

    /// Writes it down: first to `draft`, then in one step.
    pub(super) fn write(
        &self,
        folder: &Path,
        model: &str,
        draft: &Path,
    ) -> Result<(), RemoteError> {
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        fs::create_dir_all(folder).map_err(at(folder))?;
        text.and_then(|text| fs::write(draft, text))
            .map_err(at(draft))?;
        let path = file(folder, model);
        fs::rename(draft, &path).map_err(at(&path))
    }

    /// Forgets a model.
    pub(super) fn remove(folder: &Path, model: &str) {
        // One that stays costs a few bytes, and is believed only while the store is away.
        let _ = fs::remove_file(file(folder, model));
    }
}

fn file(folder: &Path, model: &str) -> std::path::PathBuf {
    folder.join(format!("{model}.json"))
}
