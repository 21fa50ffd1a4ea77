//! Which class leaves, when, and who of it travels.

use std::time::Duration;

use super::batcher::{Batcher, duration};
use super::class::ClassQueue;
use super::service_time::ServiceTime;
use super::slots::Queued;
use super::traffic::nanoseconds;
use super::{Batch, Item, Late, ShapeClass};
use crate::clock::Moment;

/// How much more than what arrives the executors are to be able to serve with the batches that a
/// free one waits for. Poisson arrivals need a quarter.
const HEADROOM: f64 = 0.25;
/// Below this share of such a batch, one is worth losing those at the front for whose sake it would
/// be so small.
const SMALL: f64 = 0.9;
/// How long the size of such a batch stands if nothing is learned; the rate of arrivals may change.
const STANDS: Duration = Duration::from_millis(1);

/// Which class leaves, or when to ask again.
pub(super) enum Departure {
    Now(ShapeClass),
    Later(Moment),
    Never,
}

impl Batcher {
    fn head_of(&self, class: ShapeClass) -> Option<Queued> {
        let (_, id) = self.queue(class)?.head()?;
        self.slots.get(id).copied()
    }

    fn queue(&self, class: ShapeClass) -> Option<&ClassQueue> {
        self.classes.get(*self.index.get(&class)?)
    }

    /// The time that condemns an item: no executor is expected to serve it before its deadline.
    pub(super) fn hopeless(&self, now: Moment, item: &Item) -> Option<Duration> {
        let left = item.deadline?.since(now);
        if left.is_zero() {
            return Some(Duration::ZERO);
        }
        let expected = duration(self.fleet.fastest(now, item.class, item.rows)?);
        (expected + self.policy.margin > left).then_some(expected)
    }

    pub(super) fn departure(&self, now: Moment, group: usize) -> Departure {
        let mut earliest = Departure::Never;
        for (_, class) in &self.heads {
            let leaves = self.leaves_at(*class, now, group);
            match earliest {
                _ if leaves <= now => return Departure::Now(*class),
                Departure::Later(sooner) if sooner <= leaves => {}
                _ => earliest = Departure::Later(leaves),
            }
        }
        earliest
    }

    /// When a class may leave with the group whose batches have to leave first.
    pub(super) fn earliest_departure(&self, class: ShapeClass, now: Moment) -> Moment {
        self.leaves_at(class, now, self.fleet.slowest())
    }

    /// When a class leaves with an executor of `group` if nothing more arrives.
    fn leaves_at(&self, class: ShapeClass, now: Moment, group: usize) -> Moment {
        let (Some(queue), Some(head)) = (self.queue(class), self.head_of(class)) else {
            return now;
        };
        if !self.policy.max_queue_delay.is_zero() {
            return self.leaves_after_delay(queue.rows, &head, now);
        }
        let Some(deadline) = head.item.deadline else {
            return now;
        };
        let time = self.fleet.time(group, class);
        if self.leaves_it_to_others(&time, &head, now) {
            // By then nobody can be in time, and somebody has to say so.
            return deadline;
        }
        let full = queue.rows >= self.policy.max_batch_size;
        if full || self.fleet.executors() <= 1 || queue.rows as f64 >= self.target {
            return now;
        }
        let one_more = duration(time.surely(queue.rows as f64 + 1.0));
        let latest = deadline.before(one_more + self.policy.margin);
        latest.max(now)
    }

    /// Whether a group is too slow for the head of a class where another is not.
    fn leaves_it_to_others(&self, time: &ServiceTime, head: &Queued, now: Moment) -> bool {
        self.within(head.item.deadline, now, time) < head.item.rows as f64
            && self
                .fleet
                .fastest(now, head.item.class, head.item.rows)
                .is_some_and(|fastest| fastest < time.at(head.item.rows as f64))
            && self.hopeless(now, &head.item).is_none()
    }

    /// By an explicit delay: at once if full or of a preferred size, else when the head has waited
    /// as long as it may, which is never more than half of the time that its deadline leaves it.
    fn leaves_after_delay(&self, rows: usize, head: &Queued, now: Moment) -> Moment {
        let preferred = self.policy.preferred_sizes.iter().min();
        let enough = preferred.map_or(self.policy.max_batch_size, |preferred| *preferred);
        if rows >= enough.min(self.policy.max_batch_size) {
            return now;
        }
        let allowed = head
            .item
            .deadline
            .map_or(Duration::MAX, |deadline| deadline.since(head.arrived) / 2);
        (head.arrived + self.policy.max_queue_delay.min(allowed)).max(now)
    }

    /// Finds anew how large batches are to be, unless that was done a moment ago.
    pub(super) fn refresh(&mut self, now: Moment) {
        if now.since(self.targeted) >= STANDS {
            self.retarget(now);
        }
    }

    pub(super) fn retarget(&mut self, now: Moment) {
        self.target = self.find_target(now);
        self.targeted = now;
    }

