//! Places of connections, of which there are so many. Where all are taken, a connection that nobody needs makes room.
//!
//! Which one is found as caches find what to forget: a hand goes round, and whom it finds without a call for a second
//! is asked to go. Calls in progress are never ended for others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::patience::Patience;
use crate::clock::Moment;
use crate::telemetry::DoorCounts;

/// How many connections are looked at for one that may go, before who waits looks again.
const MOST_LOOKED_AT: usize = 1000;

/// How long a connection stays without a call, however many wait: a new one has yet to speak.
const REST: Duration = Duration::from_secs(1);

/// Places for so many connections, whatever port they come to.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    taken: Mutex<Taken>,
    counts: Arc<DoorCounts>,
}

#[derive(Debug, Default)]
struct Taken {
    /// The number of the next one.
    next: u64,
    /// The number at which the hand is.
    hand: u64,
    /// And since when, as far as the hand has seen, each has been without a call.
    seats: BTreeMap<u64, (Arc<Seat>, Moment)>,
}

impl Places {
    pub(super) fn new(most: usize, counts: Arc<DoorCounts>) -> Arc<Self> {
        Arc::new(Self {
            free: Arc::new(Semaphore::new(most.clamp(1, Semaphore::MAX_PERMITS))),
            taken: Mutex::default(),
            counts,
        })
    }

    /// A place, once there is one; none if there will be no more.
    pub(super) async fn take(&self, patience: &Patience) -> Option<OwnedSemaphorePermit> {
        loop {
            if let Ok(place) = Arc::clone(&self.free).try_acquire_owned() {
                return Some(place);
            }
            self.make_room(patience.now());
            tokio::select! {
                place = Arc::clone(&self.free).acquire_owned() => return place.ok(),
                () = patience.pause() => {}
            }
        }
    }

    /// Asks a connection to go that nobody needs, if there is one.
    pub(super) fn make_room(&self, now: Moment) {
        let Some(seat) = self.locked().spare(now) else {
            return;
        };
        seat.is_asked.store(true, Ordering::Relaxed);
        seat.asked.notify_one();
        self.counts.displaced();
    }

    /// Where a connection sits from `now` on.
    pub(super) fn seat(self: &Arc<Self>, now: Moment) -> Seated {
        let seat = Arc::<Seat>::default();
        let mut taken = self.locked();
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, (Arc::clone(&seat), now));
        self.counts.connected(taken.seats.len());
        drop(taken);
        Seated {
            seat,
            number,
            places: Arc::clone(self),
        }
    }

    fn locked(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// The next that nobody needs, if there is one among those that are looked at.
    fn spare(&mut self, now: Moment) -> Option<Arc<Seat>> {
        for _ in 0..MOST_LOOKED_AT.min(self.seats.len()) {
            let ahead = self.seats.range(self.hand..).next();
            let (number, _) = ahead.or_else(|| self.seats.first_key_value())?;
            let number = *number;
            self.hand = number + 1;
            let (seat, since) = self.seats.get_mut(&number)?;
            if seat.was_used() {
                *since = now;
            } else if now - *since >= REST && !seat.is_asked.load(Ordering::Relaxed) {
                return Some(Arc::clone(seat));
            }
        }
        None
    }
}

/// A connection's seat, which is free when this is dropped.
#[derive(Debug)]
pub(super) struct Seated {
    pub(super) seat: Arc<Seat>,
    number: u64,
    places: Arc<Places>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut taken = self.places.locked();
        taken.seats.remove(&self.number);
        self.places.counts.connected(taken.seats.len());
    }
}

/// What others have to know of a connection.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Calls of HTTP/2 in progress. HTTP/1 ends no sooner than what is in progress does.
    calls: AtomicUsize,
    /// Whether a call came since the hand was here.
    is_used: AtomicBool,
    is_asked: AtomicBool,
    asked: Notify,
}

impl Seat {
    /// Notes that a call came.
    pub(super) fn hear(&self) {
        // Mostly it was noted before, and reading is cheap.
        if !self.is_used.load(Ordering::Relaxed) {
            self.is_used.store(true, Ordering::Relaxed);
        }
    }

    /// A call of HTTP/2 is in progress until this is dropped.
    pub(super) fn call(self: &Arc<Self>) -> Call {
        self.calls.fetch_add(1, Ordering::Relaxed);
        Call(Arc::clone(self))
    }

    /// Whether there are calls of HTTP/2.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.load(Ordering::Relaxed) > 0
    }

    /// Completes when the connection has to make room.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Whether it has a call, or had one since the hand was here.
    fn was_used(&self) -> bool {
        self.is_used.swap(false, Ordering::Relaxed) | self.has_calls()
    }
}

/// A call in progress.
#[derive(Debug)]
pub(super) struct Call(Arc<Seat>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(most: usize) -> Arc<Places> {
        Places::new(most, Arc::default())
    }

    fn at(seconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_secs(seconds)
    }

    fn asked(seated: &[Seated]) -> Vec<bool> {
        let asked = |seated: &Seated| seated.seat.is_asked.load(Ordering::Relaxed);
        seated.iter().map(asked).collect()
    }

    #[test]
    fn whom_nobody_needs_goes_and_nobody_is_asked_twice() {
        let places = places(4);
        let seated: Vec<Seated> = (0..4).map(|_| places.seat(at(0))).collect();
        let call = seated[0].seat.call();
        seated[1].seat.hear();
        for (seconds, expected) in [
            (0, [false; 4]),
            // What was used is so for a second, as far as anybody has seen.
            (1, [false, true, false, false]),
            (1, [false, true, true, false]),
            (1, [false, true, true, true]),
            (9, [false, true, true, true]),
        ] {
            places.make_room(at(seconds));
            assert_eq!(asked(&seated), expected);
        }
        drop(call);
        places.make_room(at(9));
        assert_eq!(asked(&seated), [false, true, true, true]);
        places.make_room(at(10));
        assert_eq!(asked(&seated), [true; 4]);
        assert_eq!(places.counts.displacements(), 4);
    }

    #[test]
    fn who_is_used_stays_as_long_as_others_are_not() {
        let places = places(100);
        let used = places.seat(at(0));
        for seconds in 0..50 {
            used.seat.hear();
            let fresh = places.seat(at(seconds));
            places.make_room(at(seconds + 1));
            assert_eq!(asked(&[fresh]), [true]);
        }
        assert_eq!(asked(&[used]), [false]);
        assert!(places.locked().seats.is_empty());
    }
}
