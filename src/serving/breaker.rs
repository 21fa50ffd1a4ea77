//! How often a version's workers died and its executors hung, and whether it is left alone for that.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::backend::{Cause, Death};
use crate::clock::Moment;

/// Pause before a worker is started again after the second death of late; doubles with each.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
const MOST_PAUSE: Duration = Duration::from_secs(5);

/// When a version whose workers die is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// With so many deaths, at least 1,
    pub deaths: usize,
    /// within this time,
    pub window: Duration,
    /// for so long.
    pub rest: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            deaths: 5,
            window: Duration::from_secs(60),
            rest: Duration::from_secs(600),
        }
    }
}

/// What went wrong with a version's executors, by device and kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Casualties {
    /// Workers that died.
    pub deaths: BTreeMap<(Arc<str>, Cause), u64>,
    /// Executors that hung in a thread.
    pub hangs: BTreeMap<Arc<str>, u64>,
    /// Why it is left alone, if it is.
    pub taken_out: Option<String>,
}

/// A version's.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    policy: BreakerPolicy,
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    casualties: Casualties,
    /// Workers that died of late, each once however many executors it had.
    recent: VecDeque<(u64, Moment)>,
    /// Until when it is left alone.
    until: Option<Moment>,
}

impl Book {
    fn forget_before(&mut self, now: Moment, window: Duration) {
        self.recent.retain(|(_, died)| now.since(*died) < window);
    }
}

impl Breaker {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            book: Mutex::default(),
        }
    }

    /// A worker died. Why the version is left alone, if it is from now on.
    pub(super) fn died(&self, now: Moment, device: &Arc<str>, death: &Death) -> Option<String> {
        let mut book = self.lock();
        book.forget_before(now, self.policy.window);
        if book
            .recent
            .iter()
            .any(|(worker, _)| *worker == death.worker)
        {
            return book.casualties.taken_out.clone();
        }
        book.recent.push_back((death.worker, now));
        let key = (Arc::clone(device), death.cause);
        *book.casualties.deaths.entry(key).or_default() += 1;
        if book.recent.len() >= self.policy.deaths {
            book.until = Some(now + self.policy.rest);
            book.casualties.taken_out = Some(self.reason(book.recent.len(), death));
        }
        book.casualties.taken_out.clone()
    }

    fn reason(&self, deaths: usize, death: &Death) -> String {
        let seconds = |time: Duration| time.as_secs_f64();
        format!(
            "taken out: {deaths} of its workers died within {} s, the last on {}: {death}; it is tried \
             again {} s after that, or when it is loaded again",
            seconds(self.policy.window),
            death.cause.name(),
            seconds(self.policy.rest)
        )
    }

    /// An executor hung.
    pub(super) fn hung(&self, device: &Arc<str>) {
        let mut book = self.lock();
        *book.casualties.hangs.entry(Arc::clone(device)).or_default() += 1;
    }

    /// How long to wait before a worker is started in place of the one that died.
    pub(super) fn pause(&self, now: Moment) -> Duration {
        let mut book = self.lock();
        if let Some(until) = book.until {
            return until.since(now);
        }
        book.forget_before(now, self.policy.window);
        match u32::try_from(book.recent.len()).unwrap_or(u32::MAX) {
            0 | 1 => Duration::ZERO,
            deaths => LEAST_PAUSE
                .saturating_mul(2_u32.saturating_pow(deaths - 2))
                .min(MOST_PAUSE),
        }
    }

    /// A worker is there again. If the version was left alone until now, the next death is one too many.
    /// True if it was; whoever comes back sooner ends no rest.
    pub(super) fn returned(&self, now: Moment) -> bool {
        let mut book = self.lock();
        let was_out = book.until.take_if(|until| *until <= now).is_some();
        if was_out {
            book.casualties.taken_out = None;
            book.recent.clear();
            // Numbers that no worker has.
            let almost = std::iter::repeat_n((0, now), self.policy.deaths.saturating_sub(1));
            book.recent.extend(almost);
        }
        was_out
    }

    /// Why it is left alone, if it is.
    pub(super) fn taken_out(&self) -> Option<String> {
        self.lock().casualties.taken_out.clone()
    }

    pub(super) fn casualties(&self) -> Casualties {
        self.lock().casualties.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn breaker() -> Breaker {
        Breaker::new(BreakerPolicy {
            deaths: 3,
            window: 10 * SECOND,
            rest: 100 * SECOND,
        })
    }

    fn at(seconds: u32) -> Moment {
        Moment::ORIGIN + SECOND * seconds
    }

    fn dies(breaker: &Breaker, now: Moment, worker: u64) -> bool {
        let death = Death {
            worker,
            cause: Cause::Crashed,
            reason: format!("worker {worker} crashed"),
        };
        breaker.died(now, &"cpu".into(), &death).is_some()
    }

    #[test]
    fn too_many_deaths_in_a_window_take_it_out() {
        let breaker = breaker();
        assert!(!dies(&breaker, at(0), 1));
        assert!(!dies(&breaker, at(9), 2));
        // The first is forgotten.
        assert!(!dies(&breaker, at(11), 3));
        assert!(dies(&breaker, at(12), 4));
        let reason = breaker.taken_out().unwrap();
        assert!(
            reason.contains("3 of its workers died within 10 s"),
            "{reason}"
        );
        assert!(reason.contains("worker 4 crashed"), "{reason}");
        let deaths = breaker.casualties().deaths;
        assert_eq!(deaths[&("cpu".into(), Cause::Crashed)], 4);
    }

    #[test]
    fn one_worker_dies_once_however_many_see_it() {
        let breaker = breaker();
        for _ in 0..9 {
            assert!(!dies(&breaker, at(0), 1));
        }
        assert_eq!(breaker.casualties().deaths.values().sum::<u64>(), 1);
    }

    #[test]
    fn pauses_grow_with_the_deaths_of_late() {
        let breaker = breaker();
        assert_eq!(breaker.pause(at(0)), Duration::ZERO);
        dies(&breaker, at(0), 1);
        assert_eq!(breaker.pause(at(0)), Duration::ZERO);
        dies(&breaker, at(1), 2);
        assert_eq!(breaker.pause(at(1)), LEAST_PAUSE);
        assert_eq!(breaker.pause(at(10)), Duration::ZERO);
    }

    #[test]
    fn it_rests_and_is_on_probation_then() {
        let breaker = breaker();
        for worker in 1..=3 {
            dies(&breaker, at(0), worker);
        }
        assert_eq!(breaker.pause(at(40)), 60 * SECOND);
        assert_eq!(breaker.pause(at(100)), Duration::ZERO);
        assert!(breaker.returned(at(100)));
        assert_eq!(breaker.taken_out(), None);
        assert!(!breaker.returned(at(101)));
        assert!(dies(&breaker, at(102), 4));
        assert_eq!(breaker.pause(at(102)), 100 * SECOND);
        // Another that was on its way all the while is back only now.
        assert!(!breaker.returned(at(103)));
        assert!(breaker.taken_out().is_some());
        assert_eq!(breaker.pause(at(103)), 99 * SECOND);
        assert!(breaker.returned(at(300)));
        // When it has held out for a window, it is as it was.
        assert!(!dies(&breaker, at(311), 5));
    }
}
