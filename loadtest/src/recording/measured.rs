//! What one generator measured of the answers that it got, and in how much time.

use std::time::Duration;

/// Answers that came to one generator in the time that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measured {
    /// That time.
    pub(crate) elapsed: Duration,
    /// Answers that came in it.
    pub(crate) answers: u64,
    /// Those of them that were in time and right.
    pub(crate) good_answers: u64,
}

impl Measured {
    pub(crate) fn rate(&self) -> f64 {
        self.answers as f64 / self.elapsed.as_secs_f64()
    }

    pub(crate) fn goodput(&self) -> f64 {
        self.good_answers as f64 / self.elapsed.as_secs_f64()
    }
}
