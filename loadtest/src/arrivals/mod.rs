//! When requests are meant to be sent: pure iterators that a seed decides.
//! Knows numbers alone; never reads a clock, waits or sends.
//!
//! Arrivals are a [`Process`] of a mean rate of 1, stretched by the [`Profile`] of the rate over
//! time: the n-th arrival is where the profile's integral reaches the n-th moment of the process.
//! For the Poisson process that is exactly the inhomogeneous one.

mod process;
mod profile;
mod random;
mod trace;

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;

pub use process::Process;
pub use profile::{Profile, Step};
pub(crate) use random::normal;
pub use trace::{Recorded, read_trace};

/// How requests come.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// So many are always in flight: each answer is followed by the next request. Measures service
    /// times and a ceiling, not what users at a given rate would see.
    Closed {
        /// Requests in flight, at least 1.
        in_flight: usize,
    },
    /// They come at their own times, whatever the server does.
    Open(Schedule),
}

impl Arrivals {
    /// Independent of each other, at this many a second.
    pub fn poisson(rate: f64) -> Self {
        Self::Open(Schedule::Process(Process::Poisson, Profile::Constant(rate)))
    }

    /// At equal distances, this many a second.
    pub fn constant(rate: f64) -> Self {
        Self::Open(Schedule::Process(Process::Even, Profile::Constant(rate)))
    }
}

/// Times that do not depend on the server.
#[derive(Clone, Debug)]
pub enum Schedule {
    /// Made by chance.
    Process(Process, Profile),
    /// As they were recorded, once.
    Trace(Arc<[Recorded]>),
}

/// One arrival.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Arrival {
    /// From the start of the run.
    pub offset: Duration,
    /// Rows, where a recording says them.
    pub rows: Option<u32>,
}

impl Schedule {
    /// The arrivals in their order; the same for the same seed, and without end unless recorded.
    pub fn arrivals(&self, seed: u64) -> Offsets {
        let source = match self {
            Self::Process(process, profile) => Source::Process {
                process: *process,
                profile: profile.clone(),
                random: Rng::with_seed(seed),
                moment: 0.0,
            },
            Self::Trace(recorded) => Source::Trace {
                recorded: Arc::clone(recorded),
                next: 0,
            },
        };
        Offsets(source)
    }

    /// When the last one has come, if there is a last.
    pub fn end(&self) -> Option<Duration> {
        const AFTER: Duration = Duration::from_nanos(1);
        match self {
            Self::Process(..) => None,
            Self::Trace(recorded) => recorded.last().map(|one| one.offset + AFTER),
        }
    }

    /// Requests a second over this time, on average.
    pub fn mean_rate(&self, over: Duration) -> f64 {
        let seconds = over.as_secs_f64().max(f64::MIN_POSITIVE);
        match self {
            Self::Process(_, profile) => profile.integral(seconds) / seconds,
            Self::Trace(recorded) => {
                let within = recorded.iter().filter(|one| one.offset < over).count();
                within as f64 / seconds
            }
        }
    }
}

/// The iterator of [`Schedule::arrivals`].
#[derive(Clone, Debug)]
pub struct Offsets(Source);

#[derive(Clone, Debug)]
enum Source {
    Process {
        process: Process,
        profile: Profile,
        random: Rng,
        /// Of the process of rate 1.
        moment: f64,
    },
    Trace {
        recorded: Arc<[Recorded]>,
        next: usize,
    },
}

