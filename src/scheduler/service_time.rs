//! How long a batch of n rows takes, s(n) = a + c n, learned from what batches took. Where lengths
//! are padded a row counts for as many as it is long, and n is the batch's *work*.

/// Share of what was known that stays when a batch is seen: some fifty batches are remembered.
const KEEP: f64 = 1.0 - 1.0 / 48.0;
/// A batch that is off by more than this many usual deviations counts as if it were off by so much:
/// one stall does not change the picture, and a lasting change does within tens of batches.
const MOST_DEVIATIONS: f64 = 4.0;
/// What is usual is never less than this share of the time itself.
const LEAST_DEVIATION: f64 = 0.02;
/// Batches before anything is held to be an outlier.
const TRUSTED: u32 = 6;
/// How different the sizes have to be, relative to their mean, to tell a slope from noise.
const LEAST_SPREAD: f64 = 0.02;

/// What was learned of a kind of batch. Times are nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learned {
    /// `a` in s(n) = a + c n.
    pub fixed: f64,
    /// `c`; 0 before batches of different sizes have been seen.
    pub per_row: f64,
    /// How far a batch usually is from that.
    pub deviation: f64,
    /// Batches seen.
    pub batches: u64,
}

/// The learned service time of one kind of batch. Times are nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServiceTime {
    seen: u32,
    /// Decayed sums over what was seen: ones, sizes, times, and their products.
    weight: f64,
    rows: f64,
    rows_rows: f64,
    time: f64,
    rows_time: f64,
    /// Smoothed distance of a batch from what was expected.
    deviation: f64,
    /// `a`; without a slope, the mean time.
    fixed: f64,
    /// `c`, once batches of different sizes have been seen.
    per_row: Option<f64>,
}

impl ServiceTime {
    /// Of a kind of which one batch has been seen: like `other`, but for what that one says.
    pub(super) fn like(other: &Self, rows: f64, nanoseconds: u64) -> Self {
        let expected = other.at(rows);
        if expected <= 0.0 {
            return Self::default();
        }
        let times = nanoseconds as f64 / expected;
        // It counts as little as a few batches do.
        let share = (4.0 / other.weight).min(1.0);
        Self {
            seen: 1,
            weight: other.weight * share,
            rows: other.rows * share,
            rows_rows: other.rows_rows * share,
            time: other.time * share * times,
            rows_time: other.rows_time * share * times,
            deviation: other.deviation * times,
            fixed: other.fixed * times,
            per_row: other.per_row.map(|per_row| per_row * times),
        }
    }

    pub(super) fn is_known(&self) -> bool {
        self.seen > 0
    }

    pub(super) fn learned(&self) -> Option<Learned> {
        self.is_known().then(|| Learned {
            fixed: self.fixed,
            per_row: self.per_row.unwrap_or(0.0),
            deviation: self.deviation,
            batches: u64::from(self.seen),
        })
    }

    /// Adds what a batch took.
    pub(super) fn observe(&mut self, rows: f64, nanoseconds: u64) {
        let mut took = nanoseconds as f64;
        if self.seen > 0 {
            let expected = self.at(rows);
            let usual = self.deviation.max(LEAST_DEVIATION * expected);
            if self.seen >= TRUSTED {
                let most = MOST_DEVIATIONS * usual;
                took = expected + (took - expected).clamp(-most, most);
            }
            // What is only a bound is not expected.
            if self.per_row.is_some() || rows * self.weight == self.rows {
                self.deviation += ((took - expected).abs() - self.deviation) / 8.0;
            }
        }
        self.seen = self.seen.saturating_add(1);
        self.weight = self.weight * KEEP + 1.0;
        self.rows = self.rows * KEEP + rows;
        self.rows_rows = self.rows_rows * KEEP + rows * rows;
        self.time = self.time * KEEP + took;
        self.rows_time = self.rows_time * KEEP + rows * took;
        self.fit();
    }

    fn fit(&mut self) {
        let (rows, time) = (self.rows / self.weight, self.time / self.weight);
        let spread = self.rows_rows / self.weight - rows * rows;
        let common = self.rows_time / self.weight - rows * time;
        let enough = LEAST_SPREAD * rows * rows;
        let slope = match self.per_row {
            // What is known of the slope stands for a spread of its own, so that it is kept when
            // every batch has one size, and gives way when they differ.
            Some(known) => Some((common + known * enough) / (spread + enough)),
            None if spread > enough => Some(common / spread),
            None => None,
        };
        // Neither part can be negative.
        self.per_row = slope.map(|slope| slope.clamp(0.0, time / rows));
        self.fixed = time - self.per_row.unwrap_or(0.0) * rows;
    }

