//! The only reader of time in this crate, and how its threads wait for a moment.

use std::time::{Duration, Instant};

/// The present moment.
#[allow(clippy::disallowed_methods)] // measuring is what this crate reads the clock for
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Blocks this thread until `moment`; not at all if it has passed.
#[allow(clippy::disallowed_methods)] // the runtime's timers are no finer than a millisecond
pub(crate) fn block_until(moment: Instant) {
    let left = moment.saturating_duration_since(now());
    if left > Duration::ZERO {
        std::thread::sleep(left);
    }
}
