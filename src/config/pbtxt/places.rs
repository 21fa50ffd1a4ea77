//! Where the fields of a text are, by their paths.

use std::collections::{HashMap, HashSet};

/// Bytes of a path that is kept. The fields of a ModelConfig have short names, and those of tensors, which
/// are in paths too, are rarely as long as this.
pub(super) const MOST_PATH: usize = 1024;
/// Bytes of all paths that are kept. Those of thousands of tensors take a tenth.
const MOST_BYTES: usize = 16 << 20;

/// Lines by paths, such as `instance_group[1].gpus[0]` or `parameters[execution_mode].value`.
#[derive(Debug, Default)]
pub(super) struct Places {
    lines: HashMap<String, usize>,
    /// How much their paths take.
    bytes: usize,
    /// Paths of fields that are there, on no line.
    written: HashSet<String>,
}

impl Places {
    /// The field at `path` is on this line, from 1. Where there is no more room for it, it is told to be
    /// where the field around it is.
    pub(super) fn put(&mut self, path: &str, line: usize) {
        // A path that is short takes a place in the table, too.
        let bytes = self.bytes + path.len() + 64;
        if path.len() > MOST_PATH || bytes > MOST_BYTES {
            return;
        }
        self.bytes = bytes;
        self.lines.entry(plain(path)).or_insert(line);
    }

    /// The field at `path` is there, on no line.
    pub(super) fn put_written(&mut self, path: &str) {
        self.written.insert(plain(path));
    }

    /// Whether the text has the field at `path`.
    pub(super) fn is_written(&self, path: &str) -> bool {
        let path = plain(path);
        self.lines.contains_key(&path) || self.written.contains(&path)
    }

    /// Bytes that the paths take.
    #[cfg(test)]
    pub(super) fn size(&self) -> usize {
        self.lines.keys().map(|path| path.capacity() + 64).sum()
    }

    /// The line of the field at `path`, or of the next field around it that is there.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
        // Nothing longer is kept.
        let path = path.get(..path.floor_char_boundary(MOST_PATH))?;
        let path = plain(path);
        let mut path: &str = &path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = path.get(..path.rfind(['.', '['])?)?;
        }
    }
}

/// The first of several and the only one are the same place.
fn plain(path: &str) -> String {
    path.replace("[0]", "")
}
