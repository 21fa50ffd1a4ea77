//! Arrivals that were recorded.

use std::time::Duration;

/// One request of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// From the recording's start.
    pub offset: Duration,
    /// Its rows, if they were recorded.
    pub rows: Option<u32>,
}
