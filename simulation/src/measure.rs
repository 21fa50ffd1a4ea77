//! Figures of a rule in a case: what is in time at a rate, and the largest rate that it bears.

use std::time::Duration;

use fastrand::Rng;
use jitney::clock::Moment;
use jitney::scheduler::{Item, Policy, ShapeClass};

use crate::arrivals::Arrivals;
use crate::bounds::Case;
use crate::rules::{Fifo, Jitney, Rule};
use crate::world::{End, Group, Request, play};

/// Batches of more rows are never made, so that a deadline and not a cap is what limits them.
pub const MAX_BATCH_SIZE: usize = 1024;
const MAX_QUEUE_SIZE: usize = 1_000_000;
/// What is left out at the start, in milliseconds: queues fill and rates are learned.
const WARM_UP: f64 = 400.0;
/// What counts, at least: as long, and as many requests as give steady figures.
const LEAST_TIME: f64 = 600.0;
const LEAST_DEADLINES: f64 = 800.0;
const ENOUGH_REQUESTS: f64 = 100_000.0;

/// A rule by name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// The server's own.
    Jitney,
    /// Leaves at once, first come first served.
    Greedy,
    /// Waits up to this share of the deadline.
    Delay(f64),
    /// Clipper's.
    Aimd,
}

impl Kind {
    /// The rule, for a case.
    pub fn rule(self, case: &Case) -> Box<dyn Rule> {
        match self {
            Self::Jitney => {
                let policy = Policy {
                    max_batch_size: MAX_BATCH_SIZE,
                    max_queue_size: MAX_QUEUE_SIZE,
                    ..Policy::default()
                };
                let mut jitney = Jitney::new(policy, &[case.devices]);
                for rows in [1, 32] {
                    jitney.seed(0, rows, milliseconds(case.takes(rows as f64)));
                }
                Box::new(jitney)
            }
            Self::Greedy => Box::new(Fifo::greedy(MAX_BATCH_SIZE, MAX_QUEUE_SIZE)),
            Self::Delay(share) => Box::new(Fifo::delayed(
                MAX_BATCH_SIZE,
                MAX_QUEUE_SIZE,
                milliseconds(share * case.deadline),
            )),
            Self::Aimd => Box::new(Fifo::adaptive(MAX_BATCH_SIZE, MAX_QUEUE_SIZE)),
        }
    }
}

/// What requests are like.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Shapes, equally likely.
    pub classes: u64,
}

impl Mix {
    /// One shape.
    pub const ONE: Self = Self { classes: 1 };
}

/// What a run at one rate showed.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Share of requests answered in time.
    pub in_time: f64,
    /// Requests answered in time, a millisecond.
    pub goodput: f64,
    /// Answers that came after their deadline.
    pub late_answers: usize,
    /// Latency of answers in milliseconds: the median, and what one in a hundred exceeds.
    pub p50: f64,
    /// See `p50`.
    pub p99: f64,
    /// Mean latency of answers in milliseconds.
    pub mean: f64,
    /// Mean rows in a batch.
    pub rows: f64,
}

/// Plays a rule in a case at a rate, in requests a millisecond.
pub fn run(
    case: &Case,
    kind: Kind,
    arrivals: &Arrivals,
    mix: Mix,
    rate: f64,
    seed: u64,
) -> Figures {
    let time = (ENOUGH_REQUESTS / rate)
        .min(LEAST_DEADLINES * case.deadline)
        .max(LEAST_TIME);
    let mut random = Rng::with_seed(seed);
    let moments = arrivals.moments(&mut random, rate / 1e6, (WARM_UP + time) * 1e6);
    let deadline = milliseconds(case.deadline);
    let requests: Vec<Request> = moments
        .into_iter()
        .map(|nanoseconds| {
            let arrives = Moment::from_nanos(nanoseconds);
            Request {
                arrives,
                item: Item {
                    rows: 1,
                    length: 1,
                    class: ShapeClass(random.u64(0..mix.classes)),
                    deadline: Some(arrives + deadline),
                    level: 0,
                },
                leaves: None,
            }
        })
        .collect();
    let case = *case;
    let mut groups = [Group {
        executors: case.devices,
        takes: Box::new(move |_, load| milliseconds(case.takes(load.rows as f64))),
    }];
    let mut rule = kind.rule(&case);
    let run = play(&requests, &mut groups, &[], rule.as_mut());
    let begins = Moment::ORIGIN + milliseconds(WARM_UP);
    let counted = requests
        .iter()
        .zip(&run.ends)
        .filter(|(request, _)| request.arrives >= begins);
    let (mut all, mut in_time, mut late_answers) = (0, 0, 0);
    let mut latencies = Vec::new();
    for (request, end) in counted {
        all += 1;
        if let Some(End::Answered(moment)) = end {
            let latency = *moment - request.arrives;
            latencies.push(latency.as_secs_f64() * 1e3);
            if latency <= deadline {
                in_time += 1;
            } else {
                late_answers += 1;
            }
        }
    }
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        latencies
            .get((share * latencies.len() as f64) as usize)
            .copied()
    };
    Figures {
        in_time: f64::from(in_time) / f64::from(all.max(1)),
        goodput: f64::from(in_time) / time,
        late_answers,
        p50: at(0.5).unwrap_or(f64::NAN),
        p99: at(0.99).unwrap_or(f64::NAN),
        mean: latencies.iter().sum::<f64>() / latencies.len().max(1) as f64,
        rows: run.rows as f64 / run.batches.max(1) as f64,
    }
}

/// The largest rate, as a share of `bound`, at which 99 % are in time.
pub fn bears(case: &Case, kind: Kind, arrivals: &Arrivals, bound: f64, seed: u64) -> f64 {
    let (mut low, mut high) = (0.0, 1.1);
    for _ in 0..8 {
        let middle = (low + high) / 2.0;
        if run(case, kind, arrivals, Mix::ONE, middle * bound, seed).in_time >= 0.99 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

fn milliseconds(time: f64) -> Duration {
    Duration::from_secs_f64(time / 1e3)
}
