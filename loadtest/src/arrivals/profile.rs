//! How the rate changes over time.

use std::f64::consts::TAU;
use std::time::Duration;

/// The rate of arrivals over time, in requests a second.
#[derive(Clone, Debug, PartialEq)]
pub enum Profile {
    /// Always this rate.
    Constant(f64),
    /// One rate after the other; the last one lasts on.
    Steps(Vec<Step>),
    /// From one rate evenly to another, which lasts on.
    Ramp {
        /// The rate at the start.
        from: f64,
        /// The rate at the end.
        to: f64,
        /// How long it takes to get there.
        over: Duration,
    },
    /// Up and down as a sine, beginning at its lowest, as over a day.
    Diurnal {
        /// The lowest rate.
        low: f64,
        /// The highest rate.
        high: f64,
        /// From one lowest moment to the next.
        period: Duration,
    },
}

/// One rate for a time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Step {
    /// How long.
    pub duration: Duration,
    /// Requests a second.
    pub rate: f64,
}

impl Step {
    /// This rate for so many seconds.
    pub fn new(seconds: f64, rate: f64) -> Self {
        Self {
            duration: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            rate,
        }
    }
}

impl Profile {
    /// Arrivals expected in the first so many seconds.
    pub(super) fn integral(&self, seconds: f64) -> f64 {
        match self {
            Self::Constant(rate) => rate * seconds,
            Self::Steps(steps) => steps_integral(steps, seconds),
            Self::Ramp { from, to, over } => {
                let over = over.as_secs_f64();
                let inside = seconds.min(over);
                let slope = (to - from) / over.max(f64::MIN_POSITIVE);
                from * inside + slope * inside * inside / 2.0 + to * (seconds - inside)
            }
            Self::Diurnal { low, high, period } => {
                let turns = TAU / period.as_secs_f64().max(f64::MIN_POSITIVE);
                let (middle, swing) = ((low + high) / 2.0, (high - low) / 2.0);
                middle * seconds - swing * (turns * seconds).sin() / turns
            }
        }
    }

    /// The second in which so many arrivals are expected; infinite if that many never come.
    pub(super) fn inverse(&self, arrivals: f64) -> f64 {
        if let Self::Constant(rate) = self {
            return arrivals / rate;
        }
        let mut high = 1.0;
        while self.integral(high) < arrivals {
            high *= 2.0;
            if high > 1e9 {
                return f64::INFINITY;
            }
        }
        let mut low = 0.0;
        // Down to where two doubles touch, or a tenth of a nanosecond.
        while high - low > 1e-10 {
            let middle = (low + high) / 2.0;
            if middle <= low || middle >= high {
                break;
            }
            if self.integral(middle) < arrivals {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }

    /// The rate `seconds` after the start.
    pub fn rate(&self, seconds: f64) -> f64 {
        match self {
            Self::Constant(rate) => *rate,
            Self::Steps(steps) => {
                let mut end = 0.0;
                let current = steps.iter().find(|step| {
                    end += step.duration.as_secs_f64();
                    seconds < end
                });
                current.or(steps.last()).map_or(0.0, |step| step.rate)
            }
            Self::Ramp { from, to, over } => {
                let share = seconds / over.as_secs_f64().max(f64::MIN_POSITIVE);
                from + (to - from) * share.min(1.0)
            }
            Self::Diurnal { low, high, period } => {
                let turn = seconds / period.as_secs_f64().max(f64::MIN_POSITIVE);
                low + (high - low) * (1.0 - (TAU * turn).cos()) / 2.0
            }
        }
    }
}

fn steps_integral(steps: &[Step], seconds: f64) -> f64 {
    let (mut left, mut sum) = (seconds, 0.0);
    for step in steps {
        let inside = left.min(step.duration.as_secs_f64());
        sum += step.rate * inside;
        left -= inside;
    }
    sum + left * steps.last().map_or(0.0, |step| step.rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profiles() -> [Profile; 4] {
        let over = Duration::from_secs(10);
        [
            Profile::Constant(5.0),
            Profile::Steps(vec![Step::new(2.0, 10.0), Step::new(1.0, 50.0)]),
            Profile::Ramp {
                from: 1.0,
                to: 101.0,
                over,
            },
            Profile::Diurnal {
                low: 10.0,
                high: 30.0,
                period: over,
            },
        ]
    }

    #[test]
    fn the_integral_is_that_of_the_rate() {
        for profile in profiles() {
            let slices = 120_000;
            let width = 12.0 / f64::from(slices);
            let sum: f64 = (0..slices)
                .map(|slice| profile.rate((f64::from(slice) + 0.5) * width) * width)
                .sum();
            let exact = profile.integral(12.0);
            assert!((sum - exact).abs() < 0.01, "{profile:?}: {sum} {exact}");
        }
    }

    #[test]
    fn the_inverse_is_one() {
        for profile in profiles() {
            for seconds in [0.1, 1.0, 2.5, 9.0, 30.0] {
                let back = profile.inverse(profile.integral(seconds));
                assert!((back - seconds).abs() < 1e-6, "{profile:?}: {back}");
            }
        }
    }

    #[test]
    fn what_never_comes_is_at_infinity() {
        let ends = Profile::Steps(vec![Step::new(1.0, 5.0), Step::new(1.0, 0.0)]);
        assert!(ends.inverse(6.0).is_infinite());
    }
}
