//! Where queued items are kept: slots that are used again, and ids that are not.

use super::Item;
use crate::clock::Moment;

/// An item's identity for as long as it is queued, and after that nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId {
    slot: u32,
    generation: u32,
}

impl ItemId {
    /// A small number that no other queued item has; a later item may have it again.
    pub fn slot(self) -> usize {
        self.slot as usize
    }
}

/// Earlier goes first; among equals, who came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) due: Moment,
    pub(super) sequence: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Queued {
    pub(super) item: Item,
    pub(super) arrived: Moment,
    pub(super) rank: Rank,
    /// Which lengths it is queued with; see [`super::ladder`].
    pub(super) rung: usize,
    /// Where it stands in its rung's heap.
    pub(super) position: usize,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u32,
    queued: Option<Queued>,
}

/// Slots, of which there are never more than the queue's bound.
#[derive(Clone, Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

impl Slots {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, queued: Queued) -> ItemId {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            // The queue's bound is far below u32::MAX (config allows a million).
            (self.slots.len() - 1) as u32
        });
        let mut generation = 0;
        if let Some(place) = self.slots.get_mut(slot as usize) {
            place.queued = Some(queued);
            generation = place.generation;
        }
        ItemId { slot, generation }
    }

    pub(super) fn get(&self, id: ItemId) -> Option<&Queued> {
        let slot = self.slots.get(id.slot())?;
        slot.queued
            .as_ref()
            .filter(|_| slot.generation == id.generation)
    }

    pub(super) fn set_position(&mut self, id: ItemId, position: usize) {
        if let Some(queued) = self
            .slots
            .get_mut(id.slot())
            .and_then(|slot| slot.queued.as_mut())
        {
            queued.position = position;
        }
    }

    pub(super) fn remove(&mut self, id: ItemId) -> Option<Queued> {
        let slot = self.slots.get_mut(id.slot())?;
        if slot.generation != id.generation {
            return None;
        }
        let queued = slot.queued.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(id.slot);
        Some(queued)
    }
}
