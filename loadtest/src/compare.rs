//! Whether two servers differ: measured in turns, compared pair by pair.
//!
//! A machine that grows slower between two turns slows both sides of a pair, so it is ratios within
//! pairs that are looked at, on a logarithmic scale, where twice as fast and half as fast are as far
//! apart. Their mean has an interval by the studentised bootstrap (Efron 1981), which for few pairs
//! holds what it promises where the plain bootstrap is too narrow.

use fastrand::Rng;

use crate::recording::Recording;

const RESAMPLES: usize = 4_000;
/// Of calling a difference where there is none, over all metrics together.
const ERROR: f64 = 0.05;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// Good answers a second.
    Rate,
    /// Latency that half of all requests did not exceed.
    P50,
    /// Nine in ten.
    P90,
    /// Ninety-nine in a hundred.
    P99,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Rate, Self::P50, Self::P90, Self::P99];

    fn of(self, recording: &Recording) -> f64 {
        // A server that fails quickly is not fast.
        let quantile = |share| {
            let latency = recording.quantile_of_all(share);
            latency.map_or(f64::NAN, |latency| latency.as_secs_f64())
        };
        match self {
            Self::Rate => recording.goodput(),
            Self::P50 => quantile(0.5),
            Self::P90 => quantile(0.9),
            Self::P99 => quantile(0.99),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Rate => "good answers a second",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
        }
    }
}

/// How B does beside A in one metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// What was compared.
    pub metric: Metric,
    /// B over A.
    pub ratio: f64,
    /// Where the true ratio lies: with so much confidence that all metrics together are wrong one
    /// time in twenty.
    pub interval: (f64, f64),
    /// Whether that is a difference.
    pub call: Call,
}

/// What is said of a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// B is better.
    Better,
    /// B is worse.
    Worse,
    /// None can be told, or it is too small to matter.
    Same,
}

/// Compares turns of A with turns of B, the first with the first and so on; differences below
/// `matters`, a share, are not called. None with fewer than five pairs, or if so many requests failed
/// that a percentile has no bound.
pub fn compare(
    turns: &[(Recording, Recording)],
    matters: f64,
    seed: u64,
) -> Option<Vec<Comparison>> {
    let mut random = Rng::with_seed(seed);
    let error = ERROR / Metric::ALL.len() as f64;
    let comparisons = Metric::ALL.map(|metric| {
        let pairs = turns.iter();
        let ratios: Vec<f64> = pairs
            .map(|(a, b)| (metric.of(b) / metric.of(a)).ln())
            .collect();
        let (middle, low, high) = interval(&ratios, error, &mut random)?;
        let (ratio, interval) = (middle.exp(), (low.exp(), high.exp()));
        Some(Comparison {
            metric,
            ratio,
            interval,
            call: call(metric, ratio, interval, matters),
        })
    });
    comparisons.into_iter().collect()
}

fn call(metric: Metric, ratio: f64, (low, high): (f64, f64), matters: f64) -> Call {
    let more_is_better = metric == Metric::Rate;
    if (low..=high).contains(&1.0) || (ratio - 1.0).abs() < matters {
        Call::Same
    } else if (ratio > 1.0) == more_is_better {
        Call::Better
    } else {
        Call::Worse
    }
}

/// Mean of the numbers, and an interval that misses the true one with this probability; none for
/// fewer than five, or if one is not finite.
fn interval(numbers: &[f64], error: f64, random: &mut Rng) -> Option<(f64, f64, f64)> {
    if numbers.len() < 5 || numbers.iter().any(|number| !number.is_finite()) {
        return None;
    }
    let (mean, deviation) = mean_and_error(numbers.iter().copied());
    let mut studentised: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let resampled = (0..numbers.len()).filter_map(|_| {
                let place = random.usize(0..numbers.len());
                numbers.get(place).copied()
            });
            let resampled: Vec<f64> = resampled.collect();
            let (other, own) = mean_and_error(resampled.into_iter());
            // All from one number: nothing can be said of how far apart they are.
            (own > deviation * 1e-3).then(|| (other - mean) / own)
        })
        .collect();
    studentised.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * studentised.len() as f64) as usize;
        let last = studentised.len().saturating_sub(1);
        studentised.get(place.min(last)).copied().unwrap_or(0.0)
    };
    Some((
        mean,
        mean - at(1.0 - error / 2.0) * deviation,
        mean - at(error / 2.0) * deviation,
    ))
}

