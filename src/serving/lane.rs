//! The queue of one loaded version, and the only place where requests and executors meet.
//!
//! One short lock holds the scheduler and the waiting jobs. Executors pull: a free one asks for the
//! next batch, so a request changes threads once on its way in and once on its way out.

mod core;
mod health;
mod levels;
mod parking;
mod seat;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

pub(super) use self::core::Next;
use self::core::{Core, Decision};
pub(super) use self::levels::Levels;
use self::parking::LEAST_PATIENCE;
pub(super) use self::seat::Seat;
use super::breaker::Breaker;
use super::changes::Changes;
use super::delivery::Delivery;
use super::instance::Instance;
use super::journey::TraceContext;
use super::order::Order;
use super::profile::Loan;
use super::ticket::{Job, Ticket, input_bytes};
use super::watchdog::Watch;
use crate::clock::{Clock, Moment};
use crate::scheduler::{Admitted, Item, ItemId, Learned, Load, Policy, Rejected, Step};
use crate::tensor::Tensor;

/// Why a lane does not take a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This version is being replaced or unloaded; another may serve.
    Closed,
    /// No executor is alive, for this reason.
    Down(String),
    /// The scheduler does not admit it.
    Rejected(Rejected),
}

/// Batches that one request may run for others before it hands the instance to a thread.
const MOST_DRIVEN: usize = 8;
/// The queue of one loaded version.
pub(super) struct Lane {
    clock: Arc<dyn Clock>,
    core: Mutex<Core>,
    /// Wakes executors that wait for work.
    work: Condvar,
    /// Wakes executors that wait to be made again; theirs is not the next request's wake-up.
    closing: Condvar,
    /// Told when executors come and go.
    changes: Changes,
    delivery: Arc<Delivery>,
    /// Whether the version is left alone, because its workers die.
    pub(super) breaker: Breaker,
    /// What its instances run, with their groups and devices, where somebody looks whether they hang.
    watches: Vec<(usize, Arc<str>, Arc<Watch>)>,
}

impl std::fmt::Debug for Lane {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Lane").finish_non_exhaustive()
    }
}

impl Lane {
    /// An empty lane whose batches these instances run.
    #[allow(clippy::vec_box)]
    pub(super) fn new(
        policy: Policy,
        instances: Vec<Box<Instance>>,
        clock: Arc<dyn Clock>,
        changes: Changes,
        breaker: Breaker,
    ) -> Arc<Self> {
        let delivery: Arc<Delivery> = Arc::default();
        let watches = instances.iter().filter_map(|instance| {
            let watch = Arc::clone(instance.watch.as_ref()?);
            Some((instance.berth.group, Arc::clone(instance.device()), watch))
        });
        let watches = watches.collect();
        let lane = Arc::new(Self {
            clock,
            core: Mutex::new(Core::new(policy, instances, Arc::clone(&delivery))),
            work: Condvar::new(),
            closing: Condvar::new(),
            changes,
            delivery,
            breaker,
            watches,
        });
        for instance in &lane.lock().idle {
            instance.berth.turn.wakes(&lane);
            if let Some(stake) = &instance.berth.stake {
                stake.wakes(&lane);
            }
        }
        lane
    }

    /// Bounds how many requests of each priority wait, before the first comes.
    pub(super) fn bound(&self, levels: Levels) {
        self.lock().levels = levels;
    }

    /// Has answers leave in the order in which their requests come, from the first on.
    pub(super) fn preserve_order(&self) {
        self.lock().order = Some(Arc::default());
    }

    /// An executor of `group` took this long for so much in its warm-up.
    pub(super) fn seed(&self, group: usize, load: Load, took: Duration) {
        self.lock().batcher.seed(group, load, took);
    }

    /// What was learned of each group's batches; none of those that have run none.
    pub(super) fn learned(&self) -> Vec<Option<Learned>> {
        self.lock().batcher.learned()
    }

