//! The largest rate at which what is asked holds: bracketed by doubling, then halved on a logarithmic
//! scale. Pure: it is told how a rate turned out, and says which one to try next.

use std::fmt;
use std::time::Duration;

use crate::confidence::{Known, is_below};
use crate::recording::Recording;
use crate::slo::Slo;

/// Requests that failed or took longer than is asked.
pub fn bad(recording: &Recording, slo: &Slo) -> u64 {
    match slo.latency {
        Some((_, bound)) => recording.over(bound),
        None => recording.outcomes.all() - recording.outcomes.ok,
    }
}

/// Whether so few of them did that the percentile holds.
pub fn holds(recording: &Recording, slo: &Slo) -> Known {
    let allowed = slo.latency.map_or(0.01, |(share, _)| 1.0 - share);
    is_below(bad(recording, slo), recording.outcomes.all(), allowed)
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    /// The largest rate that held.
    held: Option<f64>,
    /// The smallest rate that did not.
    failed: Option<f64>,
    next: f64,
    least: f64,
    precision: f64,
    tries: usize,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found {
    /// This rate holds, and that one does not.
    Between(f64, f64),
    /// Not even this rate holds.
    Nothing(f64),
    /// Every rate up to this one holds.
    Everything(f64),
}

impl fmt::Display for Found {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing(rate) => write!(formatter, "not even {rate:.1} requests a second hold"),
            Self::Everything(rate) => write!(formatter, "every rate up to {rate:.1} holds"),
            Self::Between(held, failed) => {
                write!(
                    formatter,
                    "{held:.1} requests a second hold, {failed:.1} do not"
                )
            }
        }
    }
}

/// No search tries more rates.
const MOST_TRIES: usize = 40;
/// How often a rate is run at most until it is known whether it holds.
pub const MOST_RUNS: usize = 3;
/// Fewer requests in a run tell nothing, and bursts leave whole runs without one.
const FEWEST_REQUESTS: f64 = 30.0;

/// The least rate at which runs of this length tell whether such a share of requests keeps a bound: all of
/// them together have one request that may break it.
pub fn least_rate(share: f64, duration: Duration) -> f64 {
    let one = 1.0 / (1.0 - share) / MOST_RUNS as f64;
    one.max(FEWEST_REQUESTS) / duration.as_secs_f64()
}

impl Search {
    /// A search that begins at a rate and ends when the one that holds and the one that does not are
    /// apart by less than this part of themselves. If none holds it goes down to `least`, and never
    /// below it but for a start that is.
    pub fn new(start: f64, least: f64, precision: f64) -> Self {
        Self {
            held: None,
            failed: None,
            next: start,
            least,
            precision,
            tries: 0,
        }
    }

    /// The rate to try next.
    pub fn rate(&self) -> f64 {
        self.next
    }

