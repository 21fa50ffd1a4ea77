//! What no rule can exceed.

/// A device that takes `fixed + per_row * n` for n rows, and the time that requests have. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Case {
    /// `a`.
    pub fixed: f64,
    /// `c`.
    pub per_row: f64,
    /// `D`: from arrival to deadline.
    pub deadline: f64,
    /// Devices on one queue.
    pub devices: usize,
}

impl Case {
    /// s(n), in milliseconds.
    pub fn takes(&self, rows: f64) -> f64 {
        self.fixed + self.per_row * rows
    }

    /// The largest batch that takes no longer than this; a tolerance keeps whole numbers whole.
    fn largest(&self, milliseconds: f64) -> f64 {
        ((milliseconds - self.fixed) / self.per_row + 1e-9).floor()
    }

    fn rate(&self, rows: f64) -> f64 {
        if rows < 1.0 {
            return 0.0;
        }
        self.devices as f64 * rows / self.takes(rows)
    }

    /// The staggered bound, in requests a millisecond: devices start batches one after the other in
    /// equal steps, so that who just missed one is in time with the next:
    /// the largest n with (1 + 1/N) s(n) <= D.
    pub fn staggered(&self) -> f64 {
        let share = 1.0 + 1.0 / self.devices as f64;
        self.rate(self.largest(self.deadline / share))
    }

    /// What devices could do if every batch could be as large as a deadline allows without any wait:
    /// no rule, clairvoyant or not, answers more in time.
    pub fn clairvoyant(&self) -> f64 {
        self.rate(self.largest(self.deadline))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_devices() {
        let case = Case {
            fixed: 2.0,
            per_row: 0.1,
            deadline: 10.0,
            devices: 4,
        };
        // (1 + 1/4) (2 + 0.1 n) <= 10 for n <= 60, which takes 8 ms.
        assert!((case.staggered() - 30.0).abs() < 1e-9);
        assert!((case.clairvoyant() - 32.0).abs() < 1e-9);
    }
}
