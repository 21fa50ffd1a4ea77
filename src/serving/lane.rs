//! The queue of one loaded version, and the only place where requests and executors meet.
//!
//! One short lock holds the scheduler and the waiting jobs. Executors pull: a free one asks for the
//! next batch, so a request changes threads once on its way in and once on its way out.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::changes::Changes;
use super::instance::{Broken, Instance};
use crate::clock::{Clock, Moment};
use crate::scheduler::{
    Admitted, Batcher, Item, ItemId, Late, Learned, Load, Policy, Rejected, ShapeClass, Step,
};
use crate::status::{Code, Status};
use crate::tensor::Tensor;

/// How long the parts of an answered request took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// From arrival to leaving the queue.
    pub queue: Duration,
    /// Stacking the batch's inputs.
    pub stack: Duration,
    /// The backend's run.
    pub execute: Duration,
    /// Slicing the batch's outputs.
    pub slice: Duration,
}

/// What a ticket is answered with: the outputs in the signature's order.
pub(super) type Answer = Result<Vec<Tensor>, Status>;

/// A promise to answer one request, kept exactly once: sending consumes it, and dropping it tells
/// the one who waits that no answer will come.
#[derive(Debug)]
pub(super) struct Ticket(oneshot::Sender<Answer>);

impl Ticket {
    pub(super) fn answer(self, answer: Answer) {
        // Whoever waited may have gone away; then the answer is nobody's.
        let _ = self.0.send(answer);
    }

    /// Whether whoever waited has gone away.
    fn is_forsaken(&self) -> bool {
        self.0.is_closed()
    }
}

/// A request on its way to an executor.
#[derive(Debug)]
pub(super) struct Job {
    /// In the signature's order.
    pub(super) inputs: Vec<Tensor>,
    pub(super) item: Item,
    pub(super) arrived: Moment,
    /// Whether an executor broke under it before.
    pub(super) retried: bool,
    pub(super) ticket: Ticket,
}

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

/// What a thread is to do next.
pub(super) enum Next {
    /// Run the batch that this instance has.
    Run(Box<Instance>),
    /// Make this instance whole; it broke for this reason.
    Mend(Box<Instance>, Broken),
    /// The lane is closed and empty.
    End,
}

/// Batches that one request may run for others before it hands the instance to a thread.
const MOST_DRIVEN: usize = 8;

struct Core {
    batcher: Batcher,
    /// By the slot of the item's id.
    jobs: Vec<Option<Job>>,
    /// Instances that nobody is running. Boxed because they change hands with every batch.
    #[allow(clippy::vec_box)]
    idle: Vec<Box<Instance>>,
    /// Instances that broke in the hands of a request, and why.
    broken: Vec<(Box<Instance>, Broken)>,
    /// Threads that wait for work and have not been woken. One that is woken is no longer counted,
    /// though it has not run yet, so that a burst of requests costs one wake-up and not one each.
    parked: usize,
    /// The moment at which a thread that waits looks again by itself.
    alarm: Option<Moment>,
    /// Executors that can run a batch, by group.
    alive: Vec<usize>,
    /// Why the last executor went down.
    down: String,
    closed: bool,
    /// How many requests were queued again that have to travel alone.
    suspects: u64,
}

