//! The queue of one loaded version, and the only place where requests and executors meet.
//!
//! One short lock holds the scheduler and the waiting jobs. Executors pull: a free one asks for the
//! next batch, so a request changes threads once on its way in and once on its way out.

mod core;
mod levels;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

pub(super) use self::core::Next;
use self::core::{Core, Decision};
pub(super) use self::levels::Levels;
use super::breaker::Breaker;
use super::changes::Changes;
use super::delivery::Delivery;
use super::instance::{Broken, Instance, NotMended};
use super::journey::TraceContext;
use super::profile::Loan;
use super::ticket::{Answer, Job, Outputs, Ticket};
use super::turns::AHEAD;
use super::watchdog::Watch;
use crate::allocator;
use crate::backend::Death;
use crate::clock::{Clock, Moment};
use crate::scheduler::{Admitted, Item, ItemId, Learned, Load, Policy, Rejected, Step};
use crate::status::Status;
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

/// How long an idle thread waits before it gives back what was freed, and before it does so again.
const LEAST_PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_mins(1);

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
        let job = Job {
            inputs: std::mem::take(inputs),
            item,
            arrived: now,
            context,
            retried: false,
            ticket: Ticket::new(sender),
        };
        core.seat(id, job);
        let quick = leaves <= now && core.idle.last().is_some_and(|instance| instance.is_quick());
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

    /// Parks a thread that has nothing to do.
    fn pause<'a>(
        &self,
        core: MutexGuard<'a, Core>,
        decision: Decision,
        now: Moment,
    ) -> MutexGuard<'a, Core> {
        match decision {
            Decision::WaitUntil(moment) => self.park_until(core, now, moment),
            Decision::Hold => self.hold(core, now),
            Decision::Wait | Decision::Do(_) => self.park(core, None).0,
        }
    }

    /// Parks a thread for which nothing is queued. If nothing comes for a while it gives back what was freed, and
    /// then again, but ever more seldom, for others may hold answers for long.
    fn rest<'a>(
        &'a self,
        core: MutexGuard<'a, Core>,
        patience: &mut Duration,
    ) -> MutexGuard<'a, Core> {
        let (core, in_vain) = self.park(core, Some(*patience));
        if !in_vain {
            return core;
        }
        drop(core);
        allocator::release();
        *patience = (*patience * 2).min(MOST_PATIENCE);
        // What came meanwhile has found nobody parked.
        self.lock()
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
    /// long as there is something and it has not been long.
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

    /// Parks until other versions have had their turn on the devices.
    fn hold<'a>(&self, mut core: MutexGuard<'a, Core>, now: Moment) -> MutexGuard<'a, Core> {
        core.held = true;
        core = self.park_until(core, now, now + AHEAD);
        core.held = false;
        core
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

    /// Makes an executor again that broke by a panic: that is ours, and its device is well. What it
    /// had is queued again, each to run alone; false if that cannot be.
    pub(super) fn mend_at_once(&self, instance: &mut Instance, broken: &Broken) -> bool {
        let mended = broken.panicked && instance.mend(broken).is_ok();
        if mended {
            self.lock().queue_again(&mut instance.jobs, true);
        }
        mended
    }

    /// An executor cannot run. What it had is queued again, for another to run, or for itself if its
    /// worker is about to be there again. When nobody is left to wait for, whoever waits is told so at
    /// once.
    pub(super) fn executor_down(&self, instance: &mut Instance, broken: &Broken) {
        if instance.end(self.clock.now(), false) {
            instance.berth.turn.wake_others();
        }
        drop(instance.permit.take());
        let group = instance.berth.group;
        let taken_out = broken
            .death
            .as_ref()
            .and_then(|death| self.died(instance, death));
        let mut core = self.lock();
        core.count_alive(group, |alive| alive.saturating_sub(1));
        if broken.death.is_some() {
            core.count_returning(group, |returning| returning + 1);
        }
        core.down.clone_from(&broken.status.message);
        core.take_out(taken_out);
        // Those that had the same worker are not to run what it died of.
        self.set_dead_aside(&mut core);
        if core.has_prospects() {
            core.queue_again(&mut instance.jobs, broken.is_suspect());
        }
        self.tell_down(core);
        let mut failed = std::mem::take(&mut instance.jobs);
        // Another server may run them.
        let status = Status::unavailable(broken.status.message.clone());
        instance.fail(&mut failed, &status);
    }

    /// An executor whose worker died is not there again, for this reason: nobody waits for it any more.
    pub(super) fn not_back(&self, instance: &Instance, broken: &Broken, failed: &NotMended) {
        let taken_out = failed
            .death
            .as_ref()
            .and_then(|death| self.died(instance, death));
        let mut core = self.lock();
        if broken.death.is_some() {
            core.count_returning(instance.berth.group, |_| 0);
        }
        core.down.clone_from(&failed.reason);
        core.take_out(taken_out);
        self.tell_down(core);
    }

    /// Why the version is left alone, if it is now.
    fn died(&self, instance: &Instance, death: &Death) -> Option<String> {
        let taken_out = self
            .breaker
            .died(self.clock.now(), instance.device(), death);
        if let Some(reason) = &taken_out {
            tracing::error!(executor = instance.name(), reason, "version taken out");
        }
        taken_out
    }

    /// Has others look what is left to be done, and tells whoever waits if nobody can do it.
    fn tell_down(&self, mut core: MutexGuard<'_, Core>) {
        let stranded = match core.has_prospects() {
            true => Vec::new(),
            false => core.strand(),
        };
        let reason = core.down.clone();
        let wake = core.claim_thread();
        drop(core);
        if wake {
            self.work.notify_one();
        }
        self.changes.note();
        for job in stranded {
            job.ticket.answer(Err(Status::unavailable(format!(
                "no executor is alive: {reason}"
            ))));
        }
    }

    /// An executor that was down for this reason can run again.
    pub(super) fn executor_up(&self, group: usize, broken: &Broken) {
        let mut core = self.lock();
        core.count_alive(group, |alive| alive + 1);
        if broken.death.is_some() {
            core.count_returning(group, |returning| returning.saturating_sub(1));
            if self.breaker.returned(self.clock.now()) {
                core.taken_out = false;
            }
        }
        drop(core);
        self.changes.note();
    }

    /// An executor that had been given up has come back by itself, if it has.
    pub(super) fn welcome(&self, instance: &mut Instance) {
        if std::mem::take(&mut instance.is_back) {
            tracing::info!(executor = instance.name(), "a run that hung has ended");
            let group = instance.berth.group;
            self.lock().count_alive(group, |alive| alive + 1);
            self.changes.note();
        }
    }

    /// Gives up executors that have hung, and answers whom they have.
    pub(super) fn look_for_hangs(&self, now: Moment) {
        for (group, device, watch) in &self.watches {
            let Some(tickets) = watch.hung(now) else {
                continue;
            };
            let longest = watch.longest().as_millis();
            let reason = format!(
                "an executor on {device} hangs: its run takes longer than {longest} ms \
                 (executor_timeout_ms)"
            );
            tracing::error!(reason, requests = tickets.len(), "executor hangs");
            self.breaker.hung(device);
            let mut core = self.lock();
            core.count_alive(*group, |alive| alive.saturating_sub(1));
            core.down.clone_from(&reason);
            self.tell_down(core);
            for ticket in tickets {
                ticket.answer(Err(Status::internal(reason.clone())));
            }
        }
    }

    /// Has executors mended whose workers have ended while they had nothing to do.
    pub(super) fn look_for_deaths(&self) {
        let mut core = self.lock();
        if !core.closed {
            self.set_dead_aside(&mut core);
        }
    }

    fn set_dead_aside(&self, core: &mut Core) {
        for _ in 0..core.set_dead_aside() {
            if core.claim_parked() {
                self.work.notify_one();
            }
        }
    }

    /// Why no executor can run a batch, if none can.
    pub(super) fn down(&self) -> Option<String> {
        let core = self.lock();
        (core.alive() == 0).then(|| core.down.clone())
    }

    /// Blocks for as long as workers of this version are not to be started; true if the lane is closed,
    /// and has nothing left for them to do.
    pub(super) fn closed_while_resting(&self) -> bool {
        let pause = self.breaker.pause(self.clock.now());
        !pause.is_zero() && self.closed_within(pause)
    }

    /// Blocks for this long; true at once when the lane is closed.
    pub(super) fn closed_within(&self, pause: Duration) -> bool {
        let until = self.clock.now() + pause;
        let mut core = self.lock();
        loop {
            let left = until.since(self.clock.now());
            if core.closed || left.is_zero() {
                return core.closed;
            }
            core = self
                .closing
                .wait_timeout(core, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Takes a request out of the queue; false if it has left already.
    fn cancel(&self, id: ItemId) -> bool {
        let mut core = self.lock();
        let queued = core.batcher.cancel(id);
        let job = if queued { core.unseat(id) } else { None };
        drop(core);
        drop(job);
        queued
    }

    /// Puts a request behind all that have not waited too long; gives its new number.
    fn step_back(&self, id: ItemId) -> ItemId {
        let mut core = self.lock();
        let id = core.step_back(id);
        // Whoever was to run it may have been its own task, which has been waiting since.
        self.wake(core);
        id
    }

    /// Parks until `moment`, unless another thread that waits looks again before.
    fn park_until<'a>(
        &self,
        mut core: MutexGuard<'a, Core>,
        now: Moment,
        moment: Moment,
    ) -> MutexGuard<'a, Core> {
        if core.alarm.is_some_and(|alarm| alarm <= moment) {
            return self.park(core, None).0;
        }
        core.alarm = Some(moment);
        core = self.park(core, Some(moment.since(now))).0;
        // Another may have set an earlier one meanwhile, and sees to that.
        core.alarm.take_if(|alarm| *alarm == moment);
        core
    }

    /// Parks a thread until it is woken, or in vain: whether nobody woke it.
    fn park<'a>(
        &self,
        mut core: MutexGuard<'a, Core>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'a, Core>, bool) {
        core.parked += 1;
        let Some(timeout) = timeout else {
            let core = self.work.wait(core);
            return (core.unwrap_or_else(PoisonError::into_inner), false);
        };
        let (mut core, ended) = self
            .work
            .wait_timeout(core, timeout)
            .unwrap_or_else(PoisonError::into_inner);
        if ended.timed_out() {
            // Nobody woke it, so it is still counted.
            core.parked = core.parked.saturating_sub(1);
        }
        (core, ended.timed_out())
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

/// Where one request's answer arrives.
#[derive(Debug)]
pub(super) struct Seat {
    lane: Arc<Lane>,
    id: ItemId,
    receiver: oneshot::Receiver<Answer>,
    answered: bool,
    /// Whether the request's own thread is to run the batch.
    quick: bool,
}

impl Seat {
    /// Waits for the answer. If batches are quick, runs one itself rather than wake a thread to do
    /// it, once every other request that has been received is queued too.
    pub(super) async fn answer(&mut self, alone: bool) -> Result<Outputs, Status> {
        if std::mem::take(&mut self.quick) {
            if !alone {
                tokio::task::yield_now().await;
            }
            if self.receiver.is_empty() {
                self.lane.drive();
            }
        }
        let answer = (&mut self.receiver).await;
        self.answered = true;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::internal("the executor gave no answer")));
        let outputs = answer?;
        let now = self.lane.clock.now();
        self.lane.delivery.saw(now, now - outputs.trip.ended);
        Ok(outputs)
    }
}

impl Seat {
    /// Gives up, if the request is still queued. False if it is not, and will be answered.
    pub(super) fn leave(&mut self) -> bool {
        let left = self.lane.cancel(self.id);
        self.answered |= left;
        left
    }

    /// Lets all others go first.
    pub(super) fn step_back(&mut self) {
        self.id = self.lane.step_back(self.id);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.answered {
            self.lane.cancel(self.id);
        }
    }
}

#[cfg(test)]
mod tests;
