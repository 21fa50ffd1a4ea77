//! How far loads are, for those who wait for them.
//!
//! What is left is estimated by what the same version took before, or by the share of the phase that is
//! done; where neither is known, nothing is said of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::logbook::Entry;
use crate::clock::{Clock, Moment};
use crate::repository::Fetched;

/// A load of which nothing more is done for so long may be one that never ends.
const STILL: Duration = Duration::from_secs(300);

/// What a load is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Fetching it from a store, and reading its folder.
    #[default]
    Fetch,
    /// Waiting until one of `load_threads` is free.
    Turn,
    /// Waiting until others have been measured, or have left.
    Memory,
    /// Having the backend make its sessions.
    Compile,
    /// Trying it, and running it with each number of rows and each length that it is to be ready for.
    WarmUp,
}

impl Phase {
    /// Every one, in the order in which they come.
    pub const ALL: [Self; 5] = [
        Self::Fetch,
        Self::Turn,
        Self::Memory,
        Self::Compile,
        Self::WarmUp,
    ];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Turn => "turn",
            Self::Memory => "memory",
            Self::Compile => "compile",
            Self::WarmUp => "warm_up",
        }
    }
}

/// How far a load is.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadProgress {
    /// The version, once it is known.
    pub version: Option<u64>,
    /// What is being done.
    pub phase: Phase,
    /// How much of the phase: bytes, sessions or runs, of how many.
    pub counted: Option<(u64, u64)>,
    /// The share that is done, of the load if it is known what it took before, else of its phase.
    pub share: Option<f64>,
    /// What is left of the same, by estimate.
    pub left: Option<Duration>,
    /// Since when the load has gone on.
    pub took: Duration,
    /// Since when it holds one of `load_threads` and nothing more was done, if that is long.
    pub still: Option<Duration>,
}

/// A load under way.
pub(super) struct Progress {
    clock: Arc<dyn Clock>,
    began: Moment,
    /// What its store has given.
    pub(super) fetched: Fetched,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    version: Option<u64>,
    /// What the version took before.
    past: Option<Entry>,
    phase: Phase,
    since: Moment,
    /// When the last part was done.
    moved: Moment,
    done: u64,
    of: u64,
    compile: Duration,
    warm_up: Duration,
}

impl fmt::Debug for Progress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.told().fmt(formatter)
    }
}

impl Progress {
    pub(super) fn begin(clock: Arc<dyn Clock>) -> Self {
        let began = clock.now();
        let state = State {
            since: began,
            ..State::default()
        };
        Self {
            clock,
            began,
            fetched: Fetched::default(),
            state: Mutex::new(state),
        }
    }

    /// A version is loaded, which took this the last time.
    pub(super) fn of_version(&self, version: u64, past: Option<Entry>) {
        let mut state = self.state();
        state.version = Some(version);
        state.past = past;
        (state.compile, state.warm_up) = (Duration::ZERO, Duration::ZERO);
    }

    /// What the version took the last time.
    pub(super) fn past(&self) -> Option<Entry> {
        self.state().past.clone()
    }

    /// The next phase begins, which has so many parts.
    pub(super) fn enter(&self, phase: Phase, of: usize) {
        let now = self.clock.now();
        let mut state = self.state();
        let spent = now - state.since;
        match state.phase {
            Phase::Compile => state.compile += spent,
            Phase::WarmUp => state.warm_up += spent,
            _ => {}
        }
        (state.phase, state.since, state.moved) = (phase, now, now);
        (state.done, state.of) = (0, of as u64);
    }

    /// So many parts more are in the phase than was said.
    pub(super) fn expect(&self, parts: usize) {
        self.state().of += parts as u64;
    }

    /// One more part is done.
    pub(super) fn step(&self) {
        let now = self.clock.now();
        let mut state = self.state();
        state.done += 1;
        state.moved = now;
    }

    /// How long it took to compile and to warm up.
    pub(super) fn ends(&self) -> (Duration, Duration) {
        self.enter(Phase::Turn, 0);
        let state = self.state();
        (state.compile, state.warm_up)
    }

