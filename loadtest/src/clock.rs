//! The only reader of time in this crate, and how its threads wait for a moment.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The present moment.
#[allow(clippy::disallowed_methods)] // measuring is what this crate reads the clock for
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Seconds since the Unix epoch; 0 before it.
#[allow(clippy::disallowed_methods)] // a report says when it was made
pub(crate) fn wall_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Blocks this thread until `moment`; not at all if it has passed.
#[allow(clippy::disallowed_methods)] // the runtime's timers are no finer than a millisecond
pub(crate) fn block_until(moment: Instant) {
    let left = moment.saturating_duration_since(now());
    if left > Duration::ZERO {
        std::thread::sleep(left);
    }
}
