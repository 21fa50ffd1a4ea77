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

/// All mistakes of a configuration; at least one. Those in no file come first, then by line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// `value` if there are no problems.
    pub fn unless<T>(value: T, mut problems: Vec<Problem>) -> Result<T, Self> {
        if problems.is_empty() {
            return Ok(value);
        }
        problems.sort_by_key(|problem| (problem.file.is_some(), problem.line));
        Err(Self { problems })
    }

    /// The mistakes; at least one.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Report {}
