//! The batcher: a state machine that is told what happened and asked what to do now.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::class::ClassQueue;
use super::slots::{Queued, Rank, Slots};
use super::{Item, ItemId, ShapeClass};
use crate::clock::Moment;

/// What a batcher may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The most rows in one batch; at least 1.
    pub max_batch_size: usize,
    /// The most items queued.
    pub max_queue_size: usize,
    /// How long a batch that is not full may wait for company while an executor is free.
    pub max_queue_delay: Duration,
    /// An item without a deadline is ordered as if it had one this long after its arrival, so that
    /// it cannot be overtaken for ever. It never expires.
    pub patience: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_batch_size: 32,
            max_queue_size: 1024,
            max_queue_delay: Duration::ZERO,
            patience: Duration::from_secs(1),
        }
    }
}

/// Why an item was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The queue holds as many items as it may.
    #[error("the queue is full")]
    Full,
    /// It has no rows, or more than a batch may have.
    #[error("the rows do not fit a batch")]
    Rows,
    /// Its deadline has passed.
    #[error("the deadline has passed")]
    Late,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run the batch that was written into the caller's [`Batch`].
    Dispatch,
    /// Nothing leaves before this moment unless something arrives.
    WaitUntil(Moment),
    /// Nothing is queued.
    Idle,
}

/// A batch that leaves, and who was found too late on the way. Kept by the caller and used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Who travels, in order.
    pub members: Vec<ItemId>,
    /// Rows of all members.
    pub rows: usize,
    /// Who left the queue because the deadline had passed.
    pub expired: Vec<ItemId>,
}

impl Batch {
    fn clear(&mut self) {
        self.members.clear();
        self.expired.clear();
        self.rows = 0;
    }
}

/// Items waiting for an executor of one lane.
///
/// Earliest deadline first within a class; among classes, the one whose head is due first. A free
/// executor leaves at once with what is there: with one executor waiting never helps, because
/// batches form while it is busy.
#[derive(Debug)]
pub struct Batcher {
    policy: Policy,
    pub(super) slots: Slots,
    pub(super) classes: Vec<ClassQueue>,
    /// Where each class is in `classes`.
    index: HashMap<ShapeClass, usize>,
    /// The head of every class, so that the first is found without looking at all.
    pub(super) heads: BTreeSet<(Rank, ShapeClass)>,
    sequence: u64,
}

