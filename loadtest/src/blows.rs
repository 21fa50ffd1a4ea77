//! Blows that a server is dealt in a run, and how long it takes until its users are served again.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock::now;

/// The blows of one run.
#[derive(Clone, Debug)]
pub(crate) struct Blows {
    start: Instant,
    dealt: Arc<Mutex<Vec<Blow>>>,
}

/// What was seen after a blow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// The first good answer of a request that was due after it came so long after it.
    Served(Duration),
    /// No such answer came in the time from the blow to the end of the run.
    NotServed(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Blow {
    /// Since the start of the run.
    at: Duration,
    recovered: Option<Duration>,
}

impl Blows {
    /// None yet, in a run that starts now.
    pub(crate) fn none() -> Self {
        Self {
            start: now(),
            dealt: Arc::default(),
        }
    }

    /// When the run started.
    pub(crate) fn start(&self) -> Instant {
        self.start
    }

    /// One is dealt now.
    pub(crate) fn deal(&self) {
        let at = now().saturating_duration_since(self.start);
        self.dealt().push(Blow {
            at,
            recovered: None,
        });
    }

    /// A request that was meant to be sent at this time got a good answer at that.
    pub(crate) fn answered(&self, intended: Duration, ended: Duration) {
        let mut dealt = self.dealt();
        let blows = dealt.iter_mut().filter(|blow| blow.at <= intended);
        for blow in blows.filter(|blow| blow.recovered.is_none()) {
            blow.recovered = Some(ended.saturating_sub(blow.at));
        }
    }

    /// What was seen of each in a run that sent requests until `end`.
    pub(crate) fn recoveries(&self, end: Duration) -> Vec<Recovery> {
        let seen = |blow: &Blow| match blow.recovered {
            Some(after) => Recovery::Served(after),
            None => Recovery::NotServed(end.saturating_sub(blow.at)),
        };
        self.dealt().iter().map(seen).collect()
    }

    fn dealt(&self) -> MutexGuard<'_, Vec<Blow>> {
        self.dealt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_after_a_blow_shows_that_it_is_over() {
        let blows = Blows::none();
        blows.deal();
        let at = blows.dealt()[0].at;
        let second = Duration::from_secs(1);
        blows.answered(at.saturating_sub(Duration::from_nanos(1)), at + second);
        let end = at + 5 * second;
        let watched = Recovery::NotServed(5 * second);
        assert_eq!(blows.recoveries(end), [watched]);
        assert_eq!(
            blows.recoveries(Duration::ZERO),
            [Recovery::NotServed(Duration::ZERO)]
        );
        blows.answered(at + second, at + 3 * second);
        blows.answered(at + second, at + 4 * second);
        assert_eq!(blows.recoveries(end), [Recovery::Served(3 * second)]);
    }
}
