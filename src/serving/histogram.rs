//! How often something was how large: counts between bounds that never change, so that those of many
//! servers and moments can be added and subtracted.

use std::time::Duration;

/// Bounds of times, in seconds: at most a factor of two and a half apart, and the round numbers that
/// objectives are made of.
pub const SECONDS: [f64; 20] = [
    0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// Bounds of rows.
pub const ROWS: [f64; 11] = [
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];
/// Bounds of shares of one.
pub const SHARES: [f64; 11] = [0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9];

/// Counts of values by `N` bounds that are in the bucket below them, and of those beyond the last.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram<const N: usize> {
    bounds: &'static [f64; N],
    counts: [u64; N],
    beyond: u64,
    sum: f64,
}

/// Of times.
pub type Times = Histogram<{ SECONDS.len() }>;

impl Default for Times {
    fn default() -> Self {
        Self::new(&SECONDS)
    }
}

impl Times {
    /// Adds a time.
    pub fn took(&mut self, duration: Duration) {
        self.add(duration.as_secs_f64());
    }
}

impl<const N: usize> Histogram<N> {
    /// Without a value.
    pub fn new(bounds: &'static [f64; N]) -> Self {
        Self {
            bounds,
            counts: [0; N],
            beyond: 0,
            sum: 0.0,
        }
    }

    /// Adds a value.
    pub fn add(&mut self, value: f64) {
        self.sum += value;
        let bucket = self.bucket(value);
        *self.counts.get_mut(bucket).unwrap_or(&mut self.beyond) += 1;
    }

    /// The place of a value among the buckets; the number of bounds is beyond the last.
    pub fn bucket(&self, value: f64) -> usize {
        self.bounds.partition_point(|bound| *bound < value)
    }

    /// Each bucket's upper bound and what is in it alone; the last is without a bound.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounded = self.bounds.iter().copied().zip(self.counts.iter().copied());
        bounded.chain(std::iter::once((f64::INFINITY, self.beyond)))
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum::<u64>() + self.beyond
    }

    /// All values together.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// What came since `earlier`, which is the same at an earlier moment.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut since = self.clone();
        since.sum -= earlier.sum;
        since.beyond = since.beyond.saturating_sub(earlier.beyond);
        for (count, before) in since.counts.iter_mut().zip(earlier.counts) {
            *count = count.saturating_sub(before);
        }
        since
    }

    /// The value that this share of all stays under, if values lie evenly in their buckets; none of
    /// nothing. What is beyond the last bound is told as that.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let wanted = share * count as f64;
        let (mut below, mut low) = (0, 0.0);
        for (high, inside) in self.buckets() {
            if inside > 0 && (below + inside) as f64 >= wanted {
                let high = if high.is_finite() { high } else { low };
                let within = (wanted - below as f64).max(0.0) / inside as f64;
                return Some(low + (high - low) * within);
            }
            below += inside;
            low = high;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_under_the_bound_that_they_reach() {
        let mut rows = Histogram::new(&ROWS);
        for value in [1.0, 2.0, 3.0, 1024.0, 1025.0] {
            rows.add(value);
        }
        let some: Vec<_> = rows.buckets().filter(|(_, count)| *count > 0).collect();
        let infinite = f64::INFINITY;
        assert_eq!(
            some,
            [(1.0, 1), (2.0, 1), (4.0, 1), (1024.0, 1), (infinite, 1)]
        );
        assert_eq!((rows.count(), rows.sum()), (5, 2055.0));
    }

    #[test]
    fn a_later_one_less_an_earlier_one_is_what_came_between() {
        let mut earlier = Times::default();
        earlier.took(Duration::from_millis(3));
        let mut later = earlier.clone();
        later.took(Duration::from_millis(700));
        let mut between = Times::default();
        between.took(Duration::from_millis(700));
        let since = later.since(&earlier);
        assert!(since.buckets().eq(between.buckets()));
        assert!((since.sum() - 0.7).abs() < 1e-9);
    }

    #[test]
    fn quantiles_lie_in_their_bucket() {
        let mut times = Times::default();
        assert_eq!(times.quantile(0.5), None);
        for milliseconds in 1..=100 {
            times.took(Duration::from_millis(milliseconds));
        }
        let near = |share: f64, expected: f64| {
            let found = times.quantile(share).unwrap();
            assert!((found / expected - 1.0).abs() < 0.02, "{share}: {found}");
        };
        near(0.5, 0.05);
        near(0.75, 0.075);
        near(0.99, 0.099);
        times.took(Duration::from_secs(1_000));
        assert_eq!(times.quantile(1.0), Some(60.0));
    }
}