    /// The expected time. Before different sizes have been seen, more rows are taken to cost in
    /// proportion and fewer to cost the same: whoever relies on it is not late.
    pub(super) fn at(&self, rows: f64) -> f64 {
        match self.per_row {
            Some(per_row) => self.fixed + per_row * rows,
            None if self.seen == 0 => 0.0,
            None => self.fixed * (rows * self.weight / self.rows).max(1.0),
        }
    }

    /// The time that hardly any batch exceeds.
    pub(super) fn surely(&self, rows: f64) -> f64 {
        self.at(rows) + 2.0 * self.deviation
    }

    /// The most rows that surely take no longer than `within`; 0 if even one does.
    pub(super) fn most_rows(&self, within: f64) -> f64 {
        let left = within - 2.0 * self.deviation;
        match self.per_row {
            _ if self.seen == 0 => f64::INFINITY,
            Some(per_row) => {
                let rows = (left - self.fixed) / per_row;
                // Without a slope, as many as there are, or none.
                if rows.is_nan() {
                    f64::INFINITY
                } else {
                    rows.floor().max(0.0)
                }
            }
            None if left < self.fixed => 0.0,
            None => (self.rows / self.weight * left / self.fixed).floor(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIXED: f64 = 2e6;
    const PER_ROW: f64 = 1e5;

    fn linear(rows: usize) -> u64 {
        (FIXED + PER_ROW * rows as f64) as u64
    }

    fn learned(sizes: impl IntoIterator<Item = usize>) -> ServiceTime {
        let mut time = ServiceTime::default();
        for rows in sizes {
            time.observe(rows as f64, linear(rows));
        }
        time
    }

    fn near(found: f64, expected: f64, share: f64) {
        assert!(
            (found / expected - 1.0).abs() < share,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn two_sizes_are_enough() {
        let time = learned([1, 32]);
        for rows in [1.0, 8.0, 100.0] {
            near(time.at(rows), FIXED + PER_ROW * rows, 1e-6);
        }
    }

    #[test]
    fn one_size_errs_on_the_safe_side() {
        let time = learned([8, 8, 8]);
        assert!(time.at(1.0) >= FIXED + PER_ROW);
        assert!(time.at(64.0) >= FIXED + 64.0 * PER_ROW);
        assert_eq!(time.most_rows(linear(8) as f64), 8.0);
        assert_eq!(time.most_rows(linear(4) as f64), 0.0);
    }

    #[test]
    fn a_slope_outlasts_batches_of_one_size() {
        let mut sizes = vec![1, 32];
        sizes.extend([8; 500]);
        near(learned(sizes).at(32.0), FIXED + 32.0 * PER_ROW, 0.05);
    }

    #[test]
    fn a_new_kind_is_like_the_others_but_for_its_speed() {
        let others = learned((0..100).map(|index| 1 + index % 16));
        let time = ServiceTime::like(&others, 4.0, 3 * linear(4));
        near(time.at(16.0), 3.0 * linear(16) as f64, 0.01);
    }

    #[test]
    fn one_stall_changes_little() {
        let mut time = learned((0..100).map(|index| 1 + index % 16));
        time.observe(8.0, 1000 * linear(8));
        near(time.at(8.0), linear(8) as f64, 0.02);
    }

    #[test]
    fn a_lasting_change_is_followed() {
        let mut time = learned((0..200).map(|index| 1 + index % 16));
        for index in 0..150 {
            let rows = 1 + index % 16;
            time.observe(rows as f64, 3 * linear(rows));
        }
        near(time.at(8.0), 3.0 * linear(8) as f64, 0.1);
        for index in 0..150 {
            let rows = 1 + index % 16;
            time.observe(rows as f64, linear(rows));
        }
        near(time.at(8.0), linear(8) as f64, 0.1);
    }

    #[test]
    fn the_most_rows_take_no_longer() {
        let time = learned((0..100).map(|index| 1 + index % 16));
        for milliseconds in [0.5, 2.1, 3.0, 10.0] {
            let rows = time.most_rows(milliseconds * 1e6);
            assert!(rows == 0.0 || time.surely(rows) <= milliseconds * 1e6);
            assert!(time.surely(rows + 1.0) > milliseconds * 1e6);
        }
    }

    #[test]
    fn time_that_does_not_depend_on_size_is_no_bound_on_size() {
        let mut time = ServiceTime::default();
        for rows in [1.0, 32.0, 4.0, 16.0] {
            time.observe(rows, 1_000_000);
        }
        assert_eq!(time.most_rows(999_999.0), 0.0);
        assert!(time.most_rows(1_001_000.0) > 1e6);
    }
}
