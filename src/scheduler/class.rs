//! The queue of one shape class: a binary heap by rank from which any member can leave.

use super::slots::{Rank, Slots};
use super::{ItemId, ShapeClass};

#[derive(Clone, Debug)]
pub(super) struct ClassQueue {
    pub(super) class: ShapeClass,
    pub(super) rows: usize,
    heap: Vec<(Rank, ItemId)>,
}

impl ClassQueue {
    pub(super) fn new(class: ShapeClass) -> Self {
        Self {
            class,
            rows: 0,
            heap: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(super) fn head(&self) -> Option<(Rank, ItemId)> {
        self.heap.first().copied()
    }

    pub(super) fn push(&mut self, rank: Rank, id: ItemId, rows: usize, slots: &mut Slots) {
        self.rows += rows;
        self.heap.push((rank, id));
        self.rise(self.heap.len() - 1, slots);
    }

    /// Takes out the member at `position`.
    pub(super) fn remove(&mut self, position: usize, rows: usize, slots: &mut Slots) {
        if position >= self.heap.len() {
            return;
        }
        self.rows -= rows;
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

    /// Every member's id and position, for checking invariants.
    pub(super) fn members(&self) -> impl Iterator<Item = (usize, Rank, ItemId)> + '_ {
        self.heap
            .iter()
            .enumerate()
            .map(|(position, (rank, id))| (position, *rank, *id))
    }
}
