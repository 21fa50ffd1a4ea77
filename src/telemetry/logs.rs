//! Which log lines are written: decided at start, and changed while the program runs.
//!
//! There is one of this for the process, as there is one subscriber of `tracing`. Lines go to standard
//! error, so that standard output is for people and pipes.

use std::fmt;
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

/// ONNX Runtime tells every step of every load, and a store each try; their warnings are enough
/// unless asked for.
const CHATTY: [&str; 2] = ["ort", "object_store"];

type Choice = Box<dyn Layer<Registry> + Send + Sync>;

static RUNNING: OnceLock<Logs> = OnceLock::new();

/// Why no log lines can be written.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The filter is none.
    #[error("{0}")]
    Filter(#[from] ParseError),
    /// Somebody else writes them.
    #[error(transparent)]
    Taken(#[from] TryInitError),
}

/// Kinds of lines, and whether they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// Errors.
    pub error: bool,
    /// Warnings.
    pub warning: bool,
    /// What usually happens.
    pub info: bool,
    /// 0: nothing more; 1: details; from 2 on: everything.
    pub verbose: u32,
}

impl Levels {
    fn of(filter: LevelFilter) -> Self {
        Self {
            error: filter >= LevelFilter::ERROR,
            warning: filter >= LevelFilter::WARN,
            info: filter >= LevelFilter::INFO,
            verbose: match filter {
                LevelFilter::TRACE => 2,
                LevelFilter::DEBUG => 1,
                _ => 0,
            },
        }
    }

    fn lets(self, line: &Metadata<'_>) -> bool {
        let chatty = line.target() == "ort" || line.target().starts_with("ort::");
        let quiet = chatty && self.verbose == 0;
        match *line.level() {
            Level::ERROR => self.error,
            Level::WARN => self.warning,
            Level::INFO => self.info && !quiet,
            Level::DEBUG => self.verbose >= 1,
            Level::TRACE => self.verbose >= 2,
        }
    }
}

/// The log lines of this process.
pub struct Logs {
    levels: Mutex<Levels>,
    choice: reload::Handle<Choice, Registry>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?}", self.levels())
    }
}

impl Logs {
    /// Those of this process, once they have been started.
    pub fn running() -> Option<&'static Self> {
        RUNNING.get()
    }

    /// Writes log lines that `filter` lets through, such as `info` or `info,jitney::serving=debug`.
    /// Each is an object of JSON, or words for people.
    pub fn start(filter: &str, json: bool) -> Result<(), LogsError> {
        let most = most(&EnvFilter::try_new(filter)?);
        let levels = Levels::of(most);
        let first: Choice = Box::new(EnvFilter::try_new(with_quiet(filter, most))?);
        let (choice, handle) = reload::Layer::new(first);
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match json {
            true => lines.json().flatten_event(true).boxed(),
            false => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        };
        Registry::default().with(choice).with(lines).try_init()?;
        let logs = Self {
            levels: Mutex::new(levels),
            choice: handle,
        };
        // The subscriber above is the first, so this is too.
        let _ = RUNNING.set(logs);
        Ok(())
    }

    /// Which lines are written.
    pub fn levels(&self) -> Levels {
        *self.levels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on just these lines are written, in place of what was chosen before.
    pub fn change(&self, levels: Levels) -> Result<(), reload::Error> {
        let mut current = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let choice: Choice = Box::new(filter_fn(move |line| levels.lets(line)));
        self.choice.reload(choice)?;
        *current = levels;
        Ok(())
    }
}

/// The most that a filter lets through of anything.
fn most(filter: &EnvFilter) -> LevelFilter {
    filter.max_level_hint().unwrap_or(LevelFilter::TRACE)
}

/// The filter with what is chatty kept quiet, of which no more is told than of others.
fn with_quiet(filter: &str, most: LevelFilter) -> String {
    let level = most.min(LevelFilter::WARN);
    let quiet = CHATTY.map(|target| format!("{target}={level}"));
    format!("{},{filter}", quiet.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_say_what_a_filter_does() {
        let levels = |filter: &str| Levels::of(most(&EnvFilter::try_new(filter).unwrap()));
        let told = |filter| {
            let Levels {
                error,
                warning,
                info,
                verbose,
            } = levels(filter);
            (error, warning, info, verbose)
        };
        assert_eq!(told("off"), (false, false, false, 0));
        assert_eq!(told("error"), (true, false, false, 0));
        assert_eq!(told("info"), (true, true, true, 0));
        assert_eq!(told("warn,jitney=debug"), (true, true, true, 1));
        assert_eq!(told("trace"), (true, true, true, 2));
    }

    #[test]
    fn what_is_chatty_tells_no_more_than_others() {
        let whole = |filter: &str| {
            let most = most(&EnvFilter::try_new(filter).unwrap());
            let whole = with_quiet(filter, most);
            EnvFilter::try_new(&whole).unwrap();
            whole
        };
        assert_eq!(whole("off"), "ort=off,object_store=off,off");
        assert_eq!(whole("error"), "ort=error,object_store=error,error");
        assert_eq!(whole("info"), "ort=warn,object_store=warn,info");
        let asked = "info,ort=debug";
        assert_eq!(whole(asked), "ort=warn,object_store=warn,info,ort=debug");
    }
}