impl Batcher {
    /// An empty batcher.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            slots: Slots::default(),
            classes: Vec::new(),
            index: HashMap::new(),
            heads: BTreeSet::new(),
            sequence: 0,
        }
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
    pub fn admit(&mut self, now: Moment, item: Item) -> Result<ItemId, Rejected> {
        if self.len() >= self.policy.max_queue_size {
            return Err(Rejected::Full);
        }
        if item.rows == 0 || item.rows > self.policy.max_batch_size {
            return Err(Rejected::Rows);
        }
        if item.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Rejected::Late);
        }
        let rank = Rank {
            due: item.deadline.unwrap_or(now + self.policy.patience),
            sequence: self.sequence,
        };
        self.sequence += 1;
        let id = self.slots.insert(Queued {
            item,
            arrived: now,
            rank,
            position: 0,
        });
        self.enqueue(item, rank, id);
        self.debug_check();
        Ok(id)
    }

    /// Takes an item out of the queue; false if it has left already.
    pub fn cancel(&mut self, id: ItemId) -> bool {
        let removed = self.remove(id).is_some();
        self.debug_check();
        removed
    }

    /// What a free executor should do at `now`. Fills `batch` on [`Step::Dispatch`]; items found to
    /// be too late are put into `batch.expired` whatever the step.
    pub fn poll(&mut self, now: Moment, batch: &mut Batch) -> Step {
        batch.clear();
        let step = loop {
            match self.departure(now) {
                Departure::Now(class) => self.fill(class, now, batch),
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

    fn enqueue(&mut self, item: Item, rank: Rank, id: ItemId) {
        let next = self.classes.len();
        let place = *self.index.entry(item.class).or_insert(next);
        if place == next {
            self.classes.push(ClassQueue::new(item.class));
        }
        let Some(queue) = self.classes.get_mut(place) else {
            return;
        };
        let before = queue.head();
        queue.push(rank, id, item.rows, &mut self.slots);
        let after = queue.head();
        self.head_moved(item.class, before, after);
    }

    fn remove(&mut self, id: ItemId) -> Option<Queued> {
        let queued = *self.slots.get(id)?;
        let class = queued.item.class;
        let place = *self.index.get(&class)?;
        let queue = self.classes.get_mut(place)?;
        let before = queue.head();
        queue.remove(queued.position, queued.item.rows, &mut self.slots);
        let after = queue.head();
        self.slots.remove(id);
        self.settle(class, place, before, after);
        Some(queued)
    }

    /// Brings `heads` and `classes` up to date after members of a class have left.
    fn settle(
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

    fn head_of(&self, class: ShapeClass) -> Option<(ItemId, Queued)> {
        let (_, id) = self.queue(class)?.head()?;
        Some((id, *self.slots.get(id)?))
    }

    fn queue(&self, class: ShapeClass) -> Option<&ClassQueue> {
        self.classes.get(*self.index.get(&class)?)
    }

    fn departure(&self, now: Moment) -> Departure {
        if self.policy.max_queue_delay.is_zero() {
            return self
                .heads
                .first()
                .map_or(Departure::Never, |(_, class)| Departure::Now(*class));
        }
        let mut earliest = Departure::Never;
        for (_, class) in &self.heads {
            let leaves = self.leaves_at(*class, now);
            match earliest {
                _ if leaves <= now => return Departure::Now(*class),
                Departure::Later(sooner) if sooner <= leaves => {}
                _ => earliest = Departure::Later(leaves),
            }
        }
        earliest
    }

    /// When a class leaves if nothing more arrives: at once if full, else when its head has waited
    /// as long as it may, which is never more than half of the time that its deadline leaves it.
    fn leaves_at(&self, class: ShapeClass, now: Moment) -> Moment {
        let full = self
            .queue(class)
            .is_none_or(|queue| queue.rows >= self.policy.max_batch_size);
        match self.head_of(class) {
            Some((_, head)) if !full => {
                let allowed = head
                    .item
                    .deadline
                    .map_or(Duration::MAX, |deadline| deadline.since(head.arrived) / 2);
                head.arrived + self.policy.max_queue_delay.min(allowed)
            }
            _ => now,
        }
    }

    /// Takes the head of `class` and whoever follows it and fits; leaves the late behind.
    fn fill(&mut self, class: ShapeClass, now: Moment, batch: &mut Batch) {
        let Some(place) = self.index.get(&class).copied() else {
            return;
        };
        let Some(queue) = self.classes.get_mut(place) else {
            return;
        };
        let before = queue.head();
        while let Some((_, id)) = queue.head() {
            let Some(item) = self.slots.get(id).map(|queued| queued.item) else {
                break;
            };
            if item.deadline.is_some_and(|deadline| deadline <= now) {
                batch.expired.push(id);
            } else if batch.rows + item.rows <= self.policy.max_batch_size {
                batch.rows += item.rows;
                batch.members.push(id);
            } else {
                break;
            }
            queue.remove(0, item.rows, &mut self.slots);
            self.slots.remove(id);
        }
        let after = queue.head();
        self.settle(class, place, before, after);
    }
}

/// Which class leaves, or when to ask again.
enum Departure {
    Now(ShapeClass),
    Later(Moment),
    Never,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(rows: usize, class: u64) -> Item {
        Item {
            rows,
            class: ShapeClass(class),
            deadline: None,
        }
    }

    fn due(rows: usize, milliseconds: u64) -> Item {
        Item {
            deadline: Some(at(milliseconds)),
            ..item(rows, 0)
        }
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_millis(milliseconds)
    }

    fn batcher(max_batch_size: usize, delay_ms: u64) -> Batcher {
        Batcher::new(Policy {
            max_batch_size,
            max_queue_delay: Duration::from_millis(delay_ms),
            ..Policy::default()
        })
    }

    #[test]
    fn leaves_at_once_with_what_is_there_up_to_the_cap() {
        let mut batcher = batcher(4, 0);
        let mut batch = Batch::default();
        let ids: Vec<_> = [1, 2, 3, 1]
            .iter()
            .map(|rows| batcher.admit(at(0), item(*rows, 0)).unwrap())
            .collect();
        assert_eq!(batcher.poll(at(0), &mut batch), Step::Dispatch);
        assert_eq!((batch.members.as_slice(), batch.rows), (&ids[..2], 3));
        assert_eq!(batcher.poll(at(0), &mut batch), Step::Dispatch);
        assert_eq!((batch.members.as_slice(), batch.rows), (&ids[2..], 4));
        assert_eq!(batcher.poll(at(0), &mut batch), Step::Idle);
    }

    #[test]
    fn shapes_do_not_break_each_others_batches() {
        let mut batcher = batcher(8, 0);
        let mut batch = Batch::default();
        for class in [1, 2, 1, 2, 1] {
            batcher.admit(at(0), item(1, class)).unwrap();
        }
        assert_eq!(batcher.poll(at(0), &mut batch), Step::Dispatch);
        assert_eq!(batch.rows, 3);
        assert_eq!(batcher.poll(at(0), &mut batch), Step::Dispatch);
        assert_eq!(batch.rows, 2);
    }

    #[test]
    fn the_urgent_overtake_and_the_late_never_leave() {
        let mut batcher = batcher(1, 0);
        let mut batch = Batch::default();
        let relaxed = batcher.admit(at(0), due(1, 50)).unwrap();
        let late = batcher.admit(at(0), due(1, 5)).unwrap();
        let urgent = batcher.admit(at(0), due(1, 20)).unwrap();
        assert_eq!(batcher.poll(at(10), &mut batch), Step::Dispatch);
        assert_eq!(batch.expired, [late]);
        assert_eq!(batch.members, [urgent]);
        assert_eq!(batcher.poll(at(10), &mut batch), Step::Dispatch);
        assert_eq!(batch.members, [relaxed]);
    }

    #[test]
    fn an_explicit_delay_waits_until_full_or_over() {
        let mut batcher = batcher(2, 10);
        let mut batch = Batch::default();
        batcher.admit(at(0), item(1, 0)).unwrap();
        assert_eq!(batcher.poll(at(1), &mut batch), Step::WaitUntil(at(10)));
        assert_eq!(batcher.poll(at(10), &mut batch), Step::Dispatch);
        batcher.admit(at(20), item(1, 0)).unwrap();
        batcher.admit(at(21), item(1, 0)).unwrap();
        assert_eq!(batcher.poll(at(21), &mut batch), Step::Dispatch);
        assert_eq!(batch.rows, 2);
    }

    #[test]
    fn a_deadline_shortens_an_explicit_delay() {
        let mut batcher = batcher(2, 10);
        let mut batch = Batch::default();
        batcher.admit(at(0), due(1, 8)).unwrap();
        assert_eq!(batcher.poll(at(0), &mut batch), Step::WaitUntil(at(4)));
        assert_eq!(batcher.poll(at(4), &mut batch), Step::Dispatch);
    }

    #[test]
    fn bounds_are_kept() {
        let mut batcher = Batcher::new(Policy {
            max_batch_size: 2,
            max_queue_size: 1,
            ..Policy::default()
        });
        assert_eq!(batcher.admit(at(0), item(3, 0)), Err(Rejected::Rows));
        assert_eq!(batcher.admit(at(0), item(0, 0)), Err(Rejected::Rows));
        assert_eq!(batcher.admit(at(5), due(1, 5)), Err(Rejected::Late));
        let id = batcher.admit(at(0), item(1, 0)).unwrap();
        assert_eq!(batcher.admit(at(0), item(1, 0)), Err(Rejected::Full));
        assert!(batcher.cancel(id));
        let again = batcher.admit(at(0), item(1, 0)).unwrap();
        assert_ne!(id, again);
        assert!(!batcher.cancel(id));
    }
}
