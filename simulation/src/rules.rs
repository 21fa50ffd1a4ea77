//! Rules for when a batch leaves: the server's own, and those of others.

use std::collections::VecDeque;
use std::time::Duration;

use jitney::clock::Moment;
use jitney::scheduler::{Batch, Batcher, Item, ItemId, Load, Policy, Step};

/// Requests are known by their number.
pub type Number = usize;

/// What a rule decides for a free executor.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// Who leaves together.
    pub members: Vec<Number>,
    /// Who is told that it cannot be in time.
    pub refused: Vec<Number>,
    /// If nobody leaves: when to ask again although nothing has arrived.
    pub again: Option<Moment>,
}

impl Decision {
    fn clear(&mut self) {
        self.members.clear();
        self.refused.clear();
        self.again = None;
    }
}

/// When who leaves.
pub trait Rule {
    /// A request arrives; false if it is refused at once.
    fn arrive(&mut self, now: Moment, number: Number, item: Item) -> bool;
    /// An executor of a group is free.
    fn decide(&mut self, now: Moment, group: usize, decision: &mut Decision);
    /// A batch took so long; `late` says whether a member missed its deadline.
    fn completed(&mut self, now: Moment, group: usize, load: Load, took: Duration, late: bool);
    /// A request is cancelled by its client; true if it was still queued.
    fn cancel(&mut self, number: Number) -> bool;
    /// So many executors of a group are alive.
    fn alive(&mut self, group: usize, executors: usize);
    /// Requests queued.
    fn queued(&self) -> usize;
}

/// The server's own scheduler.
#[derive(Debug)]
pub struct Jitney {
    batcher: Batcher,
    batch: Batch,
    /// By slot.
    numbers: Vec<Number>,
    ids: Vec<Option<ItemId>>,
}

impl Jitney {
    /// The scheduler as the server makes it, for groups of so many executors each.
    pub fn new(policy: Policy, executors: &[usize]) -> Self {
        Self {
            batcher: Batcher::new(policy, executors),
            batch: Batch::default(),
            numbers: Vec::new(),
            ids: Vec::new(),
        }
    }

    /// What a warm-up would have found.
    pub fn seed(&mut self, group: usize, rows: usize, took: Duration) {
        self.batcher.seed(group, Load::of(rows), took);
    }

    /// Rows that came, whatever became of them.
    pub fn rows_offered(&self) -> u64 {
        self.batcher.rows_offered()
    }

    /// Rows a second that it says it could do, each within `objective`.
    pub fn sustainable(&self, objective: Duration) -> Option<f64> {
        self.batcher.sustainable(objective)
    }

    /// Panics if an invariant does not hold.
    pub fn check(&self) {
        self.batcher.check();
    }

    fn number(&mut self, id: ItemId) -> Number {
        let number = self.numbers.get(id.slot()).copied().unwrap_or_default();
        if let Some(place) = self.ids.get_mut(number) {
            *place = None;
        }
        number
    }
}

impl Rule for Jitney {
    fn arrive(&mut self, now: Moment, number: Number, item: Item) -> bool {
        let Ok(admitted) = self.batcher.admit(now, item) else {
            return false;
        };
        let slot = admitted.id.slot();
        if self.numbers.len() <= slot {
            self.numbers.resize(slot + 1, 0);
        }
        if self.ids.len() <= number {
            self.ids.resize(number + 1, None);
        }
        self.numbers[slot] = number;
        self.ids[number] = Some(admitted.id);
        true
    }

    fn decide(&mut self, now: Moment, group: usize, decision: &mut Decision) {
        decision.clear();
        let mut batch = std::mem::take(&mut self.batch);
        let step = self.batcher.poll(now, group, &mut batch);
        for late in &batch.late {
            decision.refused.push(self.number(late.id));
        }
        for id in &batch.members {
            decision.members.push(self.number(*id));
        }
        if let Step::WaitUntil(moment) = step {
            decision.again = Some(moment);
        }
        self.batch = batch;
    }

    fn completed(&mut self, now: Moment, group: usize, load: Load, took: Duration, _late: bool) {
        self.batcher.completed(now, group, load, took);
    }

    fn cancel(&mut self, number: Number) -> bool {
        let id = self.ids.get_mut(number).and_then(Option::take);
        id.is_some_and(|id| self.batcher.cancel(id))
    }

    fn alive(&mut self, group: usize, executors: usize) {
        self.batcher.set_alive(group, executors);
    }

    fn queued(&self) -> usize {
        self.batcher.len()
    }
}

/// First come, first served, in the ways of others. Nobody is refused who has a deadline: it is
/// found out when the answer comes late.
#[derive(Debug)]
pub struct Fifo {
    queue: VecDeque<(Number, Moment)>,
    max_batch_size: usize,
    max_queue_size: usize,
    /// How long the oldest may wait while an executor is free.
    delay: Duration,
    /// Clipper's rule for the batch size: one more after each batch in time, a tenth less after one
    /// that was late.
    adaptive: Option<f64>,
}

impl Fifo {
    /// Leaves at once with what is there.
    pub fn greedy(max_batch_size: usize, max_queue_size: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            max_batch_size,
            max_queue_size,
            delay: Duration::ZERO,
            adaptive: None,
        }
    }

    /// Leaves when full, or when the oldest has waited this long: Triton's rule.
    pub fn delayed(max_batch_size: usize, max_queue_size: usize, delay: Duration) -> Self {
        Self {
            delay,
            ..Self::greedy(max_batch_size, max_queue_size)
        }
    }

    /// Leaves at once, with batches whose size follows Clipper's rule.
    pub fn adaptive(max_batch_size: usize, max_queue_size: usize) -> Self {
        Self {
            adaptive: Some(1.0),
            ..Self::greedy(max_batch_size, max_queue_size)
        }
    }

    fn most(&self) -> usize {
        self.adaptive.map_or(self.max_batch_size, |most| {
            (most as usize).clamp(1, self.max_batch_size)
        })
    }
}

impl Rule for Fifo {
    fn arrive(&mut self, now: Moment, number: Number, _item: Item) -> bool {
        let room = self.queue.len() < self.max_queue_size;
        if room {
            self.queue.push_back((number, now));
        }
        room
    }

    fn decide(&mut self, now: Moment, _group: usize, decision: &mut Decision) {
        decision.clear();
        let Some((_, oldest)) = self.queue.front() else {
            return;
        };
        let leaves = *oldest + self.delay;
        if self.queue.len() < self.most() && now < leaves {
            decision.again = Some(leaves);
            return;
        }
        let rows = self.most().min(self.queue.len());
        decision
            .members
            .extend(self.queue.drain(..rows).map(|(number, _)| number));
    }

    fn completed(&mut self, _now: Moment, _group: usize, load: Load, _took: Duration, late: bool) {
        let limited = load.rows >= self.most();
        if let Some(most) = &mut self.adaptive {
            if late {
                *most = (*most * 0.9).max(1.0);
            } else if limited {
                *most += 1.0;
            }
        }
    }

    fn cancel(&mut self, number: Number) -> bool {
        let before = self.queue.len();
        self.queue.retain(|(queued, _)| *queued != number);
        self.queue.len() < before
    }

    fn alive(&mut self, _group: usize, _executors: usize) {}

    fn queued(&self) -> usize {
        self.queue.len()
    }
}