    /// How far it is.
    pub(super) fn told(&self) -> LoadProgress {
        let now = self.clock.now();
        let state = self.state();
        let counted = state.counted(&self.fetched);
        let part = counted.map(|(done, of)| done as f64 / of as f64);
        let (share, left) = match &state.past {
            Some(past) => state.of_load(past, now),
            None => (part, left(now - state.since, part)),
        };
        LoadProgress {
            version: state.version,
            phase: state.phase,
            counted,
            share,
            left,
            took: now - self.began,
            still: state.still(now),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn counted(&self, fetched: &Fetched) -> Option<(u64, u64)> {
        match self.phase {
            Phase::Fetch => fetched.told(),
            // One session is done or not, and that is no news.
            Phase::Compile => (self.of > 1).then_some((self.done, self.of)),
            Phase::WarmUp => (self.of > 0).then_some((self.done.min(self.of), self.of)),
            Phase::Turn | Phase::Memory => None,
        }
    }

    /// Since when nothing more was done, if that is long. What waits for others is not meant.
    fn still(&self, now: Moment) -> Option<Duration> {
        let works = matches!(self.phase, Phase::Compile | Phase::WarmUp);
        works
            .then(|| now - self.moved)
            .filter(|still| *still >= STILL)
    }

    /// The share and the rest of the whole, by what it took before.
    fn of_load(&self, past: &Entry, now: Moment) -> (Option<f64>, Option<Duration>) {
        let spent = now - self.since;
        let (compile, warm_up) = (past.compile(), past.warm_up());
        let (done, left) = match self.phase {
            Phase::Compile => (spent, compile.saturating_sub(spent) + warm_up),
            Phase::WarmUp => (self.compile + spent, warm_up.saturating_sub(spent)),
            // How long others take is not known.
            Phase::Fetch | Phase::Turn | Phase::Memory => return (Some(0.0), None),
        };
        let whole = (done + left).as_secs_f64();
        let share = (whole > 0.0).then(|| done.as_secs_f64() / whole);
        // It takes longer than it did: how much is anybody's guess.
        match left.is_zero() {
            true => (None, None),
            false => (share, Some(left)),
        }
    }
}

/// What is left of something of which this share took so long.
fn left(spent: Duration, share: Option<f64>) -> Option<Duration> {
    let share = share.filter(|share| *share > 0.0)?;
    Duration::try_from_secs_f64(spent.as_secs_f64() * (1.0 - share) / share).ok()
}

impl fmt::Display for LoadProgress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        match (self.phase, self.counted) {
            (Phase::Fetch, None) => formatter.write_str("reading it")?,
            (Phase::Fetch, Some((done, of))) => {
                let (done, of) = (megabytes(done), megabytes(of));
                write!(formatter, "fetching, {done:.1} of {of:.1} MB")?;
            }
            (Phase::Turn, _) => formatter.write_str("waiting for its turn (load_threads)")?,
            (Phase::Memory, _) => {
                formatter.write_str("waiting for memory (device_memory_bytes)")?;
            }
            (Phase::Compile, None) => formatter.write_str("compiling")?,
            (Phase::Compile, Some((done, of))) => {
                write!(formatter, "compiling, {done} of {of} instances")?;
            }
            (Phase::WarmUp, None) => formatter.write_str("trying it")?,
            (Phase::WarmUp, Some((done, of))) => {
                write!(formatter, "warming up, {done} of {of} batches")?;
            }
        }
        if let Some(share) = self.share.filter(|share| *share > 0.0) {
            write!(formatter, "; {:.0} % done", share * 100.0)?;
        }
        if let Some(left) = self.left {
            write!(formatter, ", about {:.0} s left", left.as_secs_f64().ceil())?;
        }
        if let Some(still) = self.still {
            let minutes = still.as_secs() / 60;
            write!(
                formatter,
                "; nothing more for {minutes} min (it holds one of load_threads)"
            )?;
        }
        Ok(())
    }
}

/// The loads that are under way, by model.
#[derive(Debug, Default)]
pub(super) struct Loads(Mutex<HashMap<Arc<str>, Arc<Progress>>>);

