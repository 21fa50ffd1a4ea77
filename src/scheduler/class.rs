//! The queue of one shape class, by length: heaps by rank from which any member can leave.

use super::slots::{Queued, Rank, Slots};
use super::{ItemId, ShapeClass};

/// A binary heap by rank of the members of nearly one length.
#[derive(Clone, Debug, Default)]
struct Rung {
    number: usize,
    rows: usize,
    heap: Vec<(Rank, ItemId)>,
}

/// Everybody of one class. Where nothing is padded there is one rung.
#[derive(Clone, Debug)]
pub(super) struct ClassQueue {
    pub(super) class: ShapeClass,
    pub(super) rows: usize,
    /// Rows times their own lengths.
    pub(super) work: usize,
    /// Ascending by number; one that is empty stays, to be used again.
    rungs: Vec<Rung>,
    /// The place of the rung with the first member.
    first: usize,
}

impl ClassQueue {
    pub(super) fn new(class: ShapeClass) -> Self {
        Self {
            class,
            rows: 0,
            work: 0,
            rungs: Vec::new(),
            first: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.rungs.iter().map(|rung| rung.heap.len()).sum()
    }

    pub(super) fn head(&self) -> Option<(Rank, ItemId)> {
        self.rungs.get(self.first)?.head()
    }

    /// The place of the rung that the head is in.
    pub(super) fn head_rung(&self) -> usize {
        self.first
    }

    /// Every rung's number and rows, in order.
    pub(super) fn rungs(&self) -> impl ExactSizeIterator<Item = (usize, usize)> + '_ {
        self.rungs.iter().map(|rung| (rung.number, rung.rows))
    }

    /// The place of the first member among the rungs from `low` to `high`, and who it is.
    pub(super) fn first_between(&self, low: usize, high: usize) -> Option<(Rank, ItemId)> {
        let rungs = self
            .rungs
            .get(low..=high.min(self.rungs.len().checked_sub(1)?))?;
        rungs.iter().filter_map(Rung::head).min()
    }

    pub(super) fn push(&mut self, id: ItemId, queued: &Queued, slots: &mut Slots) {
        let found = self
            .rungs
            .binary_search_by_key(&queued.rung, |rung| rung.number);
        let place = found.unwrap_or_else(|place| {
            let number = queued.rung;
            let rung = Rung {
                number,
                ..Rung::default()
            };
            self.rungs.insert(place, rung);
            place
        });
        self.rows += queued.item.rows;
        self.work += queued.item.rows * queued.item.length;
        if let Some(rung) = self.rungs.get_mut(place) {
            rung.rows += queued.item.rows;
            rung.push(queued.rank, id, slots);
        }
        self.find_first();
    }

    /// Takes out a member.
    pub(super) fn remove(&mut self, queued: &Queued, slots: &mut Slots) {
        let found = self
            .rungs
            .binary_search_by_key(&queued.rung, |rung| rung.number);
        let rung = found.ok().and_then(|place| self.rungs.get_mut(place));
        let Some(rung) = rung.filter(|rung| queued.position < rung.heap.len()) else {
            return;
        };
        rung.rows -= queued.item.rows;
        rung.remove(queued.position, slots);
        self.rows -= queued.item.rows;
        self.work -= queued.item.rows * queued.item.length;
        self.find_first();
    }

    fn find_first(&mut self) {
        if self.rungs.len() == 1 {
            return;
        }
        let heads = self.rungs.iter().enumerate();
        let heads = heads.filter_map(|(place, rung)| Some((rung.head()?, place)));
        self.first = heads.min().map_or(0, |(_, place)| place);
    }

    /// Every member's id, position and rank, for checking invariants.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, Rank, ItemId)> + '_ {
        self.rungs.iter().flat_map(|rung| {
            let members = rung.heap.iter().enumerate();
            members.map(|(position, (rank, id))| (position, *rank, *id))
        })
    }
}

impl Rung {
    fn head(&self) -> Option<(Rank, ItemId)> {
        self.heap.first().copied()
    }

    fn push(&mut self, rank: Rank, id: ItemId, slots: &mut Slots) {
        self.heap.push((rank, id));
        self.rise(self.heap.len() - 1, slots);
    }

    fn remove(&mut self, position: usize, slots: &mut Slots) {
        self.heap.swap_remove(position);
        if position < self.heap.len() {
            let settled = self.rise(position, slots);
            self.sink(settled, slots);
        }
    }

    fn rank(&self, position: usize) -> Option<Rank> {
        self.heap.get(position).map(|(rank, _)| *rank)
    }

    fn rise(&mut self, mut position: usize, slots: &mut Slots) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.rank(parent) <= self.rank(position) {
                break;
            }
            self.heap.swap(parent, position);
            self.note(position, slots);
            position = parent;
        }
        self.note(position, slots);
        position
    }

    fn sink(&mut self, mut position: usize, slots: &mut Slots) {
        while let Some(child) = self.smaller_child(position) {
            if self.rank(position) <= self.rank(child) {
                break;
            }
            self.heap.swap(position, child);
            self.note(position, slots);
            position = child;
        }
        self.note(position, slots);
    }

    fn smaller_child(&self, position: usize) -> Option<usize> {
        let (left, right) = (2 * position + 1, 2 * position + 2);
        let left_rank = self.rank(left)?;
        match self.rank(right) {
            Some(right_rank) if right_rank < left_rank => Some(right),
            _ => Some(left),
        }
    }

    fn note(&self, position: usize, slots: &mut Slots) {
        if let Some((_, id)) = self.heap.get(position) {
            slots.set_position(*id, position);
        }
    }
}
