//! What a version has done so far: counts, how long things took, and its last batches one by one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::histogram::{Histogram, ROWS, SHARES, Times};
use super::journey::{Journey, TraceContext, Trip};
use crate::clock::{Moment, wall_nanoseconds};
use crate::status::Code;

/// Batches of each version that are remembered one by one.
const REMEMBERED: usize = 256;

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

/// What the executors of one device have done.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceCounts {
    /// The device; empty if it has run nothing.
    pub device: Arc<str>,
    /// Batches that succeeded.
    pub batches: u64,
    /// Rows of theirs.
    pub rows: u64,
    /// Time in which executors had batches, those that failed too, each counted by itself.
    pub busy: Duration,
    /// The device's time that they had, beside others.
    pub device_time: Duration,
    /// Stacking a batch's inputs.
    pub stack: Times,
    /// Running it.
    pub execute: Times,
    /// Slicing its outputs.
    pub slice: Times,
    /// Rows of a batch, without those that were added.
    pub batch_rows: Histogram<{ ROWS.len() }>,
    /// The share of a batch that was added to fill it up.
    pub padding: Histogram<{ SHARES.len() }>,
}

impl Default for DeviceCounts {
    fn default() -> Self {
        Self {
            device: Arc::from(""),
            batches: 0,
            rows: 0,
            busy: Duration::ZERO,
            device_time: Duration::ZERO,
            stack: Times::default(),
            execute: Times::default(),
            slice: Times::default(),
            batch_rows: Histogram::new(&ROWS),
            padding: Histogram::new(&SHARES),
        }
    }
}

/// A request that is told in a trace, standing for all that took about as long.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exemplar {
    /// Where it is in its trace.
    pub context: TraceContext,
    /// How long it took, in seconds.
    pub value: f64,
    /// Wall-clock nanoseconds since the Unix epoch when it ended.
    pub wall_nanoseconds: u64,
}

/// What a version has done so far.
#[derive(Clone, Debug, Default, PartialEq)]
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
    /// Requests that were told before their deadline that it could not be met.
    pub refused_early: u64,
    /// Requests answered with an error, admitted or not, by what they were told.
    pub errors: BTreeMap<Code, u64>,
    /// Requests answered with success within the version's latency objective.
    pub in_time: u64,
    /// Requests answered later, and those that failed by no fault of their clients.
    pub not_in_time: u64,
    /// By rows in the batch; never more entries than the largest batch has rows.
    pub by_batch_size: BTreeMap<usize, BatchCounts>,
    /// By group of executors; an ensemble has none.
    pub by_device: Vec<DeviceCounts>,
    /// From a call's headers to a request that was understood.
    pub decode_times: Times,
    /// In the queue, of requests that ran.
    pub queue_times: Times,
    /// Writing the answers of requests that succeeded.
    pub encode_times: Times,
    /// From a call's headers to what it was told, of all requests that somebody waited for.
    pub total_times: Times,
    /// The last of each bucket of [`Self::total_times`] that is in a trace.
    pub exemplars: BTreeMap<usize, Exemplar>,
}

/// [`Statistics`] that executors add to, once a batch.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    statistics: Statistics,
    /// Batches that ran, or tried to.
    trips: u64,
    /// The last of them, oldest first.
    recent: VecDeque<Arc<Trip>>,
}

impl Book {
    fn remember(&mut self, mut trip: Trip) -> Arc<Trip> {
        self.trips += 1;
        trip.number = self.trips;
        let trip = Arc::new(trip);
        if self.recent.len() >= REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back(Arc::clone(&trip));
        trip
    }

    fn device(&mut self, group: usize, trip: &Trip) -> &mut DeviceCounts {
        let devices = &mut self.statistics.by_device;
        if devices.len() <= group {
            devices.resize_with(group + 1, DeviceCounts::default);
        }
        #[allow(clippy::indexing_slicing)] // it was made just now, if it was not there
        let counts = &mut devices[group];
        if counts.device.is_empty() {
            counts.device = Arc::clone(&trip.device);
        }
        counts
    }
}

impl Ledger {
    pub(super) fn read(&self) -> Statistics {
        self.lock().statistics.clone()
    }

    /// The last batches, oldest first.
    pub(super) fn recent(&self) -> Vec<Arc<Trip>> {
        self.lock().recent.iter().cloned().collect()
    }

    /// How long running a batch took so far, on average over requests.
    pub(super) fn mean_run(&self) -> Duration {
        let execute = self.lock().statistics.execute;
        let count = u32::try_from(execute.count).unwrap_or(u32::MAX);
        execute.total.checked_div(count).unwrap_or_default()
    }

