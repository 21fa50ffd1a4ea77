//! How long an answer takes from the end of its batch to the task that sends it: under load its
//! thread has others to see to first, and a deadline does not wait for that.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Moment;

/// No more than this is expected: a machine that stands still tells nothing of the next moment.
const MOST: Duration = Duration::from_millis(2);

/// Of what is expected half is forgotten in this time, if no answer is seen: were it to keep every
/// request out, no answer would ever correct it.
const HALF_LIFE: Duration = Duration::from_millis(500);

/// The time that all but a few answers stay under.
#[derive(Debug, Default)]
pub(super) struct Delivery {
    nanoseconds: AtomicU64,
    /// When an answer was seen last.
    seen: AtomicU64,
}

impl Delivery {
    /// An answer that has just been sent took this long. Up quickly and down slowly: about one in
    /// twenty takes longer than is expected. If two see at once one of them may be lost, which does
    /// not matter.
    pub(super) fn saw(&self, now: Moment, took: Duration) {
        let took = u64::try_from(took.min(MOST).as_nanos()).unwrap_or(u64::MAX);
        let expected = self.nanoseconds.load(Ordering::Relaxed);
        let next = match took > expected {
            true => expected + (took - expected) / 8,
            false => expected - (expected - took) / 2_048,
        };
        self.nanoseconds.store(next, Ordering::Relaxed);
        self.seen.store(now.as_nanos(), Ordering::Relaxed);
    }

    pub(super) fn expected(&self, now: Moment) -> Duration {
        let seen = Moment::from_nanos(self.seen.load(Ordering::Relaxed));
        let halves = (now - seen).as_nanos() / HALF_LIFE.as_nanos();
        let expected = self.nanoseconds.load(Ordering::Relaxed);
        Duration::from_nanos(expected >> halves.min(63))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_take_longer_than_is_expected() {
        let delivery = Delivery::default();
        let mut longer = 0;
        // Between 0 and 999 us, in an order without sense.
        for number in 0..100_000_u64 {
            let took = Duration::from_micros(number.wrapping_mul(7_919) % 1_000);
            let expected = delivery.expected(Moment::ORIGIN);
            longer += u32::from(number >= 50_000 && took > expected);
            delivery.saw(Moment::ORIGIN, took);
        }
        let share = f64::from(longer) / 50_000.0;
        assert!((0.01..0.08).contains(&share), "{share}");
    }

    #[test]
    fn a_standstill_is_bounded_and_forgotten() {
        let delivery = Delivery::default();
        for _ in 0..100 {
            delivery.saw(Moment::ORIGIN, Duration::from_secs(9));
        }
        let expected = delivery.expected(Moment::ORIGIN);
        assert!(expected <= MOST && expected > MOST / 2);
        let later = Moment::ORIGIN + 4 * HALF_LIFE;
        assert_eq!(delivery.expected(later), expected / 16);
        let much_later = Moment::ORIGIN + 1_000 * HALF_LIFE;
        assert!(delivery.expected(much_later).is_zero());
    }
}
