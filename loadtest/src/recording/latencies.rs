//! The latencies of one second, in little room.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

/// Bits of a value that are kept: it is known to a 256th.
const KEPT: u32 = 8;

/// The latencies of one second, in nanoseconds, to a 256th. A run of hours has many seconds: each takes
/// a few entries, where a histogram of three digits takes 180 KB however few values it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies {
    counts: BTreeMap<u64, u64>,
    all: u64,
}

impl Latencies {
    /// Puts this many of a value to the others.
    pub(crate) fn add(&mut self, nanoseconds: u64, count: u64) {
        *self.counts.entry(rounded(nanoseconds)).or_default() += count;
        self.all += count;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (value, count) in other.counts() {
            self.add(value, count);
        }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.all
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// The one that this share of them does not exceed; 0 if there is none.
    pub fn value_at_quantile(&self, share: f64) -> u64 {
        let place = ((share * self.all as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let reached = self.counts().find(|(_, count)| {
            seen += count;
            seen >= place
        });
        let last = || self.counts.keys().next_back().copied();
        reached.map(|(value, _)| value).or_else(last).unwrap_or(0)
    }

    /// Values and how often each was seen, the smallest first.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(value, count)| (*value, *count))
    }
}

impl From<&Histogram<u64>> for Latencies {
    fn from(histogram: &Histogram<u64>) -> Self {
        let mut latencies = Self::default();
        for one in histogram.iter_recorded() {
            latencies.add(one.value_iterated_to(), one.count_at_value());
        }
        latencies
    }
}

/// The largest value that is the same one when it is rounded.
fn rounded(value: u64) -> u64 {
    let lost = (u64::BITS - value.leading_zeros()).saturating_sub(KEPT);
    value | ((1 << lost) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_known_to_a_256th() {
        for value in [0, 1, 255, 256, 257, 1_000, 123_456_789, u64::MAX / 3] {
            let kept = rounded(value);
            assert!(
                kept >= value && kept - value <= value / 128,
                "{value}: {kept}"
            );
            assert_eq!(rounded(kept), kept);
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_put_in() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.value_at_quantile(0.5), 0);
        for value in 1..=1_000 {
            latencies.add(value * 1_000_000, 1);
        }
        for (share, value) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let seen = latencies.value_at_quantile(share) as f64 / 1e6;
            assert!((seen / value - 1.0).abs() < 0.01, "{share}: {seen}");
        }
        let mut both = latencies.clone();
        both.merge(&latencies);
        assert_eq!(both.len(), 2_000);
        assert_eq!(
            both.value_at_quantile(0.5),
            latencies.value_at_quantile(0.5)
        );
    }
}
