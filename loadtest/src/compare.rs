//! Whether two servers differ: measured in turns, compared pair by pair.
//!
//! A machine that grows slower between two turns slows both sides of a pair, so it is ratios within
//! pairs that are looked at, on a logarithmic scale, where twice as fast and half as fast are as far
//! apart. How sure their mean is says the bootstrap; that several metrics are looked at at once is
//! allowed for by Holm's correction (1979).

use fastrand::Rng;

use crate::bootstrap::{FEWEST, Mean};
use crate::recording::Recording;

/// Of calling a difference where there is none, in any of the metrics.
const ERROR: f64 = 0.05;
/// Fewer pairs tell nothing.
pub const FEWEST_PAIRS: usize = FEWEST;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Good answers a second.
    Rate,
    /// Latency that half of all requests did not exceed; what got no good answer exceeds any.
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
        // A server that fails quickly is not fast, nor one whose answers are wrong or of no use any more.
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
    /// Where the true ratio lies, with so much confidence that in one comparison of twenty at most a
    /// difference is called that is none.
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
/// `matters`, a share, are not called. None with fewer than [`FEWEST_PAIRS`], or if so many requests
/// got no good answer that a percentile has no bound.
pub fn compare(
    turns: &[(Recording, Recording)],
    matters: f64,
    seed: u64,
) -> Option<Vec<Comparison>> {
    let ratios = Metric::ALL.map(|metric| -> Vec<f64> {
        let pairs = turns.iter();
        pairs
            .map(|(a, b)| (metric.of(b) / metric.of(a)).ln())
            .collect()
    });
    judge(&ratios, matters, seed)
}

/// Compares by the logarithms of the ratios of each metric.
fn judge(ratios: &[Vec<f64>], matters: f64, seed: u64) -> Option<Vec<Comparison>> {
    let mut random = Rng::with_seed(seed);
    let means = ratios.iter().map(|one| Mean::of(one, &mut random));
    let means: Vec<Mean> = means.collect::<Option<_>>()?;
    let mut judged: Vec<(Metric, Mean)> = Metric::ALL.into_iter().zip(means).collect();
    judged.sort_by(|(_, one), (_, other)| one.chance().total_cmp(&other.chance()));
    let mut left = judged.len();
    let comparisons = judged.into_iter().map(|(metric, mean)| {
        // Each difference that is found leaves one metric less that could be called by mistake. After
        // the first that is not found all others are less sure still.
        let error = ERROR / left as f64;
        left -= usize::from(mean.chance() <= error);
        let margin = mean.margin(error);
        let ratio = mean.mean.exp();
        let interval = ((mean.mean - margin).exp(), (mean.mean + margin).exp());
        Comparison {
            metric,
            ratio,
            interval,
            call: call(metric, ratio, interval, matters),
        }
    });
    let mut comparisons: Vec<Comparison> = comparisons.collect();
    comparisons.sort_by_key(|comparison| comparison.metric);
    Some(comparisons)
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

    /// Ratios of each metric between turns of a machine that drifts, where in one turn of ten something
    /// else is going on, and B is no other than A.
    fn ratios(pairs: usize, noise: f64, random: &mut Rng) -> Vec<Vec<f64>> {
        let mut metrics = vec![Vec::new(); Metric::ALL.len()];
        for pair in 0..pairs {
            // A B, B A, A B and so on.
            let late = pair % 2;
            let mut turn = |turn: usize| {
                let outlier = if random.f64() < 0.1 { 0.3 } else { 0.0 };
                let shared = 0.02 * turn as f64 + outlier + noise * normal(random);
                // What ails one percentile ails the others too.
                Metric::ALL.map(|_| shared + noise * normal(random))
            };
            let (a, b) = (turn(2 * pair + late), turn(2 * pair + 1 - late));
            for ((metric, a), b) in metrics.iter_mut().zip(a).zip(b) {
                metric.push(b - a);
            }
        }
        metrics
    }

    /// How many of so many comparisons call anything.
    fn called(comparisons: u64, pairs: usize, noise: f64) -> usize {
        let mut random = Rng::with_seed(1);
        let any = (0..comparisons).filter(|seed| {
            let ratios = ratios(pairs, noise, &mut random);
            let judged = judge(&ratios, 0.02, *seed).unwrap();
            judged.iter().any(|one| one.call != Call::Same)
        });
        any.count()
    }

    #[test]
    fn the_same_is_rarely_called_different() {
        for pairs in [6, 10] {
            let calls = called(40, pairs, 0.05);
            assert!(calls <= 4, "{calls} of 40 with {pairs} pairs");
        }
    }

    #[test]
    fn a_tenth_is_seen() {
        let mut random = Rng::with_seed(2);
        let seen = (0..20).filter(|seed| {
            let mut turns = |_| 1.1_f64.ln() + 0.04 * normal(&mut random);
            let ratios = Metric::ALL.map(|_| (0..10).map(&mut turns).collect());
            let judged = judge(&ratios, 0.02, *seed).unwrap();
            // More answers a second, and a longer time to each.
            judged[0].call == Call::Better && judged[1..].iter().all(|one| one.call == Call::Worse)
        });
        let seen = seen.count();
        assert!(seen >= 18, "{seen} of 20");
    }

    #[test]
    fn a_difference_that_is_found_makes_the_others_easier_to_find() {
        // Of ten numbers: the mean is so many standard errors from 0.
        let away = |errors: f64| -> Vec<f64> {
            let numbers = (0..10).map(|at| (f64::from(at) - 4.5) / 9.0 * 0.1);
            let (count, deviation) = (10.0_f64, 0.033_6);
            numbers
                .map(|number| number + errors * deviation / count.sqrt())
                .collect()
        };
        let calls = |ratios: &[Vec<f64>]| {
            let judged = judge(ratios, 0.0, 1).unwrap();
            judged.iter().filter(|one| one.call != Call::Same).count()
        };
        // One in forty or so: too little where it is one of four, enough where it is the last.
        let (clear, doubtful) = (away(9.0), away(2.8));
        assert_eq!(
            calls(&[clear.clone(), clear.clone(), clear, doubtful.clone()]),
            4
        );
        assert_eq!(calls(&vec![doubtful; 4]), 0);
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
        let turn = |fails: Option<Outcome>| {
            let mut recorder = Recorder::new(Duration::ZERO, Duration::from_secs(1));
            for number in 0..1_000 {
                let intended = Duration::from_millis(number);
                let outcome = fails.filter(|_| number % 10 == 0);
                let outcome = outcome.unwrap_or(Outcome::Ok);
                recorder.add(&Sample {
                    intended,
                    sent: intended,
                    ended: intended + Duration::from_micros(100 + number),
                    outcome,
                });
            }
            recorder.finish(&crate::blows::Blows::none())
        };
        let refused = Outcome::Failed(tonic::Code::Unavailable);
        for ending in [refused, Outcome::Late, Outcome::Wrong] {
            let (sound, failing) = (turn(None), turn(Some(ending)));
            assert!(Metric::Rate.of(&failing) < 0.95 * Metric::Rate.of(&sound));
            assert!(Metric::P50.of(&failing) > Metric::P50.of(&sound));
            assert!(Metric::P99.of(&failing).is_nan(), "{ending:?}");
            let turns = vec![(sound, failing); 6];
            assert!(compare(&turns, 0.02, 1).is_none());
        }
    }
}
