//! What a lane's lock holds: the scheduler, the waiting jobs, and the instances that nobody runs.

use std::sync::Arc;

use super::super::delivery::Delivery;
use super::super::instance::{Broken, Instance};
use super::super::limiter::Limiter;
use super::super::order::Order;
use super::super::profile::Loan;
use super::super::ticket::{Job, late};
use super::levels::Levels;
use crate::clock::Moment;
use crate::scheduler::{Batcher, ItemId, Late, Policy, ShapeClass, Step};

/// What a thread is to do next.
pub(in crate::serving) enum Next {
    /// Run the batch that this instance has.
    Run(Box<Instance>),
    /// Make this instance whole; it broke for this reason.
    Mend(Box<Instance>, Broken),
    /// The lane is closed and empty, and this instance is done with. It is dropped without the lane's
    /// lock, because what it needed is others' then, and they are woken.
    End(Box<Instance>),
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

/// Levels of priority between those who have waited too long and all others.
const BEHIND: u32 = 1000;

pub(super) struct Core {
    pub(super) batcher: Batcher,
    /// By the slot of the item's id.
    pub(super) jobs: Vec<Option<Job>>,
    /// Instances that nobody is running. Boxed because they change hands with every batch.
    #[allow(clippy::vec_box)]
    pub(super) idle: Vec<Box<Instance>>,
    /// Instances that have their batch, for a thread to run.
    #[allow(clippy::vec_box)]
    pub(super) laden: Vec<Box<Instance>>,
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
    /// Of those that cannot, whose workers are about to be there again, by group: requests wait for
    /// them.
    returning: Vec<usize>,
    /// Why the last executor went down.
    pub(super) down: String,
    /// Whether the version is left alone.
    pub(super) taken_out: bool,
    pub(super) closed: bool,
    /// How many requests were queued again that have to travel alone.
    pub(super) suspects: u64,
    /// Has to wake those of other lanes who waited for this one to make up its mind.
    pub(super) others: Option<Arc<Limiter>>,
    /// Whether any instance has to hold resources.
    limited: bool,
    /// An executor that waits for an instance to take it in place of its own.
    pub(super) loan: Option<Loan>,
    /// Whether one is lent, whoever has it.
    pub(super) lent: bool,
    /// Bounds of single priorities.
    pub(super) levels: Levels,
    /// Whose answer leaves when, if that matters.
    pub(super) order: Option<Arc<Order>>,
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
            limited: instances.iter().any(|one| one.berth.stake.is_some()),
            jobs: Vec::new(),
            idle: instances,
            laden: Vec::new(),
            broken: Vec::new(),
            parked: 0,
            alarm: None,
            held: false,
            returning: vec![0; alive.len()],
            alive,
            down: String::new(),
            taken_out: false,
            closed: false,
            suspects: 0,
            others: None,
            loan: None,
            lent: false,
            levels: Levels::default(),
            order: None,
            delivery,
        }
    }

    /// What a thread that has nothing is to do now.
    pub(super) fn decide(&mut self, now: Moment) -> Decision {
        if let Some((instance, broken)) = self.broken.pop() {
            return Decision::Do(Next::Mend(instance, broken));
        }
        if let Some(mut instance) = self.laden.pop() {
            instance.begin(now);
            return Decision::Do(Next::Run(instance));
        }
        let (mut instance, step) = loop {
            let Some(mut instance) = self.take_idle(now) else {
                let mut idle = self.idle.iter();
                return match idle.all(|instance| instance.berth.turn.may_go(now)) {
                    // Requests are running them all, or they wait for resources.
                    true => Decision::Wait,
                    false => Decision::Hold,
                };
            };
            // One whose worker has just died would only cost its batch another try.
            if let Some(broken) = instance.ended().filter(|_| !self.batcher.is_empty()) {
                return Decision::Do(Next::Mend(instance, broken));
            }
            match self.depart_with_resources(&mut instance, now) {
                Some(step) => break (instance, step),
                // Another lane was quicker.
                None => self.idle.push(instance),
            }
        };
        if step != Step::Dispatch || self.batcher.is_empty() {
            self.rest();
        }
        if step == Step::Dispatch {
            instance.begin(now);
            return Decision::Do(Next::Run(instance));
        }
        instance.berth.turn.rest();
        if step == Step::Idle && self.closed {
            // It runs nothing that may yet be queued again.
            self.count_alive(instance.berth.group, |alive| alive.saturating_sub(1));
            return Decision::Do(Next::End(instance));
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
        let group = instance.berth.group;
        let step = self.batcher.poll(now, group, &mut instance.batch);
        instance.stayed = self.batcher.len();
        let told = instance.batch.late.iter();
        let early = told.filter(|late| !late.expected.is_zero()).count();
        if early > 0 {
            // Before they are told: who then asks how many there were is among them.
            instance.refused_early(early);
        }
        let Instance { batch, jobs, .. } = instance;
        for Late { id, expected } in &batch.late {
            if let Some(job) = self.unseat(*id) {
                let waited = now.since(job.arrived);
                job.ticket.answer(Err(late(waited, *expected)));
            }
        }
        jobs.extend(batch.members.iter().filter_map(|id| self.unseat(*id)));
        // Who was queued again is known by another id than its seat has, and cannot be cancelled.
        jobs.retain(|job| !job.retried || !job.ticket.is_forsaken());
        if step == Step::Dispatch
            && let Some(loan) = self.loan.take()
        {
            instance.borrow(loan);
        }
        step
    }

    /// The same, if it may have the resources that it needs; none if it has to wait for them.
    fn depart_with_resources(&mut self, instance: &mut Instance, now: Moment) -> Option<Step> {
        let stake = instance.berth.stake.clone();
        let Some(stake) = stake.filter(|_| !self.batcher.is_empty()) else {
            return Some(self.depart(instance, now));
        };
        let claim = stake.claim()?;
        let step = self.depart(instance, now);
        if step == Step::Dispatch {
            instance.permit = Some(claim.take());
            self.others = Some(Arc::clone(stake.limiter()));
        } else if claim.leave() {
            self.others = Some(Arc::clone(stake.limiter()));
        }
        Some(step)
    }

    /// Nothing is to leave now for which a free instance would wait.
    fn rest(&mut self) {
        if self.limited {
            for instance in &self.idle {
                rest(instance, &mut self.others);
            }
        }
    }

    /// An instance can run nothing for now, and waits for nothing.
    pub(super) fn rest_broken(&mut self, instance: &Instance) {
        rest(instance, &mut self.others);
    }

    /// Takes an item out of the queue; none if it has left already.
    pub(super) fn cancel(&mut self, id: ItemId) -> Option<Job> {
        if !self.batcher.cancel(id) {
            return None;
        }
        if self.batcher.is_empty() {
            self.rest();
        }
        self.unseat(id)
    }

    /// An instance that nobody is running, if there is one on a device where it is this version's
    /// turn, and that need not wait for resources.
    fn take_idle(&mut self, now: Moment) -> Option<Box<Instance>> {
        if self.batcher.is_empty() {
            return self.idle.pop();
        }
        let others = &mut self.others;
        let mut idle = self.idle.iter();
        let place = idle.rposition(|instance| may_go(instance, now, others))?;
        Some(self.idle.remove(place))
    }

    /// Tells the scheduler how long the instance's last batch took.
    pub(super) fn learn(&mut self, instance: &mut Instance, now: Moment) {
        // Whoever has recalled a loan since the batch ended has not found it among those that are idle.
        instance.settle();
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

    /// Leaves the version alone, if there is a reason to.
    pub(super) fn take_out(&mut self, reason: Option<String>) {
        if let Some(reason) = reason {
            self.down = reason;
            self.taken_out = true;
        }
    }

    /// Sets aside those instances that have nothing to do and whose workers have ended; how many.
    pub(super) fn set_dead_aside(&mut self) -> usize {
        let before = self.broken.len();
        let mut idle = Vec::with_capacity(self.idle.len());
        for instance in self.idle.drain(..) {
            match instance.ended() {
                Some(broken) => self.broken.push((instance, broken)),
                None => idle.push(instance),
            }
        }
        self.idle = idle;
        self.broken.len() - before
    }

    /// Whether there is an executor that could run a batch, though the version may be left alone.
    pub(super) fn has_executor(&self) -> bool {
        self.alive.iter().any(|alive| *alive > 0)
    }

    /// Executors that can run a batch.
    pub(super) fn alive(&self) -> usize {
        match self.taken_out {
            true => 0,
            false => self.alive.iter().sum(),
        }
    }

    /// Whether a request that is queued will find an executor: now, or in a moment.
    pub(super) fn has_prospects(&self) -> bool {
        self.alive() > 0 || (!self.taken_out && self.returning.iter().any(|count| *count > 0))
    }

    pub(super) fn count_alive(&mut self, group: usize, change: impl FnOnce(usize) -> usize) {
        if let Some(alive) = self.alive.get_mut(group) {
            *alive = change(*alive);
        }
        self.tell_alive(group);
    }

    /// One more or less of a group is about to be there again.
    pub(super) fn count_returning(&mut self, group: usize, change: impl FnOnce(usize) -> usize) {
        if let Some(returning) = self.returning.get_mut(group) {
            *returning = change(*returning);
        }
        self.tell_alive(group);
    }

    /// The scheduler reckons with those that requests wait for.
    fn tell_alive(&mut self, group: usize) {
        let count = |counts: &[usize]| counts.get(group).copied().unwrap_or(0);
        let executors = count(&self.alive) + count(&self.returning);
        self.batcher.set_alive(group, executors);
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
        self.levels.came(job.item.level);
        if self.jobs.len() <= id.slot() {
            self.jobs.resize_with(id.slot() + 1, || None);
        }
        if let Some(place) = self.jobs.get_mut(id.slot()) {
            *place = Some(job);
        }
    }

    pub(super) fn unseat(&mut self, id: ItemId) -> Option<Job> {
        let job = self.jobs.get_mut(id.slot())?.take()?;
        self.levels.left(job.item.level);
        Some(job)
    }

    /// Puts an item behind all that have not been put there; gives its new number.
    pub(super) fn step_back(&mut self, id: ItemId) -> ItemId {
        if !self.batcher.cancel(id) {
            return id;
        }
        let Some(mut job) = self.unseat(id) else {
            return id;
        };
        job.item.level = job.item.level.saturating_add(BEHIND);
        let id = self.batcher.readmit(job.arrived, job.item);
        self.seat(id, job);
        id
    }

    /// Empties the queue and hands out whoever was in it.
    pub(super) fn strand(&mut self) -> Vec<Job> {
        self.batcher.drain();
        self.rest();
        let jobs: Vec<Job> = self.jobs.iter_mut().filter_map(Option::take).collect();
        jobs.iter().for_each(|job| self.levels.left(job.item.level));
        jobs
    }
}

/// Whether a batch may leave with this instance. Notes whether others have to be woken.
fn may_go(instance: &Instance, now: Moment, others: &mut Option<Arc<Limiter>>) -> bool {
    let berth = &instance.berth;
    let turn = berth.turn.may_go(now);
    let Some(stake) = &berth.stake else {
        return turn;
    };
    if turn {
        let resources = stake.may_go();
        if !resources {
            berth.turn.rest();
        }
        return resources;
    }
    // Whoever waits for its turn waits for nothing else.
    rest(instance, others);
    false
}

/// Takes an instance out of those who wait for resources. Notes whether others have to be woken.
fn rest(instance: &Instance, others: &mut Option<Arc<Limiter>>) {
    if let Some(stake) = &instance.berth.stake
        && stake.rest()
    {
        *others = Some(Arc::clone(stake.limiter()));
    }
}
