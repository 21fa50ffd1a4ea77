//! Settings as somebody wrote them, on the command line, in the environment or in a TOML file, and
//! the rules that say what they may be.
//!
//! A [`Table`] is asked for its keys one by one, each with a [`rule::Rule`]; a key that nobody asks for
//! is unknown. Nothing stops at the first mistake: a [`Report`] has all of them, each with its file,
//! line and key, what was found and what is allowed.

mod reader;
mod report;
pub mod rule;
mod spelling;
mod written;

pub use reader::{Table, read_document, read_without};
pub use report::{Problem, Problems, Report};
pub use written::Written;
