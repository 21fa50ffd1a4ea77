//! The only reader of time.
//!
//! Everything that decides by time is handed a [`Moment`]; only the composition root picks
//! which [`Clock`] those moments come from, so a simulation can run days in seconds.

use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time, counted from its clock's own origin. Never goes backwards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(u64);

impl Moment {
    /// The clock's origin.
    pub const ORIGIN: Self = Self(0);

    /// The moment this many nanoseconds after the clock's origin.
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the clock's origin.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment this much earlier; the clock's origin if there is none.
    pub const fn before(self, duration: Duration) -> Self {
        // Longer than a clock can count is before its origin in any case.
        Self(self.0.saturating_sub(duration.as_nanos() as u64))
    }

    /// Time since `earlier`; zero if `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    /// Saturates: a moment too far away to count is the end of time, not an overflow.
    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// A sleep that ends at the moment it was asked for.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where moments come from.
pub trait Clock: Send + Sync + 'static {
    /// The present moment.
    fn now(&self) -> Moment;

    /// Completes at `moment`, or at once if it has passed.
    fn sleep_until(&self, moment: Moment) -> Sleep;
}

/// The machine's monotonic clock.
#[derive(Debug)]
pub struct MonotonicClock {
    origin: Instant,
}

impl MonotonicClock {
    /// A clock whose origin is now.
    #[allow(clippy::disallowed_methods)] // this is the one place that reads it
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }
}

impl Clock for MonotonicClock {
    fn now(&self) -> Moment {
        Moment::ORIGIN + self.origin.elapsed()
    }

    fn sleep_until(&self, moment: Moment) -> Sleep {
        let instant = self.origin + moment.since(Moment::ORIGIN);
        Box::pin(tokio::time::sleep_until(instant.into()))
    }
}

/// Wall-clock nanoseconds since the Unix epoch, for timestamps that people and protocols read.
#[allow(clippy::disallowed_methods)] // this is the one place that reads it
pub fn wall_nanoseconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
        })
}
