//! Virtual time: arrivals, executors and a rule, played to the end.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use jitney::clock::Moment;
use jitney::scheduler::{Item, Load};

use crate::rules::{Decision, Number, Rule};

/// A request to come.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When it arrives.
    pub arrives: Moment,
    /// What the scheduler is told of it.
    pub item: Item,
    /// When its client goes away, if it does not wait.
    pub leaves: Option<Moment>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Answered at this moment, in time or not.
    Answered(Moment),
    /// Told at this moment that it will not be answered.
    Refused(Moment),
    /// Its client went away while it was queued.
    Cancelled,
}

/// Executors of equal speed.
pub struct Group {
    /// How many.
    pub executors: usize,
    /// What a batch takes that starts at this moment. What fails or stalls is part of it.
    pub takes: Box<dyn FnMut(Moment, Load) -> Duration>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Group")
            .field("executors", &self.executors)
            .finish_non_exhaustive()
    }
}

/// A time in which one executor of a group does not run.
#[derive(Clone, Copy, Debug)]
pub struct Outage {
    /// Which.
    pub group: usize,
    /// From when; it finishes what it has.
    pub from: Moment,
    /// Until when.
    pub until: Moment,
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// How each request ended; none has no end.
    pub ends: Vec<Option<End>>,
    /// Batches that ran.
    pub batches: usize,
    /// Rows in them.
    pub rows: usize,
    /// The lengths of all rows together.
    pub own: usize,
    /// The same as they ran, padded to the longest of their batch.
    pub padded: usize,
    /// Time that executors were busy, over all.
    pub busy: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A batch ends; before arrivals of the same moment, because its executor can take them.
    Done(usize),
    Up(usize),
    Down(usize),
    Arrival(Number),
    Departure(Number),
    Alarm,
}

struct Running {
    group: usize,
    members: Vec<Number>,
    load: Load,
    started: Moment,
}

/// Plays every request against the rule, until nothing is left to happen.
pub fn play(
    requests: &[Request],
    groups: &mut [Group],
    outages: &[Outage],
    rule: &mut dyn Rule,
) -> Run {
    let alive = groups.iter().map(|group| group.executors).collect();
    let mut world = World {
        requests,
        groups,
        rule,
        free: Vec::new(),
        alive,
        owed: Vec::new(),
        running: Vec::new(),
        spare: Vec::new(),
        events: BinaryHeap::new(),
        next: 0,
        alarm: None,
        decision: Decision::default(),
        run: Run {
            ends: vec![None; requests.len()],
            ..Run::default()
        },
    };
    for (group, executors) in world.groups.iter().enumerate() {
        world
            .free
            .extend(std::iter::repeat_n(group, executors.executors));
    }
    for outage in outages {
        let Outage { group, from, until } = *outage;
        world.events.push(Reverse((from, What::Down(group))));
        world.events.push(Reverse((until, What::Up(group))));
    }
    for (number, request) in requests.iter().enumerate() {
        if let Some(leaves) = request.leaves {
            world
                .events
                .push(Reverse((leaves, What::Departure(number))));
        }
    }
    world.play();
    world.run
}

struct World<'a> {
    requests: &'a [Request],
    groups: &'a mut [Group],
    rule: &'a mut dyn Rule,
    /// The group of each free executor.
    free: Vec<usize>,
    /// Executors of each group that are not down.
    alive: Vec<usize>,
    /// Groups of which one goes down as soon as it is free.
    owed: Vec<usize>,
    running: Vec<Option<Running>>,
    spare: Vec<usize>,
    events: BinaryHeap<Reverse<(Moment, What)>>,
    /// The next request to arrive.
    next: usize,
    alarm: Option<Moment>,
    decision: Decision,
    run: Run,
}