    /// Has the next instance that runs a batch take an executor in place of its own; false if another is
    /// lent.
    pub(super) fn lend(&self, loan: Loan) -> bool {
        let mut core = self.lock();
        let lent = core.lent;
        if !lent {
            core.lent = true;
            core.loan = Some(loan);
        }
        !lent
    }

    /// Takes back what was lent, unless it runs: then it comes back after that batch.
    pub(super) fn recall(&self) -> Option<Loan> {
        let mut core = self.lock();
        core.lent = false;
        let waiting = core.loan.take();
        waiting.or_else(|| {
            core.idle
                .iter_mut()
                .find_map(|instance| instance.give_back())
        })
    }

    /// What is asked and what can be done, each answer within `objective`.
    pub(super) fn demand(&self, objective: Duration) -> Demand {
        let core = self.lock();
        Demand {
            offered: core.batcher.rows_offered(),
            sustainable: core.batcher.sustainable(objective),
        }
    }

    /// Requests waiting.
    pub(super) fn queued(&self) -> usize {
        self.lock().batcher.len()
    }

    /// Whether it takes no more requests.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Executors that can run a batch.
    pub(super) fn executors_alive(&self) -> usize {
        self.lock().alive()
    }

    /// Queues a request and takes its inputs, unless it is refused. The seat is where its answer
    /// arrives; dropping the seat takes the request out of the queue.
    pub(super) fn submit(
        self: &Arc<Self>,
        now: Moment,
        item: Item,
        context: Option<TraceContext>,
        inputs: &mut Vec<Tensor>,
    ) -> Result<Seat, Refused> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.lock();
        if core.closed {
            return Err(Refused::Closed);
        }
        if !core.has_prospects() {
            return Err(Refused::Down(core.down.clone()));
        }
        if !core.levels.admits(item.level) {
            return Err(Refused::Rejected(Rejected::Full));
        }
        let admitted = core.batcher.admit(now, item).map_err(Refused::Rejected)?;
        let Admitted { id, leaves } = admitted;
        let bytes = input_bytes(inputs);
        let entered = core.order.as_ref().map(Order::enter);
        let (place, turn) = entered.unzip();
        let job = Job {
            inputs: std::mem::take(inputs),
            item,
            arrived: now,
            context,
            retried: false,
            ticket: Ticket::new(sender, place),
        };
        core.seat(id, job);
        let last = core.idle.last();
        let quick = leaves <= now && last.is_some_and(|instance| instance.is_quick_with(bytes));
        // If it is to wait for company, whoever waits for an earlier alarm sees to it.
        let due = leaves <= now || core.alarm.is_none_or(|alarm| leaves < alarm);
        // Where others are held, so is this one; but the first to come may find another device.
        let due = due && (!core.held || core.batcher.len() == 1);
        let wake = !quick && due && core.claim_thread();
        drop(core);
        if wake {
            self.work.notify_one();
        }
        Ok(Seat {
            lane: Arc::clone(self),
            id,
            receiver,
            answered: false,
            quick,
            turn,
        })
    }

    /// Blocks until there is something to do for a thread, which gives back the instance it held.
    pub(super) fn next(&self, held: Option<Box<Instance>>) -> Next {
        let mut core = match held {
            Some(instance) => self.give_back(instance),
            None => self.lock(),
        };
        let mut patience = LEAST_PATIENCE;
        loop {
            let now = self.clock.now();
            let decision = core.decide(now);
            let others = core.others.take();
            core = match (decision, others) {
                (Decision::Do(next), others) => {
                    let more = matches!(next, Next::Run(_)) && !core.batcher.is_empty();
                    let wake = more && core.claim_thread();
                    drop(core);
                    if wake {
                        self.work.notify_one();
                    }
                    if let Some(limiter) = others {
                        limiter.wake();
                    }
                    return next;
                }
                (_, Some(limiter)) => {
                    drop(core);
                    limiter.wake();
                    // What came meanwhile has found nobody parked.
                    self.lock()
                }
                (Decision::Wait, None) => self.rest(core, &mut patience),
                (decision, None) => self.pause(core, decision, now),
            };
        }
    }

    /// Takes an instance whose batch has ended. The lane's next batch, if there is one, is known to
    /// follow before others are told that the device has time.
    fn give_back(&self, mut instance: Box<Instance>) -> MutexGuard<'_, Core> {
        let now = self.clock.now();
        let mut core = self.lock();
        core.learn(&mut instance, now);
        let follows = !core.batcher.is_empty();
        let told = instance.end(now, follows);
        let turn = told.then(|| Arc::clone(&instance.berth.turn));
        let permit = instance.permit.take();
        if let Some(permit) = permit.as_ref().filter(|_| follows) {
            permit.is_followed();
        }
        core.idle.push(instance);
        if turn.is_none() && permit.is_none() {
            return core;
        }
        drop(core);
        drop(permit);
        if let Some(turn) = turn {
            turn.wake_others();
        }
        self.lock()
    }

    /// Runs what is queued on the calling thread, if an instance is idle and quick enough; for as
    /// long as there is something and it has not been long. A batch that is larger than those that
    /// were quick is left to another thread.
    fn drive(&self) {
        let mut core = self.lock();
        let Some(mut instance) = core.idle.pop_if(|instance| instance.is_quick()) else {
            // One that is not quick may be idle, and whoever had it then was not told of this.
            if !core.idle.is_empty() && !core.batcher.is_empty() {
                self.wake(core);
            }
            return;
        };
        for _ in 0..MOST_DRIVEN {
            if core.depart(&mut instance, self.clock.now()) != Step::Dispatch {
                break;
            }
            if !instance.has_quick_batch() {
                core.laden.push(instance);
                self.wake(core);
                return;
            }
            drop(core);
            let health = instance.serve();
            self.welcome(&mut instance);
            core = self.lock();
            core.learn(&mut instance, self.clock.now());
            if let Err(broken) = health {
                core.broken.push((instance, broken));
                self.wake(core);
                return;
            }
        }
        core.idle.push(instance);
        if core.closed || !core.batcher.is_empty() {
            self.wake(core);
        }
    }

    /// It may be this version's turn on a device.
    pub(super) fn nudge(&self) {
        let mut core = self.lock();
        let wake = core.claim_thread();
        drop(core);
        if wake {
            self.work.notify_one();
        }
    }

    /// Wakes a thread to go on with what a request leaves behind.
    fn wake(&self, mut core: MutexGuard<'_, Core>) {
        let wake = core.claim_parked();
        drop(core);
        if wake {
            self.work.notify_one();
        }
    }

    /// Takes no more requests. Executors finish what is queued and then see the end.
    pub(super) fn close(&self) {
        let mut core = self.lock();
        core.closed = true;
        core.parked = 0;
        drop(core);
        self.work.notify_all();
        self.closing.notify_all();
    }

    /// Takes a request out of the queue; false if it has left already.
    fn cancel(&self, id: ItemId) -> bool {
        let mut core = self.lock();
        let job = core.cancel(id);
        let others = core.others.take();
        drop(core);
        if let Some(limiter) = others {
            limiter.wake();
        }
        job.is_some()
    }

    /// Puts a request behind all that have not waited too long; gives its new number.
    fn step_back(&self, id: ItemId) -> ItemId {
        let mut core = self.lock();
        let id = core.step_back(id);
        // Whoever was to run it may have been its own task, which has been waiting since.
        self.wake(core);
        id
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lane is asked, and what it can do.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    /// Rows that came so far, whatever became of them.
    pub offered: u64,
    /// Rows a second that it can serve, each within the objective; none before it has run anything.
    pub sustainable: Option<f64>,
}

#[cfg(test)]
mod tests;
