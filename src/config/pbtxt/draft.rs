//! A configuration that is being read: what is wrong with it so far, and where its fields are.

use std::path::{Path, PathBuf};

use super::places::Places;
use crate::config::rule::{FILE_NAMES, is_file_name};
use jitney_settings::{Problem, Problems, Report};

/// What is wrong so far, and where fields are.
pub(super) struct Draft {
    file: Option<PathBuf>,
    pub(super) places: Places,
    problems: Problems,
}

impl Draft {
    /// Nothing is wrong yet with this file, or with what is in none.
    pub(super) fn of(file: Option<&Path>) -> Self {
        Self {
            file: file.map(Path::to_owned),
            places: Places::default(),
            problems: Problems::default(),
        }
    }

    /// The field at `path` is wrong.
    pub(super) fn note(&mut self, path: &str, message: impl Into<String>) {
        let (file, places) = (&self.file, &self.places);
        self.problems.note(|| Problem {
            file: file.clone(),
            line: places.line(path),
            ..Problem::loose(path, message.into())
        });
    }

    /// Something on this line is wrong.
    pub(super) fn note_at(&mut self, line: Option<usize>, path: &str, message: impl Into<String>) {
        let file = &self.file;
        self.problems.note(|| Problem {
            file: file.clone(),
            line,
            ..Problem::loose(path, message.into())
        });
    }

    /// The name of a tensor at `path`, with a note if it has no letters.
    pub(super) fn tensor_name(&mut self, path: &str, name: &str) -> String {
        if name.is_empty() {
            self.note(path, "missing; the model's name for it");
        }
        name.to_owned()
    }

    /// Notes a name that is no file's.
    pub(super) fn check_file_name(&mut self, path: &str, name: &str) {
        if !is_file_name(name) {
            let name: String = name.chars().take(64).collect();
            self.note(path, format!("found {name:?}; allowed: {FILE_NAMES}"));
        }
    }

    /// `number` if it is in the range from `least` to `most`; else `least`, with a note.
    pub(super) fn whole<N>(&mut self, path: &str, number: N, least: usize, most: usize) -> usize
    where
        N: Copy + std::fmt::Display + TryInto<usize>,
    {
        match number.try_into() {
            Ok(size) if (least..=most).contains(&size) => size,
            _ => {
                let message = format!("found {number}; allowed: a whole number, {least} to {most}");
                self.note(path, message);
                least
            }
        }
    }

    /// `value` if nothing is wrong.
    pub(super) fn finish<T>(self, value: T) -> Result<T, Report> {
        Report::unless(value, self.problems)
    }
}
