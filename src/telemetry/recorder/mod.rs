//! The flight recorder: what the scheduler decided last and what slow requests went through, in a form
//! that programs read; and what was decided around a request that broke its objective.
//! Uses what `serving` keeps of each version, and the stories of `Requests`.
//! Never keeps more than it says, and nothing of it is in a request's way.

mod breach;
mod decision;
mod shelf;
mod slow;

pub use breach::{Breach, Breaches};
pub use decision::{Decision, decisions};
pub use shelf::Shelf;
pub use slow::SlowRequest;

use std::time::Duration;

use crate::clock::{Moment, wall_nanoseconds};

/// One moment by both clocks, by which others can be told.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    moment: Moment,
    wall_nanoseconds: u64,
}

impl Anchor {
    /// Now, which is `moment`.
    pub fn at(moment: Moment) -> Self {
        Self {
            moment,
            wall_nanoseconds: wall_nanoseconds(),
        }
    }

    /// Milliseconds since the Unix epoch at `moment`.
    pub fn unix_ms(&self, moment: Moment) -> f64 {
        let wall = Duration::from_nanos(self.wall_nanoseconds);
        milliseconds(wall) + milliseconds(moment - self.moment) - milliseconds(self.moment - moment)
    }
}

/// As people read times.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_before_and_after_are_told_by_the_wall() {
        let second = 1_000_000_000;
        let anchor = Anchor {
            moment: Moment::from_nanos(10 * second),
            wall_nanoseconds: 1_700_000_000 * second,
        };
        let told = |seconds: u64| anchor.unix_ms(Moment::from_nanos(seconds * second));
        assert_eq!(told(10), 1_700_000_000_000.0);
        assert_eq!(told(7), 1_699_999_997_000.0);
        assert_eq!(told(11), 1_700_000_001_000.0);
    }
}
