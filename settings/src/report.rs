//! Everything that is wrong with a configuration, each mistake with its place.

use std::fmt;
use std::path::PathBuf;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file it is in; none for the command line and the environment.
    pub file: Option<PathBuf>,
    /// The line, from 1; none if the mistake is not on one.
    pub line: Option<usize>,
    /// The column in characters, from 1; given where the text is not TOML.
    pub column: Option<usize>,
    /// The setting, such as `instances[0].device` or `--device`; empty where the text is not TOML.
    pub key: String,
    /// What was found and what is allowed.
    pub message: String,
}

impl Problem {
    /// A mistake that is on no line of a file.
    pub fn loose(key: &str, message: String) -> Self {
        Self {
            file: None,
            line: None,
            column: None,
            key: key.to_owned(),
            message,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}:", file.display())?;
            for place in [self.line, self.column].into_iter().flatten() {
                write!(formatter, "{place}:")?;
            }
            formatter.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// What is wrong so far. Nobody mends more than [`Problems::MOST`] at once: the others are counted, for a
/// text of a megabyte may have hundreds of thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems {
    told: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// So many are told.
    pub const MOST: usize = 100;

    /// Notes a mistake. It is made only if it is told.
    pub fn note(&mut self, problem: impl FnOnce() -> Problem) {
        if self.told.len() < Self::MOST {
            self.told.push(problem());
        } else {
            self.more += 1;
        }
    }

    /// Whether nothing is wrong so far.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }
}

/// The mistakes of a configuration; at least one. Those in no file come first, then by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report(Problems);

impl Report {
    /// `value` if there are no problems.
    pub fn unless<T>(value: T, mut problems: Problems) -> Result<T, Self> {
        if problems.is_empty() {
            return Ok(value);
        }
        let place = |problem: &Problem| (problem.file.is_some(), problem.line);
        problems.told.sort_by_key(place);
        Err(Self(problems))
    }

    /// The mistakes that are told; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.0.told
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.told.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        match self.0.more {
            0 => Ok(()),
            more => write!(formatter, "\nand {more} more"),
        }
    }
}

impl std::error::Error for Report {}
