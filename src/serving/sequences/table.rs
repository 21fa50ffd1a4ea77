//! Who is in the middle of which sequence: turns, places and what is kept, in any clock's time.
//!
//! One request of a sequence is under way at a time, in the order in which they came. There are so
//! many places; a sequence that finds none waits until another ends or has been idle for too long.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::request::CorrelationId;
use crate::clock::Moment;
use crate::tensor::Tensor;

/// What a request finds when it is its turn: what its sequence has kept, or none if it begins one.
pub(super) type Granted = Result<Option<Vec<Tensor>>, Refused>;

/// Why a request is not let into its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It does not begin a sequence, and there is none of this id.
    NotStarted,
    /// Too many requests wait.
    Full,
    /// The version is being replaced or unloaded.
    Closed,
}

/// How a request got in.
#[derive(Debug)]
pub(super) struct Entered {
    /// By which it is known here.
    pub(super) number: u64,
    pub(super) wait: Wait,
}

/// Whether it is a request's turn.
#[derive(Debug)]
pub(super) enum Wait {
    /// It is.
    Over(Option<Vec<Tensor>>),
    /// It will be told. Nothing will be sent if the version closes.
    For(oneshot::Receiver<Granted>),
}

/// How much a table takes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Sequences at once.
    pub(super) sequences: usize,
    /// Requests that wait for a turn or a place.
    pub(super) waiting: usize,
    /// How long a sequence may be without a request.
    pub(super) idle: Duration,
}

#[derive(Debug)]
struct Waiter {
    number: u64,
    start: bool,
    grant: oneshot::Sender<Granted>,
}

/// A sequence, or requests that would begin one.
#[derive(Debug, Default)]
struct Record {
    /// Whether it has a place. It has to wait for one before its first turn.
    placed: bool,
    /// What its last request left behind; none before its first has succeeded.
    states: Option<Vec<Tensor>>,
    /// Whose turn it is.
    holder: Option<u64>,
    queue: VecDeque<Waiter>,
    /// Since when nobody has come, and the last who came.
    idle: Option<(Moment, u64)>,
}

/// Every sequence of one version.
#[derive(Debug)]
pub(super) struct Table {
    bounds: Bounds,
    records: HashMap<CorrelationId, Record>,
    /// Sequences that have no request, the longest idle first.
    idle: BTreeMap<(Moment, u64), CorrelationId>,
    /// Sequences that wait for a place; while there are any, every place is taken.
    backlog: VecDeque<CorrelationId>,
    placed: usize,
    waiting: usize,
    /// Requests seen so far.
    seen: u64,
    closed: bool,
}

