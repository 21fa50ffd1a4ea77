//! Who was let in, and who was not.

use std::sync::atomic::{AtomicU64, Ordering};

use super::family::Family;

/// Why a call was refused before anything was done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody knew who asked.
    Unauthenticated,
    /// Who asked may not have it.
    Denied,
    /// A page of another server asked.
    CrossOrigin,
    /// One client asked too often.
    ClientRate,
    /// One client asked too much at once.
    ClientConcurrency,
}

const REASONS: [&str; 5] = [
    "unauthenticated",
    "denied",
    "cross_origin",
    "client_rate",
    "client_concurrency",
];

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// It was made.
    Done,
    /// One side would not.
    Failed,
    /// It took too long.
    Slow,
    /// It was the oldest when there were too many.
    Crowded,
}

const OUTCOMES: [&str; 4] = ["done", "failed", "slow", "crowded"];

/// What was ended because its client took nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// One call of HTTP/2.
    Call,
    /// A connection, with all that it had.
    Connection,
}

const ENDED: [&str; 2] = ["call_ended", "connection_ended"];

/// Counts of all of them.
#[derive(Debug, Default)]
pub struct DoorCounts {
    refused: [AtomicU64; REASONS.len()],
    handshakes: [AtomicU64; OUTCOMES.len()],
    stalled: [AtomicU64; ENDED.len()],
    /// Connections that are open now.
    connections: AtomicU64,
    displaced: AtomicU64,
    /// Seconds since the Unix epoch; 0 without TLS.
    not_after: AtomicU64,
}

impl DoorCounts {
    /// Counts a call.
    pub fn refused(&self, why: Refused) {
        count(&self.refused, why as usize);
    }

    /// Counts a handshake.
    pub fn handshake(&self, how: Handshake) {
        count(&self.handshakes, how as usize);
    }

    /// Counts what was ended.
    pub fn stalled(&self, what: Stalled) {
        count(&self.stalled, what as usize);
    }

    /// Notes how many connections are open.
    pub fn connected(&self, connections: usize) {
        self.connections
            .store(connections as u64, Ordering::Relaxed);
    }

    /// Counts a connection that had to make room for another.
    pub fn displaced(&self) {
        self.displaced.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that are open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections that had to make room for others.
    pub fn displacements(&self) -> u64 {
        self.displaced.load(Ordering::Relaxed)
    }

    /// Notes until when the certificate is good, in seconds since the Unix epoch.
    pub fn certificate(&self, not_after: u64) {
        self.not_after.store(not_after, Ordering::Relaxed);
    }

    /// Calls that were refused for this reason.
    pub fn refusals(&self, why: Refused) -> u64 {
        let counted = self.refused.get(why as usize);
        counted.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Handshakes that ended so.
    pub fn handshakes(&self, how: Handshake) -> u64 {
        let counted = self.handshakes.get(how as usize);
        counted.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// What was ended so.
    pub fn stalls(&self, what: Stalled) -> u64 {
        let counted = self.stalled.get(what as usize);
        counted.map_or(0, |count| count.load(Ordering::Relaxed))
    }

    pub(super) fn tell_refused(&self, family: &mut Family) {
        tell(&REASONS, &self.refused, family);
    }

    pub(super) fn tell_stalled(&self, family: &mut Family) {
        tell(&ENDED, &self.stalled, family);
    }

    pub(super) fn tell_handshakes(&self, family: &mut Family) {
        if self.has_tls() {
            tell(&OUTCOMES, &self.handshakes, family);
        }
    }

    pub(super) fn tell_certificate(&self, family: &mut Family) {
        if self.has_tls() {
            family.add(&[], self.not_after.load(Ordering::Relaxed) as f64);
        }
    }

    fn has_tls(&self) -> bool {
        self.not_after.load(Ordering::Relaxed) > 0
    }
}

fn count(counts: &[AtomicU64], place: usize) {
    if let Some(count) = counts.get(place) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}

fn tell(names: &[&str], counts: &[AtomicU64], family: &mut Family) {
    for (name, count) in names.iter().zip(counts) {
        family.add(&[name], count.load(Ordering::Relaxed) as f64);
    }
}
