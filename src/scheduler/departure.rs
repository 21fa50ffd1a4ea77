//! Which class leaves, when, and who of it travels.

use std::time::Duration;

use super::batcher::{Batcher, duration};
use super::class::ClassQueue;
use super::service_time::ServiceTime;
use super::slots::Queued;
use super::traffic::nanoseconds;
use super::{Batch, Item, ItemId, Late, Load, Reason, ShapeClass};
use crate::clock::Moment;

/// How much more than what arrives the executors are to be able to serve with the batches that a
/// free one waits for. Poisson arrivals need a quarter.
const HEADROOM: f64 = 0.25;
/// Below this share of such a batch, one is worth losing those at the front for whose sake it would
/// be so small.
const SMALL: f64 = 0.9;
/// While more arrives than can be served, those who travel are to have this share of the time that
/// they brought left when their batch ends, but no more than that much. A client's clock counts the
/// way of a request and of its answer too, of which ours sees nothing; and if many have to be refused
/// anyway, it may as well be those whose answers would come at the last moment. Who has hardly waited
/// brought little, and is not blamed for it: as much as was spent in the queue is enough.
const SPARE: u32 = 8;
const MOST_SPARE: Duration = Duration::from_millis(250);
/// How long the size of such a batch stands if nothing is learned; the rate of arrivals may change.
const STANDS: Duration = Duration::from_millis(1);

