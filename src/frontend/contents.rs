//! Files that are read again and again, so that what changes in them is noticed: by what they say, since
//! Kubernetes changes mounted ones by a link further up.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// So much of a file of certificates, keys or names is read.
const MOST_BYTES: u64 = 4 * 1024 * 1024;

/// What some files say, each with its path, or why they say nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Contents(Vec<(PathBuf, Result<Vec<u8>, String>)>);

impl Contents {
    /// Reads one more file; gives what it says.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let told = |error: io::Error| format!("{}: {error}", path.display());
        let said = bounded(path).map_err(told);
        self.0.push((path.to_owned(), said.clone()));
        said
    }
}

fn bounded(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no file"));
    }
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        let told = format!("is larger than {MOST_BYTES} bytes");
        return Err(io::Error::other(told));
    }
    Ok(bytes)
}
