//! What loads took, kept over restarts: by it, what is left of a load is estimated, and how much memory
//! it will need is known before it begins.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::wall_nanoseconds;

/// The file, in the folder of the cache.
const FILE: &str = "loads.json";
/// The most entries; the oldest go.
const MOST: usize = 1_000;
/// A longer file is none of ours.
const MOST_BYTES: u64 = 4 << 20;

/// What one load took.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Entry {
    compile_seconds: f64,
    warm_up_seconds: f64,
    /// Bytes by device; empty if they were not measured.
    pub(super) memory: BTreeMap<String, u64>,
    /// When that was, in seconds since the Unix epoch.
    unix_seconds: u64,
}

impl Entry {
    pub(super) fn of(compile: Duration, warm_up: Duration, memory: &[(String, u64)]) -> Self {
        Self {
            compile_seconds: compile.as_secs_f64(),
            warm_up_seconds: warm_up.as_secs_f64(),
            memory: memory.iter().cloned().collect(),
            unix_seconds: wall_nanoseconds() / 1_000_000_000,
        }
    }

    pub(super) fn compile(&self) -> Duration {
        Duration::try_from_secs_f64(self.compile_seconds).unwrap_or_default()
    }

    pub(super) fn warm_up(&self) -> Duration {
        Duration::try_from_secs_f64(self.warm_up_seconds).unwrap_or_default()
    }
}

/// What loads took, kept over restarts.
///
/// Servers that share a cache write the same file: the last one's entries stay, and what is lost is
/// learned again.
#[derive(Debug, Default)]
pub struct Logbook {
    /// None if nothing is kept.
    file: Option<PathBuf>,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Logbook {
    /// The one in a folder, which need not be there. One that cannot be read is begun anew.
    pub fn open(folder: &Path) -> Self {
        let file = folder.join(FILE);
        let entries = read(&file).unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "what loads took is not known");
            }
            BTreeMap::new()
        });
        Self {
            file: (!folder.as_os_str().is_empty()).then_some(file),
            entries: Mutex::new(entries),
        }
    }

    pub(super) fn find(&self, key: &str) -> Option<Entry> {
        self.entries().get(key).cloned()
    }

    /// Takes an entry in, in place of the one of its key, and writes all of them down.
    pub(super) fn note(&self, key: &str, mut entry: Entry) {
        let mut entries = self.entries();
        if let Some(known) = entries.get(key)
            && entry.memory.is_empty()
        {
            entry.memory.clone_from(&known.memory);
        }
        entries.insert(key.to_owned(), entry);
        while entries.len() > MOST {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.unix_seconds);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                break;
            };
            entries.remove(&oldest);
        }
        // Under the lock, so that the last to write has what all have noted.
        if let Some(file) = &self.file
            && let Err(error) = write(file, &entries)
        {
            tracing::debug!(file = %file.display(), %error, "what loads took is not kept");
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &Path) -> io::Result<BTreeMap<String, Entry>> {
    if fs::metadata(file)?.len() > MOST_BYTES {
        return Err(io::Error::other(format!("more than {MOST_BYTES} bytes")));
    }
    Ok(serde_json::from_slice(&fs::read(file)?)?)
}

/// Writes it beside the file and then in its place.
fn write(file: &Path, entries: &BTreeMap<String, Entry>) -> io::Result<()> {
    let folder = file.parent().unwrap_or(file);
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!("{FILE}.{}", std::process::id()));
    let written = fs::write(&draft, serde_json::to_vec(entries)?);
    written
        .and_then(|()| fs::rename(&draft, file))
        .inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seconds: u64) -> Entry {
        let memory = [("cpu".to_owned(), 7)];
        Entry::of(Duration::from_secs(seconds), Duration::ZERO, &memory)
    }

    #[test]
    fn what_was_noted_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new");
        let book = Logbook::open(&folder);
        assert_eq!(book.find("a"), None);
        book.note("a", entry(1));
        // What was not measured this time was measured before.
        book.note("a", Entry::of(Duration::from_secs(2), Duration::ZERO, &[]));
        book.note("b", entry(3));
        let again = Logbook::open(&folder);
        let found = again.find("a").unwrap();
        assert_eq!((found.compile().as_secs(), found.memory["cpu"]), (2, 7));
        assert_eq!(again.find("b").unwrap().compile().as_secs(), 3);
        let files = fs::read_dir(&folder).unwrap().count();
        assert_eq!(files, 1);
    }

    #[test]
    fn what_cannot_be_read_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{\"a\": 3}").unwrap();
        let book = Logbook::open(folder.path());
        assert_eq!(book.find("a"), None);
        book.note("a", entry(1));
        assert!(Logbook::open(folder.path()).find("a").is_some());
    }

    #[test]
    fn the_oldest_go() {
        let book = Logbook::default();
        for number in 0..=MOST {
            let mut entry = entry(1);
            entry.unix_seconds = number as u64;
            book.note(&format!("{number:04}"), entry);
        }
        assert!(book.find("0000").is_none() && book.find("0001").is_some());
    }
}
