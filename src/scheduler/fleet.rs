//! The executors of one lane, and what is known of their speed.

use std::collections::HashMap;

use super::ShapeClass;
use super::service_time::ServiceTime;
use super::traffic::nanoseconds;
use crate::clock::Moment;

/// Shape classes whose times are remembered, of each group. Of others, what is known of all.
const MOST_CLASSES: usize = 256;
/// How long what was learned is believed without being seen again, at least, in nanoseconds.
const BELIEVED: f64 = 1e9;
/// The same in batches' times.
const BELIEVED_BATCHES: f64 = 20.0;

/// Rows by whose time groups are compared.
const COMPARED: f64 = 8.0;

/// Executors that are equally fast: those of one model on one device.
#[derive(Clone, Debug, Default)]
struct Group {
    alive: usize,
    overall: ServiceTime,
    by_class: HashMap<ShapeClass, (ServiceTime, u64)>,
    batches: u64,
    /// When a batch was last seen.
    seen: Moment,
}

impl Group {
    fn time(&self, class: ShapeClass) -> ServiceTime {
        self.by_class
            .get(&class)
            .map_or(self.overall, |(time, _)| *time)
    }

    fn observe(&mut self, class: ShapeClass, rows: usize, nanoseconds: u64) {
        self.batches += 1;
        if self.by_class.len() >= MOST_CLASSES && !self.by_class.contains_key(&class) {
            let oldest = self.by_class.iter().min_by_key(|(_, (_, seen))| *seen);
            if let Some(oldest) = oldest.map(|(class, _)| *class) {
                self.by_class.remove(&oldest);
            }
        }
        let new = || (ServiceTime::like(&self.overall, rows, nanoseconds), 0);
        let (time, seen) = self.by_class.entry(class).or_insert_with(new);
        time.observe(rows, nanoseconds);
        *seen = self.batches;
        self.overall.observe(rows, nanoseconds);
    }
}

/// The executors of one lane, by group.
#[derive(Clone, Debug)]
pub(super) struct Fleet {
    groups: Vec<Group>,
    /// Of those alive, by what is known of all classes.
    fastest: usize,
    slowest: usize,
    /// Whether every group alive has been seen.
    known: bool,
    executors: usize,
}

impl Fleet {
    /// Groups of so many executors each.
    pub(super) fn new(executors: &[usize]) -> Self {
        let groups = executors.iter().map(|alive| Group {
            alive: *alive,
            ..Group::default()
        });
        let mut fleet = Self {
            groups: groups.collect(),
            fastest: 0,
            slowest: 0,
            known: false,
            executors: 0,
        };
        fleet.compare();
        fleet
    }

    /// Finds who is fastest and slowest, after something has changed.
    fn compare(&mut self) {
        let alive = || {
            let groups = self.groups.iter().enumerate();
            groups.filter(|(_, group)| group.alive > 0)
        };
        let by_time = |a: &(usize, &Group), b: &(usize, &Group)| {
            let time = |group: &Group| group.overall.at(COMPARED);
            time(a.1).total_cmp(&time(b.1))
        };
        let fastest = alive().min_by(by_time).map_or(0, |(index, _)| index);
        let slowest = alive().max_by(by_time).map_or(0, |(index, _)| index);
        let known = alive().all(|(_, group)| group.overall.is_known());
        let executors = alive().map(|(_, group)| group.alive).sum();
        (self.fastest, self.slowest) = (fastest, slowest);
        (self.known, self.executors) = (known, executors);
    }

    /// The group whose batches take longest.
    pub(super) fn slowest(&self) -> usize {
        self.slowest
    }

    pub(super) fn executors(&self) -> usize {
        self.executors
    }

    pub(super) fn set_alive(&mut self, group: usize, alive: usize) {
        if let Some(group) = self.groups.get_mut(group) {
            group.alive = alive;
        }
        self.compare();
    }

    /// A batch of no particular class was run, as in a warm-up.
    pub(super) fn seed(&mut self, group: usize, rows: usize, nanoseconds: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.overall.observe(rows, nanoseconds);
        }
        self.compare();
    }

    /// A batch was run.
    pub(super) fn observe(
        &mut self,
        now: Moment,
        group: usize,
        class: ShapeClass,
        rows: usize,
        nanoseconds: u64,
    ) {
        if let Some(group) = self.groups.get_mut(group) {
            group.seen = now;
            group.observe(class, rows, nanoseconds);
        }
        self.compare();
    }

    /// How long a group takes for a class.
    pub(super) fn time(&self, group: usize, class: ShapeClass) -> ServiceTime {
        self.groups
            .get(group)
            .map_or_else(ServiceTime::default, |group| group.time(class))
    }

    /// The time in which the fastest executors are expected to serve so many rows of a class, if every
    /// group is known, and theirs not from too long ago: what was learned in bad times must not keep
    /// everyone out for ever.
    pub(super) fn fastest(&self, now: Moment, class: ShapeClass, rows: usize) -> Option<f64> {
        let group = self.groups.get(self.fastest).filter(|_| self.known)?;
        let expected = group.time(class).at(rows as f64);
        let believed = (BELIEVED_BATCHES * expected).max(BELIEVED);
        (nanoseconds(now.since(group.seen)) <= believed).then_some(expected)
    }

    /// Rows a nanosecond if every executor runs batches of so many.
    pub(super) fn throughput(&self, rows: f64) -> f64 {
        let each = |group: &Group| {
            let time = group.overall.at(rows);
            if time > 0.0 {
                group.alive as f64 * rows / time
            } else {
                f64::INFINITY
            }
        };
        self.groups
            .iter()
            .filter(|group| group.alive > 0)
            .map(each)
            .sum()
    }

    /// The largest batch that executors can run all the time, staggered, so that whoever just missed
    /// one is answered by the next within `budget`.
    pub(super) fn staggered(&self, budget: f64) -> f64 {
        let share = 1.0 + 1.0 / self.executors().max(1) as f64;
        self.groups
            .iter()
            .filter(|group| group.alive > 0)
            .map(|group| group.overall.most_rows(budget / share))
            .fold(0.0, f64::max)
    }
}
