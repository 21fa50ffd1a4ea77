//! The executors of one lane, and what is known of their speed.

use std::collections::HashMap;
use std::time::Duration;

use super::service_time::{Learned, ServiceTime};
use super::traffic::nanoseconds;
use super::{Load, ShapeClass};
use crate::clock::Moment;

/// Shape classes whose times are remembered, of each group. Of others, what is known of all.
const MOST_CLASSES: usize = 256;
/// How long what was learned is believed without being seen again, at least, in nanoseconds.
const BELIEVED: f64 = 1e9;
/// The same in batches' times.
const BELIEVED_BATCHES: f64 = 20.0;

/// After how long twice as much is tried as was found to fit into memory.
const DOUBLES: Duration = Duration::from_secs(30);
/// After how long nothing is left of it: by then it is a thousand times as much.
const FORGOTTEN: Duration = Duration::from_secs(300);
/// How many batches the typical length looks back.
const LENGTHS: f64 = 16.0;
/// Rows by whose time groups are compared.
const COMPARED: f64 = 8.0;

/// Executors that are equally fast: those of one model on one device.
#[derive(Clone, Debug, Default)]
struct Group {
    alive: usize,
    overall: ServiceTime,
    by_class: HashMap<ShapeClass, (ServiceTime, u64)>,
    /// Work that was found to fit into memory, and when.
    limits: HashMap<ShapeClass, (f64, Moment)>,
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

    fn observe(&mut self, class: ShapeClass, work: f64, nanoseconds: u64) {
        self.batches += 1;
        if self.by_class.len() >= MOST_CLASSES && !self.by_class.contains_key(&class) {
            let oldest = self.by_class.iter().min_by_key(|(_, (_, seen))| *seen);
            if let Some(oldest) = oldest.map(|(class, _)| *class) {
                self.by_class.remove(&oldest);
            }
        }
        let new = || (ServiceTime::like(&self.overall, work, nanoseconds), 0);
        let (time, seen) = self.by_class.entry(class).or_insert_with(new);
        time.observe(work, nanoseconds);
        *seen = self.batches;
        self.overall.observe(work, nanoseconds);
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
    /// Smoothed length of the rows of batches; 1 where nothing is padded.
    length: f64,
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
            length: 1.0,
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
            let time = |group: &Group| group.overall.at(COMPARED * self.length);
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

    /// How long rows typically are.
    pub(super) fn length(&self) -> f64 {
        self.length
    }

    pub(super) fn set_alive(&mut self, group: usize, alive: usize) {
        if let Some(group) = self.groups.get_mut(group) {
            group.alive = alive;
        }
        self.compare();
    }

    /// A batch of no particular class was run, as in a warm-up.
    pub(super) fn seed(&mut self, group: usize, load: Load, nanoseconds: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.overall.observe(load.work(), nanoseconds);
        }
        self.length = load.length as f64;
        self.compare();
    }

    /// A batch was run.
    pub(super) fn observe(&mut self, now: Moment, group: usize, load: Load, nanoseconds: u64) {
        if let Some(group) = self.groups.get_mut(group) {
            group.seen = now;
            group.observe(load.class, load.work(), nanoseconds);
        }
        self.length += (load.length as f64 - self.length) / LENGTHS;
        self.compare();
    }

    /// A batch did not fit into the memory of a group's device: half of it may.
    pub(super) fn limit(&mut self, now: Moment, group: usize, load: Load) {
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        group
            .limits
            .retain(|_, (_, since)| now.since(*since) < FORGOTTEN);
        if group.limits.len() < MOST_CLASSES || group.limits.contains_key(&load.class) {
            let least = load.length as f64;
            let fits = (load.work() / 2.0).max(least);
            group.limits.insert(load.class, (fits, now));
        }
    }

    /// The most work that is known to fit into the memory of a group's device; it doubles with time,
    /// because memory that others took comes back.
    pub(super) fn fits(&self, now: Moment, group: usize, class: ShapeClass) -> f64 {
        let limit = self
            .groups
            .get(group)
            .and_then(|group| group.limits.get(&class));
        limit.map_or(f64::INFINITY, |(fits, since)| {
            let doublings = nanoseconds(now.since(*since)) / nanoseconds(DOUBLES);
            fits * doublings.floor().exp2()
        })
    }

    /// What was learned of each group, of all classes.
    pub(super) fn learned(&self) -> impl Iterator<Item = Option<Learned>> + '_ {
        self.groups.iter().map(|group| group.overall.learned())
    }

    /// How long a group takes for a class.
    pub(super) fn time(&self, group: usize, class: ShapeClass) -> ServiceTime {
        self.groups
            .get(group)
            .map_or_else(ServiceTime::default, |group| group.time(class))
    }

    /// The time in which the fastest executors are expected to do so much work of a class, if every
    /// group is known, and theirs not from too long ago: what was learned in bad times must not keep
    /// everyone out for ever.
    pub(super) fn fastest(&self, now: Moment, class: ShapeClass, work: f64) -> Option<f64> {
        let group = self.groups.get(self.fastest).filter(|_| self.known)?;
        let expected = group.time(class).at(work);
        let believed = (BELIEVED_BATCHES * expected).max(BELIEVED);
        (nanoseconds(now.since(group.seen)) <= believed).then_some(expected)
    }

    /// Work a nanosecond if every executor runs batches of so much.
    pub(super) fn throughput(&self, work: f64) -> f64 {
        let each = |group: &Group| {
            let time = group.overall.at(work);
            if time > 0.0 {
                group.alive as f64 * work / time
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