    /// The rows that a batch is to have for the executors to keep up with what arrives, as far as
    /// deadlines allow such batches.
    fn find_target(&self, now: Moment) -> f64 {
        let cap = self.policy.max_batch_size as f64;
        let most = self
            .traffic
            .budget()
            .map_or(cap, |budget| self.fleet.staggered(budget).clamp(1.0, cap));
        let needed = self.traffic.rate(now) * (1.0 + HEADROOM);
        let (mut low, mut high) = (1.0, most);
        while high - low >= 1.0 {
            let middle = f64::floor((low + high) / 2.0);
            if self.fleet.throughput(middle) >= needed {
                high = middle;
            } else {
                low = middle + 1.0;
            }
        }
        high.min(most)
    }

    /// The most rows in a batch that is to be in time for a deadline.
    fn within(&self, deadline: Option<Moment>, now: Moment, time: &ServiceTime) -> f64 {
        deadline.map_or(f64::INFINITY, |deadline| {
            let left = deadline.since(now).saturating_sub(self.policy.margin);
            time.most_rows(nanoseconds(left))
        })
    }

    /// Has `class` leave: its head and whoever follows it and fits, without those who would be late
    /// or make too many others late.
    pub(super) fn fill(&mut self, class: ShapeClass, now: Moment, group: usize, batch: &mut Batch) {
        let Some(place) = self.index.get(&class).copied() else {
            return;
        };
        let before = self.queue(class).and_then(ClassQueue::head);
        batch.class = class;
        self.refuse_hopeless(place, now, batch);
        let time = self.fleet.time(group, class);
        self.line_up(place, now, &time, batch);
        self.board(place, now, &time, batch);
        let after = self.queue(class).and_then(ClassQueue::head);
        self.settle(class, place, before, after);
    }

    fn refuse_hopeless(&mut self, place: usize, now: Moment, batch: &mut Batch) {
        while let Some((_, id)) = self.classes.get(place).and_then(ClassQueue::head) {
            let Some(queued) = self.slots.get(id).copied() else {
                break;
            };
            let Some(expected) = self.hopeless(now, &queued.item) else {
                break;
            };
            self.pop(place, queued.item.rows);
            self.slots.remove(id);
            batch.late.push(Late { id, expected });
        }
    }

    /// Takes the first of the class out of its queue in order, and refuses those at the front that
    /// would keep the batch smaller than the executors need it.
    fn line_up(&mut self, place: usize, now: Moment, time: &ServiceTime, batch: &mut Batch) {
        let cap = self.policy.max_batch_size as f64;
        let enough = (SMALL * self.target).min(cap);
        let mut waiting = self.classes.get(place).map_or(0, |queue| queue.rows) as f64;
        let mut best = (0, 0.0);
        let mut position = 0;
        loop {
            self.lengthen(place, position + 1, batch);
            let Some((_, id)) = batch.line.get(position).copied() else {
                break;
            };
            let Some(item) = self.slots.get(id).map(|queued| queued.item) else {
                break;
            };
            let rows = self.within(item.deadline, now, time).min(cap).min(waiting);
            if rows > best.1 {
                best = (position, rows);
            }
            waiting -= item.rows as f64;
            position += 1;
            if best.1 >= enough || best.1 >= waiting {
                break;
            }
        }
        let expected = duration(time.at(best.1));
        for (_, id) in batch.line.drain(..best.0.min(batch.line.len())) {
            self.slots.remove(id);
            batch.late.push(Late { id, expected });
        }
    }

    /// Has those in line travel while they fit and are in time, and puts the rest back.
    fn board(&mut self, place: usize, now: Moment, time: &ServiceTime, batch: &mut Batch) {
        let mut most = self.policy.max_batch_size as f64;
        let mut position = 0;
        loop {
            self.lengthen(place, position + 1, batch);
            let Some((_, id)) = batch.line.get(position).copied() else {
                break;
            };
            let Some(item) = self.slots.get(id).map(|queued| queued.item) else {
                break;
            };
            if let Some(expected) = self.hopeless(now, &item) {
                // Among the more urgent, whose deadlines may be later.
                batch.late.push(Late { id, expected });
            } else {
                let allowed = self.within(item.deadline, now, time).min(most);
                let rows = batch.rows + item.rows;
                // The first goes whatever is expected: if nothing is known, it has to be tried.
                let first = batch.members.is_empty();
                if rows > self.policy.max_batch_size || (!first && rows as f64 > allowed) {
                    break;
                }
                most = allowed;
                batch.rows = rows;
                batch.members.push(id);
            }
            self.slots.remove(id);
            position += 1;
        }
        for (rank, id) in batch.line.drain(..).skip(position) {
            let rows = self.slots.get(id).map_or(0, |queued| queued.item.rows);
            if let Some(queue) = self.classes.get_mut(place) {
                queue.push(rank, id, rows, &mut self.slots);
            }
        }
    }

    /// Takes members out of the queue until so many are in line, or there are no more.
    fn lengthen(&mut self, place: usize, members: usize, batch: &mut Batch) {
        while batch.line.len() < members {
            let Some(head) = self.classes.get(place).and_then(ClassQueue::head) else {
                return;
            };
            let rows = self.slots.get(head.1).map_or(0, |queued| queued.item.rows);
            self.pop(place, rows);
            batch.line.push(head);
        }
    }

    fn pop(&mut self, place: usize, rows: usize) {
        if let Some(queue) = self.classes.get_mut(place) {
            queue.remove(0, rows, &mut self.slots);
        }
    }
}
