//! Whether an instance's batches take so little time that waking a thread for one would take longer.

use std::time::Duration;

/// A batch that takes less than this is run by the thread that received the request: waking another
/// would take longer.
const QUICK: Duration = Duration::from_micros(50);

/// How long batches took, and how large those were that were quick.
#[derive(Debug, Default)]
pub(super) struct Quickness {
    /// Smoothed time of a batch; none before the first.
    typical: Option<Duration>,
    /// Bytes of inputs up to which batches were quick, of late.
    bytes: usize,
}

impl Quickness {
    /// A batch of so many bytes of inputs took this long.
    pub(super) fn saw(&mut self, bytes: usize, took: Duration) {
        let smoothed = |typical: Duration| (typical * 7 + took) / 8;
        self.typical = Some(self.typical.map_or(took, smoothed));
        self.bytes = match took < QUICK {
            true => self.bytes.max(bytes),
            false => self.bytes.min(bytes / 2),
        };
    }

    /// Whether batches are quick, and this one is no larger than those: what is quick with little may
    /// take long with much, and how much is the client's to say.
    pub(super) fn covers(&self, bytes: usize) -> bool {
        bytes <= self.bytes && self.is_quick()
    }

    /// Whether batches are, as they come.
    pub(super) fn is_quick(&self) -> bool {
        self.typical.is_some_and(|typical| typical < QUICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_micros(10);
    const LONG: Duration = Duration::from_millis(10);

    #[test]
    fn what_is_larger_than_what_was_quick_is_not() {
        let mut quickness = Quickness::default();
        assert!(!quickness.covers(0), "nothing is known");
        quickness.saw(100, SOON);
        quickness.saw(10, SOON);
        assert!(quickness.covers(100) && !quickness.covers(101));
    }

    #[test]
    fn one_that_was_slow_is_remembered_until_its_like_is_quick() {
        let mut quickness = Quickness::default();
        quickness.saw(1_000, SOON);
        quickness.saw(1_000, LONG);
        assert!(!quickness.covers(0), "batches are not quick as they come");
        for _ in 0..100 {
            quickness.saw(100, SOON);
        }
        assert!(quickness.covers(500) && !quickness.covers(501));
        quickness.saw(1_000, SOON);
        assert!(quickness.covers(1_000));
    }
}
