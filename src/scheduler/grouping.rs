//! Which lengths travel together: those that cost the least time in all.
//!
//! Sorted by length, the best way to part a queue into batches has each of them next to each other.
//! So the cheapest is found by the usual recursion over where the last batch begins, and who leaves
//! now are those with whom the head shares a batch.

use super::Policy;
use super::class::ClassQueue;
use super::ladder;
use super::service_time::ServiceTime;

/// Share of a batch's fixed time that those who stay need not be charged with: until it is their turn
/// others join them, and where lengths are served in turn there will be twice as many.
const JOINED: f64 = 0.5;

/// Rows of one step of the ladder, and the cheapest way to serve them and all that are shorter.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    /// Where the step is in its class.
    place: usize,
    /// Rows of this step and all before.
    rows: usize,
    length: usize,
    cost: f64,
    /// The first step that shares a batch with this one.
    begins: usize,
}

/// Finds groups; kept so that its memory is used again.
#[derive(Clone, Debug, Default)]
pub(super) struct Grouping {
    steps: Vec<Step>,
}

impl Grouping {
    /// The places of the first and the last rung that travel with the head of a class.
    pub(super) fn find(
        &mut self,
        queue: &ClassQueue,
        time: &ServiceTime,
        policy: &Policy,
    ) -> (usize, usize) {
        let head = queue.head_rung();
        if queue.rungs().len() == 1 {
            return (head, head);
        }
        self.fill(queue, policy);
        self.cheapest(time, policy);
        let mut last = self.steps.len();
        while let Some(step) = last.checked_sub(1).and_then(|last| self.steps.get(last)) {
            let first = self.steps.get(step.begins).map_or(0, |step| step.place);
            if first <= head {
                return (first, step.place);
            }
            last = step.begins;
        }
        (head, head)
    }

    fn fill(&mut self, queue: &ClassQueue, policy: &Policy) {
        self.steps.clear();
        let mut total = 0;
        for (place, (number, rows)) in queue.rungs().enumerate() {
            if rows == 0 {
                continue;
            }
            total += rows;
            self.steps.push(Step {
                place,
                rows: total,
                length: policy.run_length(ladder::longest(number)),
                ..Step::default()
            });
        }
    }

    fn cheapest(&mut self, time: &ServiceTime, policy: &Policy) {
        for last in 0..self.steps.len() {
            let Some(step) = self.steps.get(last).copied() else {
                return;
            };
            let mut best = (f64::INFINITY, last);
            for begins in (0..=last).rev() {
                let before = begins
                    .checked_sub(1)
                    .and_then(|place| self.steps.get(place));
                let (rows, cost) = before.map_or((0, 0.0), |before| (before.rows, before.cost));
                let cost = cost + batches(step.rows - rows, step.length, time, policy);
                if cost < best.0 {
                    best = (cost, begins);
                }
            }
            if let Some(step) = self.steps.get_mut(last) {
                (step.cost, step.begins) = best;
            }
        }
    }
}

/// The time for so many rows of one length, in as few batches as their caps allow.
fn batches(rows: usize, length: usize, time: &ServiceTime, policy: &Policy) -> f64 {
    let most = (policy.max_batch_tokens / length.max(1)).clamp(1, policy.max_batch_size);
    let count = rows.div_ceil(most) as f64;
    let each = time.at(rows as f64 * length as f64 / count);
    count * (each - JOINED * time.at(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::scheduler::slots::{Queued, Rank, Slots};
    use crate::scheduler::{Item, ShapeClass};

    /// A queue of such lengths, in order of arrival.
    fn queue(lengths: &[usize]) -> ClassQueue {
        let mut queue = ClassQueue::new(ShapeClass(0));
        let mut slots = Slots::default();
        for (sequence, length) in lengths.iter().enumerate() {
            let queued = Queued {
                item: Item {
                    rows: 1,
                    length: *length,
                    class: ShapeClass(0),
                    deadline: None,
                    level: 0,
                },
                arrived: Moment::ORIGIN,
                rank: Rank {
                    due: Moment::ORIGIN,
                    sequence: sequence as u64,
                },
                rung: ladder::rung(*length),
                position: 0,
            };
            let id = slots.insert(queued);
            queue.push(id, &queued, &mut slots);
        }
        queue
    }

    fn lengths(queue: &ClassQueue, fixed: f64, policy: &Policy) -> (usize, usize) {
        let mut time = ServiceTime::default();
        for work in [1.0, 1000.0, 10.0, 500.0] {
            time.observe(work, (fixed + work * 1000.0) as u64);
        }
        let (first, last) = Grouping::default().find(queue, &time, policy);
        let at = |place| ladder::longest(queue.rungs().nth(place).unwrap().0);
        (at(first), at(last))
    }

    #[test]
    fn a_batch_that_costs_nothing_is_of_one_length() {
        let queue = queue(&[8, 5, 16, 256, 8]);
        assert_eq!(lengths(&queue, 0.0, &Policy::default()), (8, 8));
    }

    #[test]
    fn a_batch_that_costs_much_takes_all() {
        let queue = queue(&[8, 5, 15, 255, 8]);
        assert_eq!(lengths(&queue, 1e9, &Policy::default()), (5, 255));
    }

    #[test]
    fn the_short_do_not_travel_with_the_long() {
        // To pad three of 15 to 255 costs 720; a batch of their own costs 50.
        let queue = queue(&[14, 15, 255, 240, 13]);
        let policy = Policy::default();
        assert_eq!(lengths(&queue, 1e5, &policy), (13, 15));
        let queue = self::queue(&[255, 14, 15, 239, 13]);
        assert_eq!(lengths(&queue, 1e5, &policy), (239, 255));
    }

    #[test]
    fn fixed_lengths_cost_what_they_are_padded_to() {
        let policy = Policy {
            lengths: vec![64, 256],
            ..Policy::default()
        };
        // Both run as 64.
        let queue = queue(&[8, 63]);
        assert_eq!(lengths(&queue, 1e4, &policy), (8, 63));
    }
}