impl World<'_> {
    fn play(&mut self) {
        while let Some((now, what)) = self.next_event() {
            match what {
                What::Arrival(number) => self.arrive(now, number),
                What::Departure(number) => {
                    if self.run.ends[number].is_none() && self.rule.cancel(number) {
                        self.run.ends[number] = Some(End::Cancelled);
                    }
                }
                What::Done(place) => self.done(now, place),
                What::Down(group) => {
                    self.owed.push(group);
                    self.go_down();
                }
                What::Up(group) => self.come_up(group),
                What::Alarm => {
                    if self.alarm == Some(now) {
                        self.alarm = None;
                    }
                }
            }
            self.depart(now);
            assert!(
                self.free.is_empty() || self.rule.queued() == 0 || self.alarm.is_some(),
                "an executor idles, requests wait, and nothing will change that"
            );
        }
    }

    /// Takes down whoever is free and has to go.
    fn go_down(&mut self) {
        let mut owed = std::mem::take(&mut self.owed);
        owed.retain(|group| {
            let Some(index) = self.free.iter().position(|free| free == group) else {
                return true;
            };
            self.free.swap_remove(index);
            self.alive[*group] -= 1;
            self.rule.alive(*group, self.alive[*group]);
            false
        });
        self.owed = owed;
    }

    fn come_up(&mut self, group: usize) {
        if let Some(index) = self.owed.iter().position(|owed| *owed == group) {
            // It never went down: it was busy all the time.
            self.owed.swap_remove(index);
            return;
        }
        self.free.push(group);
        self.alive[group] += 1;
        self.rule.alive(group, self.alive[group]);
    }

    fn next_event(&mut self) -> Option<(Moment, What)> {
        let arrival = self.requests.get(self.next);
        let arrival = arrival.map(|request| (request.arrives, What::Arrival(self.next)));
        let other = self.events.peek().map(|Reverse(event)| *event);
        match (arrival, other) {
            (Some(arrival), Some(other)) if other < arrival => {
                self.events.pop().map(|Reverse(event)| event)
            }
            (Some(arrival), _) => {
                self.next += 1;
                Some(arrival)
            }
            (None, _) => self.events.pop().map(|Reverse(event)| event),
        }
    }

    fn arrive(&mut self, now: Moment, number: Number) {
        if !self.rule.arrive(now, number, self.requests[number].item) {
            self.run.ends[number] = Some(End::Refused(now));
        }
    }

    fn done(&mut self, now: Moment, place: usize) {
        let Some(done) = self.running[place].take() else {
            return;
        };
        self.spare.push(place);
        self.free.push(done.group);
        self.go_down();
        let mut late = false;
        for number in &done.members {
            let deadline = self.requests[*number].item.deadline;
            late |= deadline.is_some_and(|deadline| now > deadline);
            assert!(
                self.run.ends[*number].is_none(),
                "request {number} ended twice"
            );
            self.run.ends[*number] = Some(End::Answered(now));
        }
        let took = now - done.started;
        self.run.busy += took;
        self.rule.completed(now, done.group, done.load, took, late);
    }

    /// Lets every free executor take what may leave.
    fn depart(&mut self, now: Moment) {
        let mut index = 0;
        while index < self.free.len() && self.rule.queued() > 0 {
            let group = self.free[index];
            let mut decision = std::mem::take(&mut self.decision);
            self.rule.decide(now, group, &mut decision);
            for number in &decision.refused {
                assert!(
                    self.run.ends[*number].is_none(),
                    "request {number} ended twice"
                );
                self.run.ends[*number] = Some(End::Refused(now));
            }
            if let Some(again) = decision.again
                && self.alarm.is_none_or(|alarm| again < alarm)
            {
                self.alarm = Some(again);
                self.events.push(Reverse((again, What::Alarm)));
            }
            if decision.members.is_empty() {
                // Executors of the same group would decide the same.
                index += 1;
                while self.free.get(index) == Some(&group) {
                    index += 1;
                }
            } else {
                self.free.swap_remove(index);
                self.start(now, group, std::mem::take(&mut decision.members));
                index = 0;
            }
            self.decision = decision;
        }
    }

    fn start(&mut self, now: Moment, group: usize, members: Vec<Number>) {
        let items = members.iter().map(|number| self.requests[*number].item);
        let load = Load {
            class: self.requests[members[0]].item.class,
            rows: items.clone().map(|item| item.rows).sum(),
            length: items.clone().map(|item| item.length).max().unwrap_or(1),
        };
        let took = (self.groups[group].takes)(now, load);
        self.run.batches += 1;
        self.run.rows += load.rows;
        self.run.own += items.map(|item| item.rows * item.length).sum::<usize>();
        self.run.padded += load.rows * load.length;
        let running = Running {
            group,
            members,
            load,
            started: now,
        };
        let place = self.spare.pop().unwrap_or_else(|| {
            self.running.push(None);
            self.running.len() - 1
        });
        self.running[place] = Some(running);
        self.events.push(Reverse((now + took, What::Done(place))));
    }
}