    /// How that rate turned out; what was found, once it is.
    pub fn tell(&mut self, holds: bool) -> Option<Found> {
        self.tries += 1;
        match holds {
            true => self.held = Some(self.next),
            false => self.failed = Some(self.next),
        }
        match (self.held, self.failed) {
            (Some(held), None) => self.next = held * 2.0,
            (None, Some(failed)) if failed <= self.least => return Some(Found::Nothing(failed)),
            (None, Some(failed)) => self.next = (failed / 2.0).max(self.least),
            (Some(held), Some(failed)) => {
                if failed / held <= 1.0 + self.precision {
                    return Some(Found::Between(held, failed));
                }
                self.next = (held * failed).sqrt();
            }
            (None, None) => {}
        }
        if self.tries < MOST_TRIES {
            return None;
        }
        Some(match (self.held, self.failed) {
            (Some(held), Some(failed)) => Found::Between(held, failed),
            (Some(held), None) => Found::Everything(held),
            (None, failed) => Found::Nothing(failed.unwrap_or(self.next)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::{Process, Profile, Schedule};
    use crate::blows::Blows;
    use crate::outcome::Outcome;
    use crate::recording::{Recorder, Sample};

    fn searched(start: f64, holds: impl Fn(f64) -> bool) -> Found {
        let mut search = Search::new(start, 0.3, 0.02);
        loop {
            let rate = search.rate();
            if let Some(found) = search.tell(holds(rate)) {
                return found;
            }
        }
    }

    #[test]
    fn it_ends_around_the_capacity_from_wherever_it_starts() {
        for capacity in [0.7, 13.0, 999.0, 123_456.0] {
            for start in [1.0, 100.0, 1e6] {
                let found = searched(start, |rate| rate <= capacity);
                let Found::Between(held, failed) = found else {
                    panic!("{found:?}")
                };
                assert!(held <= capacity && capacity < failed && failed / held <= 1.02);
            }
        }
    }

    /// What one server takes for each request.
    const TAKES: f64 = 0.005;

    /// A queue before one server that takes that long for each, under Poisson arrivals, in virtual time.
    fn queued(rate: f64, seed: u64) -> Recording {
        let length = Duration::from_secs(1_000);
        let mut recorder = Recorder::new(Duration::ZERO, length);
        let schedule = Schedule::Process(Process::Poisson, Profile::Constant(rate));
        let mut free = Duration::ZERO;
        let offsets = schedule.arrivals(seed).map(|arrival| arrival.offset);
        for intended in offsets.take_while(|offset| *offset < length) {
            free = free.max(intended) + Duration::from_secs_f64(TAKES);
            recorder.add(&Sample {
                intended,
                sent: intended,
                ended: free,
                outcome: Outcome::Ok,
            });
        }
        recorder.finish(&Blows::none())
    }

    /// The share of those who wait no longer than this (Erlang 1909).
    fn waits_at_most(seconds: f64, rate: f64) -> f64 {
        let terms = (0..=(seconds / TAKES) as i32).map(|served| {
            let at = rate * (f64::from(served) * TAKES - seconds);
            let factorial: f64 = (1..=served).map(f64::from).product();
            at.powi(served) / factorial * (-at).exp()
        });
        (1.0 - rate * TAKES) * terms.sum::<f64>()
    }

    #[test]
    fn the_capacity_that_is_found_is_the_analytic_one() {
        for (share, bound) in [(0.9, 0.022), (0.99, 0.042)] {
            let slo = Slo {
                latency: Some((share, Duration::from_secs_f64(bound))),
                ..Slo::default()
            };
            let found = searched(20.0, |rate| {
                let recording = queued(rate, rate.to_bits());
                let all = recording.outcomes.all() as f64;
                match holds(&recording, &slo) {
                    Known::Below => true,
                    Known::Above => false,
                    Known::Open => bad(&recording, &slo) as f64 <= all * (1.0 - share),
                }
            });
            let Found::Between(held, failed) = found else {
                panic!("{found:?}")
            };
            let (mut low, mut high) = (1.0, 0.999 / TAKES);
            for _ in 0..50 {
                let middle = (low + high) / 2.0;
                match waits_at_most(bound - TAKES, middle) >= share {
                    true => low = middle,
                    false => high = middle,
                }
            }
            for rate in [held, failed] {
                assert!((rate / low - 1.0).abs() < 0.03, "{found:?}, analytic {low}");
            }
        }
    }

    #[test]
    fn without_a_capacity_it_ends_too() {
        assert!(matches!(searched(1.0, |_| true), Found::Everything(_)));
    }

    #[test]
    fn where_nothing_holds_the_least_rate_is_the_last() {
        assert_eq!(searched(1.0, |_| false), Found::Nothing(0.3));
        assert_eq!(searched(1e6, |_| false), Found::Nothing(0.3));
        // Who begins below it is told of what was asked for.
        assert_eq!(searched(0.1, |_| false), Found::Nothing(0.1));
        assert!(matches!(
            searched(0.1, |rate| rate < 0.2),
            Found::Between(..)
        ));
    }

    #[test]
    fn the_least_rate_sends_enough_to_tell() {
        let ten = Duration::from_secs(10);
        for (share, sent) in [(0.5, 30.0), (0.99, 100.0 / 3.0), (0.999, 1_000.0 / 3.0)] {
            let least = least_rate(share, ten);
            assert!((least * 10.0 - sent).abs() < 1e-6, "{share}: {least}");
        }
    }
}
