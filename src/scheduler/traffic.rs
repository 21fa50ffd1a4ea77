//! How much is asked, and in how much time: what a batcher knows of those who have not come yet.

use std::time::Duration;

use super::Item;
use crate::clock::Moment;

/// How far back the rate looks. Long enough to be steady, short enough to follow a change.
const LOOK_BACK: f64 = 200e6;
/// How many requests the typical budget looks back.
const BUDGETS: f64 = 64.0;

/// The rate of arrivals, and the time that requests bring with them. Times are nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Traffic {
    /// Work that came, that of long ago counting less.
    recent: f64,
    first: Option<Moment>,
    last: Moment,
    /// Smoothed time from arrival to deadline, of requests that have one.
    budget: Option<f64>,
    /// Rows that came.
    rows: u64,
}

impl Traffic {
    pub(super) fn arrived(&mut self, now: Moment, item: &Item) {
        self.recent = self.recent * self.fading(now) + (item.rows * item.length) as f64;
        self.rows += item.rows as u64;
        self.first.get_or_insert(now);
        self.last = now;
        if let Some(deadline) = item.deadline {
            let budget = nanoseconds(deadline.since(now));
            let before = self.budget.unwrap_or(budget);
            self.budget = Some(before + (budget - before) / BUDGETS);
        }
    }

    /// Work a nanosecond: rows, times their length where it varies.
    pub(super) fn rate(&self, now: Moment) -> f64 {
        let Some(first) = self.first else {
            return 0.0;
        };
        let age = nanoseconds(now.since(first));
        // Of a time that has only begun, only so much can have been seen.
        let seen = (1.0 - (-age / LOOK_BACK).exp()).max(0.05);
        self.recent * self.fading(now) / (LOOK_BACK * seen)
    }

    /// The time that a request typically has; none if requests bring no deadlines.
    pub(super) fn budget(&self) -> Option<f64> {
        self.budget
    }

    /// Rows that came so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    fn fading(&self, now: Moment) -> f64 {
        (-nanoseconds(now.since(self.last)) / LOOK_BACK).exp()
    }
}

pub(super) fn nanoseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::ShapeClass;

    fn item(deadline: Option<Moment>) -> Item {
        Item {
            rows: 2,
            length: 1,
            class: ShapeClass(0),
            deadline,
            level: 0,
        }
    }

    #[test]
    fn the_rate_is_found_soon_and_forgotten_soon() {
        let mut traffic = Traffic::default();
        let at = |index: u64| Moment::from_nanos(index * 100_000);
        let two_rows_each_tenth_of_a_millisecond = 2.0 / 100_000.0;
        for index in 1..=10_000 {
            traffic.arrived(at(index), &item(None));
            if index == 200 || index == 10_000 {
                let share = traffic.rate(at(index)) / two_rows_each_tenth_of_a_millisecond;
                assert!((share - 1.0).abs() < 0.05, "{share} after {index}");
            }
        }
        let later = at(10_000) + Duration::from_secs(2);
        assert!(traffic.rate(later) < two_rows_each_tenth_of_a_millisecond / 1000.0);
    }

    #[test]
    fn the_budget_is_what_requests_bring() {
        let mut traffic = Traffic::default();
        assert_eq!(traffic.budget(), None);
        let now = Moment::from_nanos(5);
        traffic.arrived(now, &item(Some(now + Duration::from_millis(7))));
        traffic.arrived(now, &item(None));
        assert_eq!(traffic.budget(), Some(7e6));
    }
}
