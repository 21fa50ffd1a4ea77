//! Looks whether executors in threads of this process have hung, and answers whom they have; and whether
//! workers have ended while they had nothing to do.
//!
//! A thread in native code cannot be ended. So its requests are answered in its place, the lane no
//! longer counts on it, and if it comes back after all it is welcome.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::lane::Lane;
use super::ticket::{Job, Ticket};
use crate::clock::{Clock, Moment};

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(250);

/// What an instance runs, for the watchdog to see.
#[derive(Debug)]
pub(super) struct Watch {
    /// What takes longer has hung.
    longest: Duration,
    run: Mutex<Run>,
}

#[derive(Debug, Default)]
struct Run {
    since: Option<Moment>,
    tickets: Vec<Ticket>,
    hung: bool,
    /// Whether the lane does not count on the executor, until it is told that it is back: several runs
    /// may hang before that.
    counted_out: bool,
}

/// A run that hangs.
#[derive(Debug)]
pub(super) struct Hung {
    /// Whoever waits for it.
    pub(super) tickets: Vec<Ticket>,
    /// Whether the executor was counted on.
    pub(super) counted: bool,
}

impl Watch {
    pub(super) fn new(longest: Duration) -> Arc<Self> {
        Arc::new(Self {
            longest,
            run: Mutex::default(),
        })
    }

    pub(super) fn longest(&self) -> Duration {
        self.longest
    }

    /// A run begins. Its tickets are here while it lasts.
    pub(super) fn begin(&self, now: Moment, jobs: &mut [Job]) {
        let mut run = self.lock();
        run.since = Some(now);
        run.tickets
            .extend(jobs.iter_mut().map(|job| job.ticket.take()));
    }

    /// The run has ended, and the jobs have their tickets again. False if it had hung, and they were
    /// answered.
    pub(super) fn end(&self, jobs: &mut [Job]) -> bool {
        let mut run = self.lock();
        run.since = None;
        for (job, ticket) in jobs.iter_mut().zip(run.tickets.drain(..)) {
            job.ticket = ticket;
        }
        !std::mem::take(&mut run.hung)
    }

    /// A run that has hung, from now on not counted on; none if it has not, or that was told.
    pub(super) fn hung(&self, now: Moment) -> Option<Hung> {
        let mut run = self.lock();
        let since = run.since.filter(|_| !run.hung)?;
        if now.since(since) < self.longest {
            return None;
        }
        run.hung = true;
        Some(Hung {
            tickets: std::mem::take(&mut run.tickets),
            counted: !std::mem::replace(&mut run.counted_out, true),
        })
    }

    /// The executor is counted on again.
    pub(super) fn count_in(&self) {
        self.lock().counted_out = false;
    }

    fn lock(&self) -> MutexGuard<'_, Run> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks after the executors of every lane, whoever they wait for.
#[derive(Debug, Default)]
pub struct Watchdog(Mutex<Vec<Weak<Lane>>>);

impl Watchdog {
    pub(super) fn add(&self, lane: &Arc<Lane>) {
        self.lock().push(Arc::downgrade(lane));
    }

    /// Looks again and again, for ever.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>) {
        loop {
            clock.sleep_until(clock.now() + LOOK).await;
            self.look(clock.now());
        }
    }

    fn look(&self, now: Moment) {
        let mut lanes = self.lock();
        lanes.retain(|lane| lane.strong_count() > 0);
        let there: Vec<Arc<Lane>> = lanes.iter().filter_map(Weak::upgrade).collect();
        drop(lanes);
        for lane in there {
            lane.look_for_hangs(now);
            lane.look_for_deaths();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Lane>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
