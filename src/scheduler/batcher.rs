//! The batcher: a state machine that is told what happened and asked what to do now.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::class::ClassQueue;
use super::departure::Departure;
use super::fleet::Fleet;
use super::grouping::Grouping;
use super::ladder;
use super::slots::{Queued, Rank, Slots};
use super::traffic::Traffic;
use super::{Admitted, Batch, Item, ItemId, Learned, Load, Policy, Rejected, ShapeClass, Step};
use crate::clock::Moment;

/// Items waiting for an executor of one lane.
///
/// Earliest deadline first within a class; among classes, the one whose head is due first. With one
/// executor a batch leaves at once with what is there, because batches form while it is busy. With
/// several, one that brings deadlines waits until it is large enough for the executors to keep up,
/// or until its head could wait no longer. A batch is never so large that its most urgent member
/// would be late, and who cannot be in time is told so instead of travelling. Rows of different
/// lengths travel together where padding the shorter ones costs less than another batch.
#[derive(Clone, Debug)]
pub struct Batcher {
    pub(super) policy: Policy,
    pub(super) slots: Slots,
    pub(super) classes: Vec<ClassQueue>,
    /// Where each class is in `classes`.
    pub(super) index: HashMap<ShapeClass, usize>,
    /// The head of every class, so that the first is found without looking at all.
    pub(super) heads: BTreeSet<(Rank, ShapeClass)>,
    sequence: u64,
    pub(super) fleet: Fleet,
    pub(super) traffic: Traffic,
    /// Work that a batch is to have for the executors to keep up, and when that was found.
    pub(super) target: f64,
    pub(super) targeted: Moment,
    pub(super) grouping: Grouping,
    /// What the way of an answer takes beyond the policy's margin.
    delivery: Duration,
}

impl Batcher {
    /// An empty batcher for groups of equally fast executors, of so many each.
    pub fn new(policy: Policy, executors: &[usize]) -> Self {
        Self {
            policy,
            slots: Slots::default(),
            classes: Vec::new(),
            index: HashMap::new(),
            heads: BTreeSet::new(),
            sequence: 0,
            fleet: Fleet::new(executors),
            traffic: Traffic::default(),
            target: 1.0,
            targeted: Moment::ORIGIN,
            grouping: Grouping::default(),
            delivery: Duration::ZERO,
        }
    }

    /// Between the end of a batch and the moment at which its answers are of use, so much passes
    /// beside the policy's margin.
    pub fn set_delivery(&mut self, delivery: Duration) {
        self.delivery = delivery;
    }

    /// Kept between the end of a batch and a deadline.
    pub(super) fn margin(&self) -> Duration {
        self.policy.margin + self.delivery
    }

    /// What it may do.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Items queued.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Queues an item, or says why not.
    pub fn admit(&mut self, now: Moment, item: Item) -> Result<Admitted, Rejected> {
        let length = self.policy.run_length(item.length);
        if item.rows == 0
            || item.rows > self.policy.max_batch_size
            || item.rows.saturating_mul(length) > self.policy.max_batch_tokens
        {
            return Err(Rejected::Rows);
        }
        self.traffic.arrived(now, &item);
        self.refresh(now);
        if self.len() >= self.policy.max_queue_size {
            return Err(Rejected::Full);
        }
        if let Some(expected) = self.hopeless(now, &item) {
            return Err(Rejected::Late(expected));
        }
        let id = self.take(now, item);
        let leaves = self.earliest_departure(item.class, now);
        Ok(Admitted { id, leaves })
    }

    /// Queues an item again whose batch failed through no fault of its own. It keeps its place, and
    /// no bound applies: it has been admitted.
    pub fn readmit(&mut self, arrived: Moment, item: Item) -> ItemId {
        self.take(arrived, item)
    }

    fn take(&mut self, now: Moment, item: Item) -> ItemId {
        let due = item.deadline.unwrap_or(now + self.policy.patience);
        let rank = Rank {
            due: due + self.policy.level_step * item.level,
            sequence: self.sequence,
        };
        self.sequence += 1;
        let queued = Queued {
            item,
            arrived: now,
            rank,
            rung: ladder::rung(item.length),
            position: 0,
        };
        let id = self.slots.insert(queued);
        self.enqueue(id, &queued);
        self.debug_check();
        id
    }

    /// Takes an item out of the queue; false if it has left already.
    pub fn cancel(&mut self, id: ItemId) -> bool {
        let removed = self.remove(id).is_some();
        self.debug_check();
        removed
    }