/// Which class leaves, or when to ask again.
pub(super) enum Departure {
    Now(ShapeClass, Reason),
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
        let work = self.policy.work(item.rows, item.length);
        let expected = duration(self.fleet.fastest(now, item.class, work)?);
        (expected + self.margin() > left).then_some(expected)
    }

    pub(super) fn departure(&self, now: Moment, group: usize) -> Departure {
        let mut earliest = Departure::Never;
        for (_, class) in &self.heads {
            let (leaves, reason) = self.leaves_at(*class, now, group);
            match earliest {
                _ if leaves <= now => return Departure::Now(*class, reason),
                Departure::Later(sooner) if sooner <= leaves => {}
                _ => earliest = Departure::Later(leaves),
            }
        }
        earliest
    }

    /// When a class may leave with the group whose batches have to leave first.
    pub(super) fn earliest_departure(&self, class: ShapeClass, now: Moment) -> Moment {
        self.leaves_at(class, now, self.fleet.slowest()).0
    }

    /// When a class leaves with an executor of `group` if nothing more arrives, and why then.
    fn leaves_at(&self, class: ShapeClass, now: Moment, group: usize) -> (Moment, Reason) {
        let (Some(queue), Some(head)) = (self.queue(class), self.head_of(class)) else {
            return (now, Reason::Free);
        };
        if !self.policy.max_queue_delay.is_zero() {
            return self.leaves_after_delay(queue.rows, &head, now);
        }
        let full =
            queue.rows >= self.policy.max_batch_size || queue.work >= self.policy.max_batch_tokens;
        let at_once = if full { Reason::Full } else { Reason::Free };
        let Some(deadline) = head.item.deadline else {
            return (now, at_once);
        };
        let time = self.fleet.time(group, class);
        if self.leaves_it_to_others(&time, &head, now) {
            // By then nobody can be in time, and somebody has to say so.
            return (deadline, Reason::Due);
        }
        let work = queue.work as f64;
        if full || self.fleet.executors() <= 1 {
            return (now, at_once);
        }
        if work >= self.target {
            return (now, Reason::Enough);
        }
        let one_more = duration(time.surely(work + self.fleet.length()));
        let latest = deadline.before(one_more + self.margin());
        (latest.max(now), Reason::Due)
    }

    /// Whether a group is too slow for the head of a class where another is not.
    fn leaves_it_to_others(&self, time: &ServiceTime, head: &Queued, now: Moment) -> bool {
        let work = self.policy.work(head.item.rows, head.item.length);
        self.within(head.item.deadline, now, time) < work
            && self
                .fleet
                .fastest(now, head.item.class, work)
                .is_some_and(|fastest| fastest < time.at(work))
            && self.hopeless(now, &head.item).is_none()
    }

    /// By an explicit delay: at once if full or of a preferred size, else when the head has waited
    /// as long as it may, which is never more than half of the time that its deadline leaves it.
    fn leaves_after_delay(&self, rows: usize, head: &Queued, now: Moment) -> (Moment, Reason) {
        let most = self.policy.max_batch_size;
        if rows >= most {
            return (now, Reason::Full);
        }
        let mut preferred = self.policy.preferred_sizes.iter();
        if preferred.any(|preferred| rows >= *preferred) {
            return (now, Reason::Preferred);
        }
        let allowed = head
            .item
            .deadline
            .map_or(Duration::MAX, |deadline| deadline.since(head.arrived) / 2);
        let leaves = head.arrived + self.policy.max_queue_delay.min(allowed);
        (leaves.max(now), Reason::Delayed)
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

    /// The work that a batch is to have for the executors to keep up with what arrives, as far as
    /// deadlines allow such batches.
    fn find_target(&self, now: Moment) -> f64 {
        let cap = self.most_work();
        let most = self
            .traffic
            .budget()
            .map_or(cap, |budget| self.fleet.staggered(budget).clamp(1.0, cap));
        let needed = self.traffic.rate(now) * (1.0 + HEADROOM);
        let (mut low, mut high) = (1.0, most);
        // Halved so often, the range of any count is one. Beyond 2^53 the next number is none to a
        // float, and neither end would move.
        for _ in 0..usize::BITS {
            if high - low < 1.0 {
                break;
            }
            let middle = f64::floor((low + high) / 2.0);
            if self.fleet.throughput(middle) >= needed {
                high = middle;
            } else {
                low = middle + 1.0;
            }
        }
        high.min(most)
    }

    /// Rows a second that the executors are expected to serve, each within `objective` of its arrival;
    /// none before they have run anything. Batches are as large as that allows: whoever just missed
    /// one is still answered in time by the next.
    pub fn sustainable(&self, objective: Duration) -> Option<f64> {
        let left = nanoseconds(objective.saturating_sub(self.margin()));
        let most = self.fleet.staggered(left).min(self.most_work());
        let work = self.fleet.throughput(most.max(1.0));
        let known = self.fleet.learned().any(|learned| learned.is_some());
        (known && work.is_finite()).then(|| work * 1e9 / self.fleet.length())
    }

    /// The work of the largest batch, whose rows are as long as they typically are.
    fn most_work(&self) -> f64 {
        let rows = self.policy.max_batch_size as f64;
        (rows * self.fleet.length()).min(self.policy.max_batch_tokens as f64)
    }

    /// The most work in a batch that is to be in time for a deadline.
    fn within(&self, deadline: Option<Moment>, now: Moment, time: &ServiceTime) -> f64 {
        deadline.map_or(f64::INFINITY, |deadline| {
            let left = deadline.since(now).saturating_sub(self.margin());
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
        batch.load.class = class;
        self.refuse_hopeless(place, now, batch);
        let time = self.fleet.time(group, class);
        if let Some(queue) = self.classes.get(place) {
            let rungs = self.grouping.find(queue, &time, &self.policy);
            let fits = self.fleet.fits(now, group, class);
            let mut line = Line { place, rungs, fits };
            self.line_up(&mut line, now, &time, batch);
            self.board(line, now, &time, batch);
            self.round_down(&time, batch);
            self.leave(place, batch);
        }
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
            self.pop(place, &queued);
            self.slots.remove(id);
            batch.late.push(Late { id, expected });
        }
    }

    /// Takes the first of the line out of their queue in order, and refuses those at the front that
    /// would keep the batch smaller than the executors need it.
    fn line_up(&mut self, line: &mut Line, now: Moment, time: &ServiceTime, batch: &mut Batch) {
        let cap = self.most_work().min(line.fits);
        let enough = (SMALL * self.target).min(cap);
        let mut waiting = self.classes.get(line.place).map_or(0, |queue| queue.work) as f64;
        let mut best = Front::default();
        let mut position = 0;
        while let Some((_, item)) = self.in_line(*line, position, batch) {
            let work = self.within(item.deadline, now, time).min(cap).min(waiting);
            if work > best.work {
                best = Front {
                    position,
                    work,
                    waiting,
                };
            }
            waiting -= (item.rows * item.length) as f64;
            position += 1;
            if best.work >= enough || best.work >= waiting {
                break;
            }
        }
        if self.traffic.rate(now) > self.fleet.throughput(self.target) {
            self.step_back(*line, now, time, &mut best, batch);
        }
        if best.position > 0 {
            // Nor does a larger batch take from them what time they have.
            line.fits = line.fits.min(best.work);
        }
        let expected = duration(time.at(best.work));
        for id in batch.line.drain(..best.position.min(batch.line.len())) {
            self.slots.remove(id);
            batch.late.push(Late { id, expected });
        }
    }

    /// Moves the front back to somebody with time to spare, as long as the batch loses nothing by it.
    fn step_back(
        &mut self,
        line: Line,
        now: Moment,
        time: &ServiceTime,
        front: &mut Front,
        batch: &mut Batch,
    ) {
        while let Some((id, item)) = self.in_line(line, front.position, batch) {
            let arrived = self.slots.get(id).map_or(now, |queued| queued.arrived);
            let sooner = item.deadline.map(|deadline| {
                let spare = (deadline.since(arrived) / SPARE).min(MOST_SPARE);
                deadline.before(spare.min(now.since(arrived)))
            });
            let behind = front.waiting - (item.rows * item.length) as f64;
            if self.within(sooner, now, time) >= front.work || behind < front.work {
                break;
            }
            front.waiting = behind;
            front.position += 1;
        }
    }

    /// Has those in line travel while they fit and are in time.
    fn board(&mut self, line: Line, now: Moment, time: &ServiceTime, batch: &mut Batch) {
        let mut most = line.fits;
        while let Some((id, item)) = self.in_line(line, batch.members.len(), batch) {
            if let Some(expected) = self.hopeless(now, &item) {
                // Among the more urgent, whose deadlines may be later.
                batch.line.remove(batch.members.len());
                self.slots.remove(id);
                batch.late.push(Late { id, expected });
                continue;
            }
            let rows = batch.load.rows + item.rows;
            let length = batch.load.length.max(self.policy.run_length(item.length));
            let allowed = self.within(item.deadline, now, time).min(most);
            // The first goes whatever is expected: if nothing is known, it has to be tried.
            let first = batch.members.is_empty();
            if rows > self.policy.max_batch_size
                || rows.saturating_mul(length) > self.policy.max_batch_tokens
                || (!first && self.policy.work(rows, length) > allowed)
            {
                break;
            }
            most = allowed;
            (batch.load.rows, batch.load.length) = (rows, length);
            batch.members.push(id);
        }
    }

    /// Where executors take some numbers of rows only: leaves out the last if two batches that are
    /// less padded take less time than one that is more.
    fn round_down(&mut self, time: &ServiceTime, batch: &mut Batch) {
        let Load { rows, length, .. } = batch.load;
        if rows == 0 {
            return;
        }
        let lower = self.policy.batch_sizes.iter().rev();
        let lower = lower.copied().find(|size| *size < rows);
        if let Some(lower) = lower.filter(|_| self.policy.run_rows(rows) != rows) {
            let takes = |rows| time.at(self.policy.work(rows, length));
            if takes(lower) + takes(rows - lower) < takes(rows) {
                while batch.load.rows > lower && batch.members.len() > 1 {
                    let last = batch.members.pop().and_then(|id| self.slots.get(id));
                    batch.load.rows -= last.map_or(0, |queued| queued.item.rows);
                }
                let items = batch.members.iter().filter_map(|id| self.slots.get(*id));
                let longest = items.map(|queued| queued.item.length).max();
                batch.load.length = self.policy.run_length(longest.unwrap_or(0));
            }
        }
        batch.load.rows = self.policy.run_rows(batch.load.rows);
    }

    /// Has the batch's members gone, and puts back who else was in line.
    fn leave(&mut self, place: usize, batch: &mut Batch) {
        for id in &batch.members {
            self.slots.remove(*id);
        }
        for id in batch.line.drain(..).skip(batch.members.len()) {
            let Some(queued) = self.slots.get(id).copied() else {
                continue;
            };
            if let Some(queue) = self.classes.get_mut(place) {
                queue.push(id, &queued, &mut self.slots);
            }
        }
    }

    /// Who stands at `position` in line; takes members out of their queue until somebody does.
    fn in_line(
        &mut self,
        line: Line,
        position: usize,
        batch: &mut Batch,
    ) -> Option<(ItemId, Item)> {
        while batch.line.len() <= position {
            let (low, high) = line.rungs;
            let queue = self.classes.get(line.place)?;
            let (_, id) = queue.first_between(low, high)?;
            let queued = self.slots.get(id).copied()?;
            self.pop(line.place, &queued);
            batch.line.push(id);
        }
        let id = *batch.line.get(position)?;
        self.slots.get(id).map(|queued| (id, queued.item))
    }

    fn pop(&mut self, place: usize, queued: &Queued) {
        if let Some(queue) = self.classes.get_mut(place) {
            queue.remove(queued, &mut self.slots);
        }
    }
}

/// With whom in line a batch could begin.
#[derive(Clone, Copy, Debug, Default)]
struct Front {
    /// Its place in line.
    position: usize,
    /// The work of the batch.
    work: f64,
    /// The work of everybody from there on.
    waiting: f64,
}

/// Those of one class who may travel together.
#[derive(Clone, Copy, Debug)]
struct Line {
    place: usize,
    /// The places of the first and the last rung of their lengths.
    rungs: (usize, usize),
    /// The most work that fits into the memory of the executor's device.
    fits: f64,
}