impl Loads {
    /// Has a load known of until what this gives is dropped.
    pub(super) fn begin(&self, model: &str, clock: Arc<dyn Clock>) -> Underway<'_> {
        let progress = Arc::new(Progress::begin(clock));
        let model: Arc<str> = Arc::from(model);
        self.lock()
            .insert(Arc::clone(&model), Arc::clone(&progress));
        Underway {
            loads: self,
            model,
            progress,
        }
    }

    /// How far a model's load is, if there is one.
    pub(super) fn of(&self, model: &str) -> Option<LoadProgress> {
        self.lock().get(model).map(|progress| progress.told())
    }

    /// How far all are, by name.
    pub(super) fn all(&self) -> Vec<(Arc<str>, LoadProgress)> {
        let loads = self.lock();
        let mut told: Vec<(Arc<str>, LoadProgress)> = loads
            .iter()
            .map(|(model, progress)| (Arc::clone(model), progress.told()))
            .collect();
        told.sort_by(|a, b| a.0.cmp(&b.0));
        told
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load that is known of.
pub(super) struct Underway<'a> {
    loads: &'a Loads,
    model: Arc<str>,
    pub(super) progress: Arc<Progress>,
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        let mut loads = self.loads.lock();
        // Two that were asked for at once come one after the other; the last is known of.
        let own = |known: &Arc<Progress>| Arc::ptr_eq(known, &self.progress);
        if loads.get(&self.model).is_some_and(own) {
            loads.remove(&self.model);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::clock::Sleep;

    /// A clock that stands where it is put.
    #[derive(Default)]
    struct Hand(AtomicU64);

    impl Clock for Hand {
        fn now(&self) -> Moment {
            Moment::from_nanos(self.0.load(Ordering::Relaxed))
        }

        fn sleep_until(&self, _: Moment) -> Sleep {
            Box::pin(std::future::pending())
        }
    }

    fn begun() -> (Arc<Hand>, Progress, impl Fn(u64)) {
        let hand = Arc::new(Hand::default());
        let clock: Arc<dyn Clock> = Arc::clone(&hand) as _;
        let turned = Arc::clone(&hand);
        let passes = move |seconds: u64| {
            turned
                .0
                .fetch_add(seconds * 1_000_000_000, Ordering::Relaxed);
        };
        (hand, Progress::begin(clock), passes)
    }

    #[test]
    fn the_first_load_knows_what_it_counts() {
        let (_, progress, passes) = begun();
        assert_eq!(progress.told().to_string(), "reading it");
        passes(4);
        let told = progress.told();
        assert_eq!(
            (told.share, told.left, told.took.as_secs()),
            (None, None, 4)
        );
        progress.enter(Phase::Turn, 0);
        let waits = "waiting for its turn (load_threads)";
        assert_eq!(progress.told().to_string(), waits);
        progress.enter(Phase::Compile, 1);
        passes(10);
        assert_eq!(progress.told().to_string(), "compiling");
        progress.enter(Phase::WarmUp, 0);
        progress.expect(8);
        passes(2);
        progress.step();
        progress.step();
        let said = "warming up, 2 of 8 batches; 25 % done, about 6 s left";
        assert_eq!(progress.told().to_string(), said);
        let seconds = Duration::from_secs;
        assert_eq!(progress.ends(), (seconds(10), seconds(2)));
    }

    #[test]
    fn a_later_load_knows_what_it_takes() {
        let (_, progress, passes) = begun();
        let past = Entry::of(Duration::from_secs(30), Duration::from_secs(10), &[]);
        progress.of_version(3, Some(past));
        progress.enter(Phase::Compile, 1);
        passes(10);
        let told = progress.told();
        assert_eq!((told.version, told.share), (Some(3), Some(0.25)));
        assert_eq!(told.to_string(), "compiling; 25 % done, about 30 s left");
        passes(40);
        progress.enter(Phase::WarmUp, 4);
        // What took longer than before is counted as it was.
        assert_eq!(
            progress.told().to_string(),
            "warming up, 0 of 4 batches; 83 % done, about 10 s left"
        );
        passes(11);
        let said = "warming up, 0 of 4 batches";
        assert_eq!(progress.told().to_string(), said);
    }

    #[test]
    fn a_load_of_which_nothing_more_is_done_says_so() {
        let (_, progress, passes) = begun();
        progress.enter(Phase::Turn, 0);
        passes(3600);
        assert_eq!(progress.told().still, None, "it holds nothing");
        progress.enter(Phase::WarmUp, 4);
        passes(299);
        assert_eq!(progress.told().still, None);
        progress.step();
        passes(299);
        assert_eq!(progress.told().still, None);
        passes(61);
        let said = progress.told().to_string();
        assert!(
            said.ends_with("; nothing more for 6 min (it holds one of load_threads)"),
            "{said}"
        );
    }

    #[test]
    fn a_load_is_known_of_until_it_ends() {
        let loads = Loads::default();
        let clock: Arc<dyn Clock> = Arc::new(Hand::default());
        let first = loads.begin("m", Arc::clone(&clock));
        let second = loads.begin("m", clock);
        drop(first);
        assert!(loads.of("m").is_some());
        drop(second);
        assert!(loads.of("m").is_none() && loads.all().is_empty());
    }
}
