//! What a lane's lock holds: the scheduler, the waiting jobs, and the instances that nobody runs.

use std::sync::Arc;

use super::super::delivery::Delivery;
use super::super::instance::{Broken, Instance};
use super::super::ticket::{Job, late};
use crate::clock::Moment;
use crate::scheduler::{Batcher, ItemId, Late, Policy, ShapeClass, Step};

/// What a thread is to do next.
pub(in crate::serving) enum Next {
    /// Run the batch that this instance has.
    Run(Box<Instance>),
    /// Make this instance whole; it broke for this reason.
    Mend(Box<Instance>, Broken),
    /// The lane is closed and empty.
    End,
}

/// What a thread that has nothing to do finds.
pub(super) enum Decision {
    /// Something to do.
    Do(Next),
    /// Nothing, until it is woken.
    Wait,
    /// Nothing before this moment.
    WaitUntil(Moment),
    /// Something for which it is not this version's turn on the devices.
    Hold,
}

pub(super) struct Core {
    pub(super) batcher: Batcher,
    /// By the slot of the item's id.
    pub(super) jobs: Vec<Option<Job>>,
    /// Instances that nobody is running. Boxed because they change hands with every batch.
    #[allow(clippy::vec_box)]
    pub(super) idle: Vec<Box<Instance>>,
    /// Instances that broke in the hands of a request, and why.
    pub(super) broken: Vec<(Box<Instance>, Broken)>,
    /// Threads that wait for work and have not been woken. One that is woken is no longer counted,
    /// though it has not run yet, so that a burst of requests costs one wake-up and not one each.
    pub(super) parked: usize,
    /// The moment at which a thread that waits looks again by itself.
    pub(super) alarm: Option<Moment>,
    /// Whether whoever has the alarm waits for other versions to have had their turn.
    pub(super) held: bool,
    /// Executors that can run a batch, by group.
    pub(super) alive: Vec<usize>,
    /// Why the last executor went down.
    pub(super) down: String,
    pub(super) closed: bool,
    /// How many requests were queued again that have to travel alone.
    pub(super) suspects: u64,
    /// What answers take beside their batch.
    delivery: Arc<Delivery>,
}

impl Core {
    #[allow(clippy::vec_box)]
    pub(super) fn new(
        policy: Policy,
        instances: Vec<Box<Instance>>,
        delivery: Arc<Delivery>,
    ) -> Self {
        let mut alive = Vec::new();
        for instance in &instances {
            if alive.len() <= instance.berth.group {
                alive.resize(instance.berth.group + 1, 0);
            }
            if let Some(count) = alive.get_mut(instance.berth.group) {
                *count += 1;
            }
        }
        Self {
            batcher: Batcher::new(policy, &alive),
            jobs: Vec::new(),
            idle: instances,
            broken: Vec::new(),
            parked: 0,
            alarm: None,
            held: false,
            alive,
            down: String::new(),
            closed: false,
            suspects: 0,
            delivery,
        }
    }

    /// What a thread that has nothing is to do now.
    pub(super) fn decide(&mut self, now: Moment) -> Decision {
        if let Some((instance, broken)) = self.broken.pop() {
            return Decision::Do(Next::Mend(instance, broken));
        }
        let Some(mut instance) = self.take_idle(now) else {
            return match self.idle.is_empty() {
                // Requests are running them all.
                true => Decision::Wait,
                false => Decision::Hold,
            };
        };
        let step = self.depart(&mut instance, now);
        if step == Step::Dispatch {
            instance.begin(now);
            return Decision::Do(Next::Run(instance));
        }
        instance.berth.turn.rest();
        if step == Step::Idle && self.closed {
            return Decision::Do(Next::End);
        }
        self.idle.push(instance);
        match step {
            Step::WaitUntil(moment) => Decision::WaitUntil(moment),
            _ => Decision::Wait,
        }
    }

    /// Has the next batch leave with `instance`, if one may leave now. Answers whoever is too late.
    pub(super) fn depart(&mut self, instance: &mut Instance, now: Moment) -> Step {
        self.batcher.set_delivery(self.delivery.expected(now));
        let Instance { batch, jobs, .. } = instance;
        let step = self.batcher.poll(now, instance.berth.group, batch);
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

    /// An instance that nobody is running, if there is one on a device where it is this version's
    /// turn.
    fn take_idle(&mut self, now: Moment) -> Option<Box<Instance>> {
        if self.batcher.is_empty() {
            return self.idle.pop();
        }
        let mut idle = self.idle.iter();
        let place = idle.rposition(|instance| instance.berth.turn.may_go(now))?;
        Some(self.idle.remove(place))
    }

    /// Tells the scheduler how long the instance's last batch took.
    pub(super) fn learn(&mut self, instance: &mut Instance, now: Moment) {
        if let Some(load) = instance.too_large.take() {
            self.batcher
                .ran_out_of_memory(now, instance.berth.group, load);
        }
        if let Some((load, took)) = instance.took.take() {
            self.batcher
                .completed(now, instance.berth.group, load, took);
        }
    }

    /// Queues what an executor broke under. If one of them may be why, each travels alone.
    pub(super) fn queue_again(&mut self, jobs: &mut Vec<Job>, suspect: bool) {
        for mut job in jobs.drain(..) {
            job.retried = true;
            if suspect {
                // Classes are hashes: none of these is another's.
                self.suspects += 1;
                job.item.class = ShapeClass(u64::MAX - self.suspects);
            }
            let id = self.batcher.readmit(job.arrived, job.item);
            self.seat(id, job);
        }
    }

    pub(super) fn alive(&self) -> usize {
        self.alive.iter().sum()
    }

    pub(super) fn count_alive(&mut self, group: usize, change: impl FnOnce(usize) -> usize) {
        if let Some(alive) = self.alive.get_mut(group) {
            *alive = change(*alive);
            self.batcher.set_alive(group, *alive);
        }
    }

    /// Takes one thread out of those that wait, if there is an instance for it to run.
    pub(super) fn claim_thread(&mut self) -> bool {
        !self.idle.is_empty() && self.claim_parked()
    }

    /// Takes one thread out of those that wait; the caller wakes it.
    pub(super) fn claim_parked(&mut self) -> bool {
        let waiting = self.parked > 0;
        self.parked = self.parked.saturating_sub(1);
        waiting
    }

    pub(super) fn seat(&mut self, id: ItemId, job: Job) {
        if self.jobs.len() <= id.slot() {
            self.jobs.resize_with(id.slot() + 1, || None);
        }
        if let Some(place) = self.jobs.get_mut(id.slot()) {
            *place = Some(job);
        }
    }

    pub(super) fn unseat(&mut self, id: ItemId) -> Option<Job> {
        self.jobs.get_mut(id.slot())?.take()
    }

    /// Empties the queue and hands out whoever was in it.
    pub(super) fn strand(&mut self) -> Vec<Job> {
        self.batcher.drain();
        self.jobs.iter_mut().filter_map(Option::take).collect()
    }
}