    /// Adds a batch that succeeded, of executors of `group`, and its requests.
    pub(super) fn ran(&self, group: usize, trip: Trip, wall_milliseconds: u64) -> Arc<Trip> {
        let mut book = self.lock();
        let stack = trip.stacked - trip.left;
        let execute = trip.ran - trip.stacked;
        let slice = trip.ended - trip.ran;
        let on = book.device(group, &trip);
        on.batches += 1;
        on.rows += trip.rows as u64;
        on.busy += trip.took();
        on.device_time += trip.device_time;
        on.stack.took(stack);
        on.execute.took(execute);
        on.slice.took(slice);
        on.batch_rows.add(trip.rows as f64);
        on.padding.add(trip.padding());
        let statistics = &mut book.statistics;
        statistics.own_tokens += trip.own_tokens as u64;
        statistics.run_tokens += trip.run_tokens as u64;
        statistics.last_run_milliseconds = wall_milliseconds;
        statistics.batches += 1;
        statistics.rows += trip.rows as u64;
        let counts = statistics.by_batch_size.entry(trip.rows).or_default();
        counts.stack.add(stack);
        counts.execute.add(execute);
        counts.slice.add(slice);
        // What others were told meanwhile is counted when they are (`ended`).
        for member in trip.members.iter().filter(|member| member.awaited) {
            let queue = trip.left - member.arrived;
            statistics.success.add(trip.ended - member.arrived);
            statistics.queue.add(queue);
            statistics.queue_times.took(queue);
            statistics.stack.add(stack);
            statistics.execute.add(execute);
            statistics.slice.add(slice);
        }
        book.remember(trip)
    }

    /// Adds a batch that failed with all its requests.
    pub(super) fn broke(&self, group: usize, trip: Trip) {
        let mut book = self.lock();
        let on = book.device(group, &trip);
        on.busy += trip.took();
        on.device_time += trip.device_time;
        for member in trip.members.iter().filter(|member| member.awaited) {
            book.statistics.failure.add(trip.ended - member.arrived);
        }
        book.remember(trip);
    }

    /// Adds a request of an ensemble that succeeded: a batch of its own, whose time is all its models'.
    pub(super) fn passed(&self, rows: usize, total: Duration, wall_milliseconds: u64) {
        let mut book = self.lock();
        let statistics = &mut book.statistics;
        statistics.own_tokens += rows as u64;
        statistics.run_tokens += rows as u64;
        statistics.last_run_milliseconds = wall_milliseconds;
        statistics.batches += 1;
        statistics.rows += rows as u64;
        let counts = statistics.by_batch_size.entry(rows).or_default();
        counts.stack.add(Duration::ZERO);
        counts.execute.add(total);
        counts.slice.add(Duration::ZERO);
        statistics.success.add(total);
        statistics.queue.add(Duration::ZERO);
        statistics.stack.add(Duration::ZERO);
        statistics.execute.add(total);
        statistics.slice.add(Duration::ZERO);
    }

    pub(super) fn failed(&self, total: Duration) {
        self.lock().statistics.failure.add(total);
    }

    /// So many were told that their deadlines, which had not passed, could not be met.
    pub(super) fn refused_early(&self, requests: usize) {
        self.lock().statistics.refused_early += requests as u64;
    }

    /// Adds a request that was answered from the cache.
    pub(super) fn hit(&self, total: Duration, looked: Duration, wall_milliseconds: u64) {
        let mut book = self.lock();
        let statistics = &mut book.statistics;
        statistics.last_run_milliseconds = wall_milliseconds;
        statistics.success.add(total);
        statistics.cache_hit.add(looked);
    }

    /// Adds a request that was not in the cache.
    pub(super) fn missed(&self, looked: Duration) {
        self.lock().statistics.cache_miss.add(looked);
    }

    /// Its answer is there now.
    pub(super) fn kept(&self, took: Duration) {
        self.lock().statistics.cache_miss.total += took;
    }

    /// A request is done with: its answer is written, or it was told this.
    pub(super) fn ended(
        &self,
        journey: &Journey,
        objective: Duration,
        code: Option<Code>,
        encoded: Option<Moment>,
    ) {
        let end = encoded.unwrap_or(journey.answered);
        let total = end - journey.arrived;
        let mut book = self.lock();
        let statistics = &mut book.statistics;
        if let Some(code) = code {
            *statistics.errors.entry(code).or_default() += 1;
        }
        if code == Some(Code::Cancelled) {
            return;
        }
        statistics
            .decode_times
            .took(journey.began - journey.arrived);
        statistics.total_times.took(total);
        match code {
            None if total <= objective => statistics.in_time += 1,
            Some(code) if !code.is_ours() => {}
            None | Some(_) => statistics.not_in_time += 1,
        }
        if encoded.is_some() {
            statistics.encode_times.took(end - journey.answered);
        }
        if let Some(context) = journey.context.filter(|context| context.sampled) {
            let value = total.as_secs_f64();
            let bucket = statistics.total_times.bucket(value);
            let exemplar = Exemplar {
                context,
                value,
                wall_nanoseconds: wall_nanoseconds(),
            };
            statistics.exemplars.insert(bucket, exemplar);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