    /// What a free executor of `group` should do at `now`. Fills `batch` on [`Step::Dispatch`]; items
    /// found to be too late are put into `batch.late` whatever the step.
    pub fn poll(&mut self, now: Moment, group: usize, batch: &mut Batch) -> Step {
        batch.clear();
        self.refresh(now);
        let step = loop {
            match self.departure(now, group) {
                Departure::Now(class, reason) => {
                    self.fill(class, now, group, batch);
                    batch.reason = reason;
                }
                Departure::Later(moment) => break Step::WaitUntil(moment),
                Departure::Never => break Step::Idle,
            }
            if !batch.members.is_empty() {
                break Step::Dispatch;
            }
        };
        self.debug_check();
        step
    }

    /// An executor of `group` took this long for a batch, from its departure on.
    pub fn completed(&mut self, now: Moment, group: usize, load: Load, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.fleet.observe(now, group, load, nanoseconds);
        self.retarget(now);
    }

    /// An executor of `group` had not enough memory for a batch: for a while, its batches of that class
    /// are smaller.
    pub fn ran_out_of_memory(&mut self, now: Moment, group: usize, load: Load) {
        self.fleet.limit(now, group, load);
    }

    /// An executor of `group` took this long for so much in its warm-up.
    pub fn seed(&mut self, group: usize, load: Load, took: Duration) {
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.fleet.seed(group, load, nanoseconds);
    }

    /// So many executors of `group` can run batches now.
    pub fn set_alive(&mut self, group: usize, executors: usize) {
        self.fleet.set_alive(group, executors);
    }

    /// Rows that came since it was made, whatever became of them.
    pub fn rows_offered(&self) -> u64 {
        self.traffic.rows()
    }

    /// What was learned of each group's batches, of all classes; none of those that have run none.
    pub fn learned(&self) -> Vec<Option<Learned>> {
        self.fleet.learned().collect()
    }

    /// What is expected of a batch; none before the first.
    pub fn expected(&self, group: usize, load: Load) -> Option<Duration> {
        let time = self.fleet.time(group, load.class);
        time.is_known().then(|| duration(time.at(load.work())))
    }

    /// Drops every item and hands out who was there.
    pub fn drain(&mut self) -> Vec<ItemId> {
        let members = self.classes.iter().flat_map(ClassQueue::members);
        let ids: Vec<ItemId> = members.map(|(_, _, id)| id).collect();
        for id in &ids {
            self.remove(*id);
        }
        ids
    }

    fn enqueue(&mut self, id: ItemId, queued: &Queued) {
        let class = queued.item.class;
        let next = self.classes.len();
        let place = *self.index.entry(class).or_insert(next);
        if place == next {
            self.classes.push(ClassQueue::new(class));
        }
        let Some(queue) = self.classes.get_mut(place) else {
            return;
        };
        let before = queue.head();
        queue.push(id, queued, &mut self.slots);
        let after = queue.head();
        self.head_moved(class, before, after);
    }

    fn remove(&mut self, id: ItemId) -> Option<Queued> {
        let queued = *self.slots.get(id)?;
        let class = queued.item.class;
        let place = *self.index.get(&class)?;
        let queue = self.classes.get_mut(place)?;
        let before = queue.head();
        queue.remove(&queued, &mut self.slots);
        let after = queue.head();
        self.slots.remove(id);
        self.settle(class, place, before, after);
        Some(queued)
    }

    /// Brings `heads` and `classes` up to date after members of a class have left.
    pub(super) fn settle(
        &mut self,
        class: ShapeClass,
        place: usize,
        before: Option<(Rank, ItemId)>,
        after: Option<(Rank, ItemId)>,
    ) {
        self.head_moved(class, before, after);
        if after.is_none() {
            self.forget(class, place);
        }
    }

    fn head_moved(
        &mut self,
        class: ShapeClass,
        before: Option<(Rank, ItemId)>,
        after: Option<(Rank, ItemId)>,
    ) {
        if before == after {
            return;
        }
        if let Some((rank, _)) = before {
            self.heads.remove(&(rank, class));
        }
        if let Some((rank, _)) = after {
            self.heads.insert((rank, class));
        }
    }

    /// Drops a class that has become empty, unless it is the only one: models without varying
    /// dimensions have just that one, and it need not be made anew for each request.
    fn forget(&mut self, class: ShapeClass, place: usize) {
        if self.classes.len() == 1 {
            return;
        }
        self.index.remove(&class);
        self.classes.swap_remove(place);
        if let Some(moved) = self.classes.get(place) {
            self.index.insert(moved.class, place);
        }
    }
}

/// The casts of the fit's nanoseconds saturate.
pub(super) fn duration(nanoseconds: f64) -> Duration {
    Duration::from_nanos(nanoseconds as u64)
}