impl Table {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            records: HashMap::new(),
            idle: BTreeMap::new(),
            backlog: VecDeque::new(),
            placed: 0,
            waiting: 0,
            seen: 0,
            closed: false,
        }
    }

    /// Takes in a request, which has to [`Self::leave`] or [`Self::finish`] once.
    pub(super) fn enter(
        &mut self,
        now: Moment,
        id: &CorrelationId,
        start: bool,
    ) -> Result<Entered, Refused> {
        if self.closed {
            return Err(Refused::Closed);
        }
        self.expire(now);
        self.seen += 1;
        let number = self.seen;
        let wait = match self.records.get_mut(id) {
            None if !start => return Err(Refused::NotStarted),
            None if self.placed < self.bounds.sequences => {
                self.begin(id, number);
                Wait::Over(None)
            }
            Some(record) if record.idle.is_some() => {
                let key = record.idle.take();
                record.holder = Some(number);
                let states = record.states.clone().filter(|_| !start);
                key.map(|key| self.idle.remove(&key));
                Wait::Over(states)
            }
            _ => Wait::For(self.queue(id, number, start)?),
        };
        Ok(Entered { number, wait })
    }

    fn begin(&mut self, id: &CorrelationId, number: u64) {
        self.placed += 1;
        let record = Record {
            placed: true,
            holder: Some(number),
            ..Record::default()
        };
        self.records.insert(id.clone(), record);
    }

    fn queue(
        &mut self,
        id: &CorrelationId,
        number: u64,
        start: bool,
    ) -> Result<oneshot::Receiver<Granted>, Refused> {
        if self.waiting >= self.bounds.waiting {
            return Err(Refused::Full);
        }
        let (grant, granted) = oneshot::channel();
        self.waiting += 1;
        if !self.records.contains_key(id) {
            self.backlog.push_back(id.clone());
        }
        let record = self.records.entry(id.clone()).or_default();
        record.queue.push_back(Waiter {
            number,
            start,
            grant,
        });
        Ok(granted)
    }

    /// A request has succeeded and leaves this behind, or nothing if it was the last of its sequence.
    pub(super) fn finish(
        &mut self,
        now: Moment,
        id: &CorrelationId,
        number: u64,
        states: Option<Vec<Tensor>>,
    ) {
        if let Some(record) = self.records.get_mut(id)
            && record.holder == Some(number)
        {
            record.states = states;
        }
        self.leave(now, id, number);
    }

    /// A request has gone, and leaves its sequence as it was.
    pub(super) fn leave(&mut self, now: Moment, id: &CorrelationId, number: u64) {
        let Some(record) = self.records.get_mut(id) else {
            return;
        };
        if record.holder == Some(number) {
            record.holder = None;
            if self.gives_way(id) || self.settle(now, id, number) {
                self.hand_on_place(now);
            }
            return;
        }
        let before = record.queue.len();
        record.queue.retain(|waiter| waiter.number != number);
        self.waiting -= before - record.queue.len();
        if record.queue.is_empty() && !record.placed {
            self.records.remove(id);
            self.backlog.retain(|other| other != id);
        }
    }

    /// Ends sequences that have been idle for too long.
    pub(super) fn expire(&mut self, now: Moment) {
        while let Some(entry) = self.idle.first_entry() {
            if entry.key().0 + self.bounds.idle > now {
                return;
            }
            self.records.remove(&entry.remove());
            self.hand_on_place(now);
        }
    }

    /// When to look whether a place has become free, if anyone waits for one.
    pub(super) fn look_again(&self, now: Moment) -> Option<Moment> {
        if self.backlog.is_empty() {
            return None;
        }
        let longest = self.idle.keys().next().map_or(now, |key| key.0);
        Some(longest + self.bounds.idle)
    }

    /// Ends every sequence. Whoever waits is told by silence.
    pub(super) fn close(&mut self) {
        let bounds = self.bounds;
        *self = Self {
            closed: true,
            ..Self::new(bounds)
        };
    }

    /// Sequences that have a place.
    pub(super) fn live(&self) -> usize {
        self.placed
    }

    /// After the end of a sequence, another is to begin under its id: whether it has to wait for its
    /// place behind those that have waited longer.
    fn gives_way(&mut self, id: &CorrelationId) -> bool {
        if self.backlog.is_empty() {
            return false;
        }
        let Some(record) = self.records.get_mut(id) else {
            return false;
        };
        let begins = record.queue.front().is_some_and(|waiter| waiter.start);
        let gives_way = record.states.is_none() && begins;
        if gives_way {
            record.placed = false;
            self.backlog.push_back(id.clone());
        }
        gives_way
    }

    /// Makes it the turn of the next who waits. True if the sequence is over and its place free.
    fn settle(&mut self, now: Moment, id: &CorrelationId, last: u64) -> bool {
        let Some(record) = self.records.get_mut(id) else {
            return false;
        };
        while let Some(waiter) = record.queue.pop_front() {
            self.waiting -= 1;
            if !waiter.start && record.states.is_none() {
                // If nobody listens any more, nobody has to be told.
                let _ = waiter.grant.send(Err(Refused::NotStarted));
                continue;
            }
            let states = record.states.clone().filter(|_| !waiter.start);
            if waiter.grant.send(Ok(states)).is_ok() {
                record.holder = Some(waiter.number);
                return false;
            }
        }
        if record.states.is_none() {
            self.records.remove(id);
            return true;
        }
        record.idle = Some((now, last));
        self.idle.insert((now, last), id.clone());
        false
    }

    /// One place less is taken: gives it to whoever has waited longest.
    fn hand_on_place(&mut self, now: Moment) {
        self.placed -= 1;
        while self.placed < self.bounds.sequences {
            let Some(id) = self.backlog.pop_front() else {
                return;
            };
            self.placed += 1;
            if let Some(record) = self.records.get_mut(&id) {
                record.placed = true;
            }
            if self.settle(now, &id, 0) {
                self.placed -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