/// The queue of one loaded version.
pub struct Lane {
    clock: Arc<dyn Clock>,
    core: Mutex<Core>,
    /// Wakes executors that wait for work.
    work: Condvar,
    /// Wakes executors that wait to be made again; theirs is not the next request's wake-up.
    closing: Condvar,
    /// Told when executors come and go.
    changes: Changes,
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
    ) -> Arc<Self> {
        let mut alive = Vec::new();
        for instance in &instances {
            if alive.len() <= instance.group {
                alive.resize(instance.group + 1, 0);
            }
            if let Some(count) = alive.get_mut(instance.group) {
                *count += 1;
            }
        }
        Arc::new(Self {
            clock,
            core: Mutex::new(Core {
                batcher: Batcher::new(policy, &alive),
                jobs: Vec::new(),
                alarm: None,
                alive,
                idle: instances,
                broken: Vec::new(),
                parked: 0,
                down: String::new(),
                closed: false,
                suspects: 0,
            }),
            work: Condvar::new(),
            closing: Condvar::new(),
            changes,
        })
    }

    /// An executor of `group` took this long for so much in its warm-up.
    pub(super) fn seed(&self, group: usize, load: Load, took: Duration) {
        self.lock().batcher.seed(group, load, took);
    }

    /// What was learned of each group's batches; none of those that have run none.
    pub fn learned(&self) -> Vec<Option<Learned>> {
        self.lock().batcher.learned()
    }

    /// Requests waiting.
    pub fn queued(&self) -> usize {
        self.lock().batcher.len()
    }

    /// Executors that can run a batch.
    pub fn executors_alive(&self) -> usize {
        self.lock().alive()
    }

    /// Queues a request and takes its inputs, unless it is refused. The seat is where its answer
    /// arrives; dropping the seat takes the request out of the queue.
    pub(super) fn submit(
        self: &Arc<Self>,
        now: Moment,
        item: Item,
        inputs: &mut Vec<Tensor>,
    ) -> Result<Seat, Refused> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.lock();
        if core.closed {
            return Err(Refused::Closed);
        }
        if core.alive() == 0 {
            return Err(Refused::Down(core.down.clone()));
        }
        let admitted = core.batcher.admit(now, item).map_err(Refused::Rejected)?;
        let Admitted { id, leaves } = admitted;
        let job = Job {
            inputs: std::mem::take(inputs),
            item,
            arrived: now,
            retried: false,
            ticket: Ticket(sender),
        };
        core.seat(id, job);
        let quick = leaves <= now && core.idle.last().is_some_and(|instance| instance.is_quick());
        // If it is to wait for company, whoever waits for an earlier alarm sees to it.
        let due = leaves <= now || core.alarm.is_none_or(|alarm| leaves < alarm);
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
        let mut core = self.lock();
        if let Some(mut instance) = held {
            core.learn(&mut instance, self.clock.now());
            core.idle.push(instance);
        }
        loop {
            if let Some((instance, broken)) = core.broken.pop() {
                return Next::Mend(instance, broken);
            }
            let Some(mut instance) = core.idle.pop() else {
                // Requests are running them all.
                core = self.park(core, None);
                continue;
            };
            let now = self.clock.now();
            match core.depart(&mut instance, now) {
                Step::Dispatch => {
                    let more = !core.batcher.is_empty() && core.claim_thread();
                    drop(core);
                    if more {
                        self.work.notify_one();
                    }
                    return Next::Run(instance);
                }
                Step::Idle if core.closed => return Next::End,
                Step::Idle => {
                    core.idle.push(instance);
                    core = self.park(core, None);
                }
                Step::WaitUntil(moment) => {
                    core.idle.push(instance);
                    core = self.park_until(core, now, moment);
                }
            }
        }
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

    /// An executor cannot run. What it had is queued again, for another to run. When the last one
    /// goes, whoever waits is told so at once.
    pub(super) fn executor_down(&self, instance: &mut Instance, broken: &Broken) {
        let reason = &broken.status.message;
        let mut core = self.lock();
        core.count_alive(instance.group, |alive| alive.saturating_sub(1));
        core.down.clone_from(reason);
        let mut stranded = Vec::new();
        if core.alive() == 0 {
            stranded = core.strand();
        } else {
            core.queue_again(&mut instance.jobs, broken.panicked);
        }
        let wake = core.claim_thread();
        drop(core);
        if wake {
            self.work.notify_one();
        }
        self.changes.note();
        let mut failed = std::mem::take(&mut instance.jobs);
        instance.fail(&mut failed, &broken.status);
        for job in stranded {
            job.ticket.answer(Err(Status::unavailable(format!(
                "no executor is alive: {reason}"
            ))));
        }
    }

    /// An executor that was down can run again.
    pub(super) fn executor_up(&self, group: usize) {
        self.lock().count_alive(group, |alive| alive + 1);
        self.changes.note();
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

    fn cancel(&self, id: ItemId) {
        let mut core = self.lock();
        if core.batcher.cancel(id) {
            let job = core.unseat(id);
            drop(core);
            drop(job);
        }
    }

    /// Parks until `moment`, unless another thread that waits looks again before.
    fn park_until<'a>(
        &self,
        mut core: MutexGuard<'a, Core>,
        now: Moment,
        moment: Moment,
    ) -> MutexGuard<'a, Core> {
        if core.alarm.is_some_and(|alarm| alarm <= moment) {
            return self.park(core, None);
        }
        core.alarm = Some(moment);
        core = self.park(core, Some(moment.since(now)));
        // Another may have set an earlier one meanwhile, and sees to that.
        core.alarm.take_if(|alarm| *alarm == moment);
        core
    }

    fn park<'a>(
        &self,
        mut core: MutexGuard<'a, Core>,
        timeout: Option<Duration>,
    ) -> MutexGuard<'a, Core> {
        core.parked += 1;
        let Some(timeout) = timeout else {
            return self.work.wait(core).unwrap_or_else(PoisonError::into_inner);
        };
        let (mut core, ended) = self
            .work
            .wait_timeout(core, timeout)
            .unwrap_or_else(PoisonError::into_inner);
        if ended.timed_out() {
            // Nobody woke it, so it is still counted.
            core.parked = core.parked.saturating_sub(1);
        }
        core
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Core {
    /// Has the next batch leave with `instance`, if one may leave now. Answers whoever is too late.
    fn depart(&mut self, instance: &mut Instance, now: Moment) -> Step {
        let Instance { batch, jobs, .. } = instance;
        let step = self.batcher.poll(now, instance.group, batch);
        for Late { id, expected } in &batch.late {
            if let Some(job) = self.unseat(*id) {
                let waited = now.since(job.arrived);
                job.ticket.answer(Err(late(waited, *expected)));
            }
        }
        jobs.extend(batch.members.iter().filter_map(|id| self.unseat(*id)));
        // Who was queued again is known by another id than its seat has, and cannot be cancelled.
        jobs.retain(|job| !job.retried || !job.ticket.is_forsaken());
        step
    }

    /// Tells the scheduler how long the instance's last batch took.
    fn learn(&mut self, instance: &mut Instance, now: Moment) {
        if let Some(load) = instance.too_large.take() {
            self.batcher.ran_out_of_memory(now, instance.group, load);
        }
        if let Some((load, took)) = instance.took.take() {
            self.batcher.completed(now, instance.group, load, took);
        }
    }

    /// Queues what an executor broke under. If one of them may be why, each travels alone.
    fn queue_again(&mut self, jobs: &mut Vec<Job>, suspect: bool) {
        let alone = suspect && jobs.len() > 1;
        for mut job in jobs.drain(..) {
            job.retried = true;
            if alone {
                // Classes are hashes: none of these is another's.
                self.suspects += 1;
                job.item.class = ShapeClass(u64::MAX - self.suspects);
            }
            let id = self.batcher.readmit(job.arrived, job.item);
            self.seat(id, job);
        }
    }

    fn alive(&self) -> usize {
        self.alive.iter().sum()
    }

    fn count_alive(&mut self, group: usize, change: impl FnOnce(usize) -> usize) {
        if let Some(alive) = self.alive.get_mut(group) {
            *alive = change(*alive);
            self.batcher.set_alive(group, *alive);
        }
    }

    /// Takes one thread out of those that wait, if there is an instance for it to run.
    fn claim_thread(&mut self) -> bool {
        !self.idle.is_empty() && self.claim_parked()
    }

    /// Takes one thread out of those that wait; the caller wakes it.
    fn claim_parked(&mut self) -> bool {
        let waiting = self.parked > 0;
        self.parked = self.parked.saturating_sub(1);
        waiting
    }

    fn seat(&mut self, id: ItemId, job: Job) {
        if self.jobs.len() <= id.slot() {
            self.jobs.resize_with(id.slot() + 1, || None);
        }
        if let Some(place) = self.jobs.get_mut(id.slot()) {
            *place = Some(job);
        }
    }

    fn unseat(&mut self, id: ItemId) -> Option<Job> {
        self.jobs.get_mut(id.slot())?.take()
    }

    /// Empties the queue and hands out whoever was in it.
    fn strand(&mut self) -> Vec<Job> {
        self.batcher.drain();
        self.jobs.iter_mut().filter_map(Option::take).collect()
    }
}

/// What a request is told whose deadline has passed, or cannot be met by a batch that is expected to
/// take this long.
pub(super) fn late(waited: Duration, expected: Duration) -> Status {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let message = if expected.is_zero() {
        format!(
            "the deadline passed after {:.1} ms in the queue",
            milliseconds(waited)
        )
    } else {
        format!(
            "after {:.1} ms in the queue the deadline cannot be met: a batch is expected to take {:.1} ms",
            milliseconds(waited),
            milliseconds(expected)
        )
    };
    Status::new(Code::DeadlineExceeded, message)
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
    pub(super) async fn answer(&mut self, alone: bool) -> Answer {
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
        answer.unwrap_or_else(|_| Err(Status::internal("the executor gave no answer")))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.answered {
            self.lane.cancel(self.id);
        }
    }
}
