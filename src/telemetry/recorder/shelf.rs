//! A folder of JSON files, of which the oldest go.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

const PREFIX: &str = "breach-";
const SUFFIX: &str = ".json";

/// A folder for so many files. Files of other names in it are left alone.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
    most: usize,
}

impl Shelf {
    /// At most `most` files in `folder`, which is made with the first.
    pub fn new(folder: &Path, most: usize) -> Self {
        Self {
            folder: folder.to_owned(),
            most,
        }
    }

    /// Writes a file that is there whole or not at all, named for its time; gives its path.
    pub fn put(&self, unix_ms: u64, number: u64, told: &impl Serialize) -> io::Result<PathBuf> {
        fs::create_dir_all(&self.folder)?;
        let name = format!("{PREFIX}{unix_ms:013}-{number:06}{SUFFIX}");
        let path = self.folder.join(&name);
        let desk = self.folder.join(format!(".{name}"));
        let written = fs::write(&desk, serde_json::to_vec_pretty(told)?);
        let written = written.and_then(|()| fs::rename(&desk, &path));
        if let Err(error) = written {
            // A disk that is full would be fuller with each half of a file.
            let _ = fs::remove_file(&desk);
            return Err(error);
        }
        self.clear()?;
        Ok(path)
    }

    /// Removes the oldest of too many.
    fn clear(&self) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let ours = name.to_str().is_some_and(|name| {
                let inner = name.strip_prefix(PREFIX);
                inner.is_some_and(|inner| inner.ends_with(SUFFIX))
            });
            names.extend(ours.then_some(name));
        }
        names.sort_unstable();
        let spare = names.len().saturating_sub(self.most);
        for name in names.into_iter().take(spare) {
            fs::remove_file(self.folder.join(name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_file_that_cannot_be_put() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf::new(folder.path(), 2);
        // A folder stands where the file is to be.
        let taken = folder.path().join("breach-0000000000001-000001.json");
        fs::create_dir(&taken).unwrap();
        shelf.put(1, 1, &[1]).unwrap_err();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn the_oldest_go_and_what_is_not_ours_stays() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("breaches");
        let shelf = Shelf::new(&folder, 2);
        for number in 1..=3 {
            let path = shelf.put(1_700_000_000_000, number, &[number]).unwrap();
            assert_eq!(
                fs::read_to_string(path).unwrap(),
                format!("[\n  {number}\n]")
            );
            fs::write(folder.join("notes.txt"), "").unwrap();
        }
        shelf.put(999, 4, &[4]).unwrap();
        let entries = fs::read_dir(&folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        // What is named for an earlier time is the oldest, whenever it was written.
        let kept = [
            "breach-1700000000000-000002.json",
            "breach-1700000000000-000003.json",
        ];
        assert_eq!(names, [kept[0], kept[1], "notes.txt"]);
    }
}
