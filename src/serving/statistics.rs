//! What a version has done so far: the counts of the protocol's statistics extension.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ticket::Timing;
use crate::status::Code;

/// How often something happened, and how long it took in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub total: Duration,
}

impl Count {
    fn add(&mut self, duration: Duration) {
        self.count += 1;
        self.total += duration;
    }
}

/// What batches of one size cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchCounts {
    /// Stacking inputs.
    pub stack: Count,
    /// The backend's run.
    pub execute: Count,
    /// Slicing outputs.
    pub slice: Count,
}

/// What a version has done so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Wall-clock milliseconds since the Unix epoch when it last ran a batch; 0 if never.
    pub last_run_milliseconds: u64,
    /// Rows answered with success.
    pub rows: u64,
    /// Batches that succeeded.
    pub batches: u64,
    /// Rows times their lengths, of batches that succeeded.
    pub own_tokens: u64,
    /// The same as it ran, with what was added.
    pub run_tokens: u64,
    /// Requests answered with success, from arrival to answer.
    pub success: Count,
    /// Requests answered with an error after they were admitted.
    pub failure: Count,
    /// Time in the queue of requests that succeeded.
    pub queue: Count,
    /// Share of stacking of requests that succeeded.
    pub stack: Count,
    /// Share of running of requests that succeeded.
    pub execute: Count,
    /// Share of slicing of requests that succeeded.
    pub slice: Count,
    /// Requests answered from the cache, and how long it took to look there.
    pub cache_hit: Count,
    /// Requests that were not there, and how long it took to look and to keep their answers.
    pub cache_miss: Count,
    /// Requests answered with an error, admitted or not, by what they were told.
    pub errors: BTreeMap<Code, u64>,
    /// By rows in the batch; never more entries than the largest batch has rows.
    pub by_batch_size: BTreeMap<usize, BatchCounts>,
}

/// [`Statistics`] that executors add to, once a batch.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Statistics>);

impl Ledger {
    pub(super) fn read(&self) -> Statistics {
        self.lock().clone()
    }

    /// Adds a batch that succeeded: its rows, the tokens that it had of its own and those that ran.
    pub(super) fn ran(
        &self,
        rows: usize,
        (own, run): (usize, usize),
        timing: Timing,
        wall_milliseconds: u64,
    ) {
        let mut statistics = self.lock();
        statistics.own_tokens += own as u64;
        statistics.run_tokens += run as u64;
        statistics.last_run_milliseconds = wall_milliseconds;
        statistics.batches += 1;
        statistics.rows += rows as u64;
        let counts = statistics.by_batch_size.entry(rows).or_default();
        counts.stack.add(timing.stack);
        counts.execute.add(timing.execute);
        counts.slice.add(timing.slice);
    }

    /// Adds the requests of one batch that succeeded.
    pub(super) fn succeeded(&self, requests: impl Iterator<Item = (Duration, Timing)>) {
        let mut statistics = self.lock();
        for (total, timing) in requests {
            statistics.success.add(total);
            statistics.queue.add(timing.queue);
            statistics.stack.add(timing.stack);
            statistics.execute.add(timing.execute);
            statistics.slice.add(timing.slice);
        }
    }

    /// Adds a request of an ensemble that succeeded: a batch of its own, whose time is all its models'.
    pub(super) fn passed(&self, rows: usize, total: Duration, wall_milliseconds: u64) {
        let timing = Timing {
            execute: total,
            ..Timing::default()
        };
        self.ran(rows, (rows, rows), timing, wall_milliseconds);
        self.succeeded(std::iter::once((total, timing)));
    }

    pub(super) fn failed(&self, total: Duration) {
        self.lock().failure.add(total);
    }

    /// Adds a request that was answered from the cache.
    pub(super) fn hit(&self, total: Duration, looked: Duration, wall_milliseconds: u64) {
        let mut statistics = self.lock();
        statistics.last_run_milliseconds = wall_milliseconds;
        statistics.success.add(total);
        statistics.cache_hit.add(looked);
    }

    /// Adds a request that was not in the cache.
    pub(super) fn missed(&self, looked: Duration) {
        self.lock().cache_miss.add(looked);
    }

    /// Its answer is there now.
    pub(super) fn kept(&self, took: Duration) {
        self.lock().cache_miss.total += took;
    }

    /// A request was told this.
    pub(super) fn told(&self, code: Code) {
        *self.lock().errors.entry(code).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Statistics> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