/// The mean, and how far it is off: its standard error.
fn mean_and_error(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = numbers.clone().count() as f64;
    let mean = numbers.clone().sum::<f64>() / count;
    let squares: f64 = numbers.map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |ratio: f64| (ratio - 1.0) * 1e2;
        let (low, high) = self.interval;
        let name = self.metric.name();
        let numbers = |sign: f64| {
            let mut ends = [sign * percent(low), sign * percent(high)];
            ends.sort_by(f64::total_cmp);
            format!("[{:.1}, {:.1}]", ends[0], ends[1])
        };
        let size = percent(self.ratio).abs();
        match (self.call, self.metric) {
            (Call::Same, _) => write!(
                formatter,
                "B and A do not differ in {name} (B/A {:.3} [{low:.3}, {high:.3}])",
                self.ratio
            ),
            (Call::Better, Metric::Rate) => {
                write!(
                    formatter,
                    "B gives {size:.1} % {} more {name}",
                    numbers(1.0)
                )
            }
            (Call::Worse, Metric::Rate) => {
                write!(
                    formatter,
                    "B gives {size:.1} % {} fewer {name}",
                    numbers(-1.0)
                )
            }
            (Call::Better, _) => {
                write!(
                    formatter,
                    "B is {size:.1} % {} faster at {name}",
                    numbers(-1.0)
                )
            }
            (Call::Worse, _) => {
                write!(
                    formatter,
                    "B is {size:.1} % {} slower at {name}",
                    numbers(1.0)
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::normal;

    /// Pairs of a machine that drifts, with noise of its own in each turn, where B is `ratio` of A.
    fn ratios(pairs: usize, ratio: f64, noise: f64, random: &mut Rng) -> Vec<f64> {
        let drift = |turn: usize| 1.0 + 0.02 * turn as f64;
        (0..pairs)
            .map(|pair| {
                // A B, B A, A B and so on.
                let late = pair % 2;
                let a = drift(2 * pair + late) * (noise * normal(random)).exp();
                let b = ratio * drift(2 * pair + 1 - late) * (noise * normal(random)).exp();
                (b / a).ln()
            })
            .collect()
    }

    fn called(pairs: usize, ratio: f64, noise: f64, error: f64, seed: u64) -> usize {
        let mut random = Rng::with_seed(seed);
        let runs = (0..200).filter(|_| {
            let numbers = ratios(pairs, ratio, noise, &mut random);
            let (mean, low, high) = interval(&numbers, error, &mut random).unwrap();
            assert!(low <= mean && mean <= high);
            // Of the right sign.
            match ratio > 1.0 {
                true => low > 0.0,
                false => !(low..=high).contains(&0.0),
            }
        });
        runs.count()
    }

    #[test]
    fn the_same_is_rarely_called_different() {
        for pairs in [6, 10, 20] {
            for noise in [0.02, 0.1] {
                let calls = called(pairs, 1.0, noise, 0.05, 1);

                assert!(calls <= 16, "{calls} of 200 with {pairs} pairs");
            }
        }
    }

    #[test]
    fn a_tenth_is_seen() {
        let calls = called(10, 1.1, 0.03, ERROR / 4.0, 2);
        assert!(calls >= 190, "{calls} of 200");
    }

    #[test]
    fn it_is_said_in_words() {
        let comparison = Comparison {
            metric: Metric::P99,
            ratio: 0.88,
            interval: (0.85, 0.91),
            call: call(Metric::P99, 0.88, (0.85, 0.91), 0.02),
        };
        assert_eq!(
            comparison.to_string(),
            "B is 12.0 % [9.0, 15.0] faster at p99"
        );
        let small = call(Metric::Rate, 1.01, (1.005, 1.015), 0.02);
        assert_eq!(small, Call::Same);
        assert_eq!(call(Metric::Rate, 0.9, (0.8, 0.95), 0.02), Call::Worse);
    }

    #[test]
    fn a_server_that_fails_quickly_is_not_fast() {
        use crate::outcome::Outcome;
        use crate::recording::{Recorder, Sample};
        use std::time::Duration;
        let turn = |fails: bool| {
            let mut recorder = Recorder::new(Duration::ZERO, Duration::from_secs(1));
            for number in 0..1_000 {
                let intended = Duration::from_millis(number);
                let outcome = match fails && number % 10 == 0 {
                    true => Outcome::Failed(tonic::Code::Unavailable),
                    false => Outcome::Ok,
                };
                recorder.add(&Sample {
                    intended,
                    sent: intended,
                    ended: intended + Duration::from_micros(100 + number),
                    outcome,
                });
            }
            recorder.finish(&crate::blows::Blows::none())
        };
        let (sound, failing) = (turn(false), turn(true));
        assert!(Metric::Rate.of(&failing) < 0.95 * Metric::Rate.of(&sound));
        assert!(Metric::P50.of(&failing) > Metric::P50.of(&sound));
        assert!(Metric::P99.of(&failing).is_nan());
        let turns = vec![(sound, failing); 6];
        assert!(compare(&turns, 0.02, 1).is_none());
    }

    #[test]
    fn too_little_is_no_comparison() {
        assert!(interval(&[0.1; 4], 0.05, &mut Rng::with_seed(1)).is_none());
        assert!(interval(&[f64::NAN; 9], 0.05, &mut Rng::with_seed(1)).is_none());
        let (mean, low, high) = interval(&[0.1; 9], 0.05, &mut Rng::with_seed(1)).unwrap();
        assert!(mean == low && low == high);
    }
}
