//! Where the fields of a text are, by their paths.

use std::collections::{HashMap, HashSet};

/// Lines by paths, such as `instance_group[1].gpus[0]` or `parameters[execution_mode].value`.
#[derive(Debug, Default)]
pub(super) struct Places {
    lines: HashMap<String, usize>,
    /// Paths of fields that are there, on no line.
    written: HashSet<String>,
}

impl Places {
    /// The field at `path` is on this line, from 1.
    pub(super) fn put(&mut self, path: &str, line: usize) {
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

    /// The line of the field at `path`, or of the next field around it that is there.
    pub(super) fn line(&self, path: &str) -> Option<usize> {
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