impl Iterator for Offsets {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        match &mut self.0 {
            Source::Process {
                process,
                profile,
                random,
                moment,
            } => {
                *moment += process.gap(random);
                let offset = Duration::try_from_secs_f64(profile.inverse(*moment)).ok()?;
                Some(Arrival { offset, rows: None })
            }
            Source::Trace { recorded, next } => {
                let one = recorded.get(*next)?;
                *next += 1;
                Some(Arrival {
                    offset: one.offset,
                    rows: one.rows,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 200_000;

    fn gaps(process: Process, rate: f64) -> Vec<f64> {
        let schedule = Schedule::Process(process, Profile::Constant(rate));
        let offsets: Vec<f64> = schedule
            .arrivals(7)
            .take(COUNT)
            .map(|arrival| arrival.offset.as_secs_f64())
            .collect();
        offsets.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// Mean, squared coefficient of variation, and correlation of each gap with the next.
    fn statistics(gaps: &[f64]) -> (f64, f64, f64) {
        let count = gaps.len() as f64;
        let mean = gaps.iter().sum::<f64>() / count;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / count;
        let products = gaps.windows(2).map(|two| (two[0] - mean) * (two[1] - mean));
        let covariance = products.sum::<f64>() / (count - 1.0);
        (
            mean,
            variance / mean.powi(2),
            covariance / variance.max(1e-30),
        )
    }

    #[test]
    fn constant_gaps_are_equal() {
        let (mean, variation, _) = statistics(&gaps(Process::Even, 500.0));
        assert!((mean - 0.002).abs() < 1e-9 && variation < 1e-9);
    }

    #[test]
    fn poisson_gaps_are_exponential_and_independent() {
        let gaps = gaps(Process::Poisson, 500.0);
        let (mean, variation, correlation) = statistics(&gaps);
        assert!((mean * 500.0 - 1.0).abs() < 0.01, "{mean}");
        assert!((variation - 1.0).abs() < 0.02, "{variation}");
        assert!(correlation.abs() < 0.01, "{correlation}");
        // An exponential time exceeds its mean with the chance 1/e.
        let over = gaps.iter().filter(|gap| **gap > 0.002).count() as f64 / gaps.len() as f64;
        assert!((over - (-1.0_f64).exp()).abs() < 0.005, "{over}");
    }

    #[test]
    fn bursty_gaps_vary_as_stated_and_are_independent() {
        for stated in [0.25, 4.0, 16.0] {
            let gaps = gaps(Process::Bursty { variation: stated }, 500.0);
            let (mean, variation, correlation) = statistics(&gaps);
            assert!((mean * 500.0 - 1.0).abs() < 0.03, "{stated}: {mean}");
            let error = variation / stated - 1.0;
            assert!(error.abs() < 0.06, "{stated}: {variation}");
            assert!(correlation.abs() < 0.01, "{stated}: {correlation}");
        }
    }

    #[test]
    fn a_seed_decides_everything() {
        let schedule = Schedule::Process(Process::Poisson, Profile::Constant(10.0));
        let first = |seed| schedule.arrivals(seed).take(100).collect::<Vec<_>>();
        assert_eq!(first(1), first(1));
        assert_ne!(first(1), first(2));
    }

    #[test]
    fn a_profile_moves_arrivals_to_where_its_rate_is_high() {
        let steps = Profile::Steps(vec![Step::new(10.0, 100.0), Step::new(10.0, 900.0)]);
        let schedule = Schedule::Process(Process::Poisson, steps);
        let offsets = schedule.arrivals(3).map(|arrival| arrival.offset);
        let within: Vec<Duration> = offsets
            .take_while(|offset| *offset < Duration::from_secs(20))
            .collect();
        let early = within.iter().filter(|one| one.as_secs() < 10).count() as f64;
        assert!((early - 1000.0).abs() < 130.0, "{early}");
        let late = within.len() as f64 - early;
        assert!((late - 9000.0).abs() < 400.0, "{late}");
        assert!((schedule.mean_rate(Duration::from_secs(20)) - 500.0).abs() < 1e-6);
    }

    #[test]
    fn a_recording_is_played_once() {
        let recorded = [0.5, 0.1].map(|at| Recorded {
            offset: Duration::from_secs_f64(at),
            rows: Some(3),
        });
        let schedule = Schedule::Trace(recorded.into());
        let played: Vec<Arrival> = schedule.arrivals(1).collect();
        assert_eq!(played.len(), 2);
        assert_eq!(played[0].rows, Some(3));
    }

    #[test]
    fn a_recordings_last_request_comes_before_its_end() {
        let recorded = [0.1, 0.5, 0.5].map(|at| Recorded {
            offset: Duration::from_secs_f64(at),
            rows: None,
        });
        let schedule = Schedule::Trace(recorded.into());
        let end = schedule.end().unwrap();
        assert_eq!(
            schedule.arrivals(1).filter(|one| one.offset < end).count(),
            3
        );
        assert_eq!((schedule.mean_rate(end) * end.as_secs_f64()).round(), 3.0);
    }
}
