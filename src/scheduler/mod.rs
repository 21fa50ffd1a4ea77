//! When to leave, and with whom: the batching decision of one lane.
//! Uses `clock` for moments, which it is handed and never reads.
//! Never sees a tensor, a thread, a socket or a clock: the same calls give the same answers.

mod batcher;
mod class;
mod departure;
mod fleet;
mod grouping;
mod invariants;
mod ladder;
mod policy;
mod service_time;
mod slots;
#[cfg(test)]
mod tests;
mod traffic;

pub use batcher::Batcher;
pub use policy::{Admitted, Batch, Late, Load, Policy, Reason, Rejected, Step};
pub use service_time::Learned;
pub use slots::ItemId;

use crate::clock::Moment;

/// Items of one class may share a batch. What the number stands for is the lane's business.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeClass(pub u64);

/// What the scheduler knows of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// Rows it adds to a batch; at least 1.
    pub rows: usize,
    /// How long its rows are, where shorter ones of a batch are padded to the longest; else 1.
    pub length: usize,
    /// With whom it may travel.
    pub class: ShapeClass,
    /// When its answer is worthless.
    pub deadline: Option<Moment>,
    /// Its level of priority; 0 is the most urgent.
    pub level: u32,
}
