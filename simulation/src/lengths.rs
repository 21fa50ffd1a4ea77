//! Rows of different lengths at saturation: what padding costs, and what it saves.

use std::time::Duration;

use fastrand::Rng;
use jitney::clock::Moment;
use jitney::scheduler::{Item, Policy, ShapeClass};

use crate::arrivals::{Arrivals, normal};
use crate::rules::{Fifo, Jitney, Rule};
use crate::world::{End, Group, Request, play};

/// A batch, in milliseconds, and each token of it.
const FIXED: f64 = 2.0;
const PER_TOKEN: f64 = 0.1 / 32.0;
const MAX_BATCH_SIZE: usize = 64;
const REQUESTS: usize = 20_000;
const SHORTEST: f64 = 16.0;
const LONGEST: f64 = 512.0;

/// How rows of different lengths are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// The server's rule, padded to the longest of the batch.
    Jitney,
    /// The same, padded to powers of two.
    Powers,
    /// Those of one length only, by the server's rule.
    Equal,
    /// In order of arrival, padded to the longest of the batch.
    Fifo,
}

/// What a run showed.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Requests answered, a millisecond.
    pub rate: f64,
    /// Share of the tokens that ran which were padding.
    pub waste: f64,
    /// Mean rows in a batch.
    pub rows: f64,
}

/// Lengths whose logarithms are normal around that of 64.
fn length(random: &mut Rng) -> usize {
    let length = 64.0 * (0.8 * normal(random)).exp();
    length.clamp(SHORTEST, LONGEST) as usize
}

/// Plays a rule with always so many requests waiting.
pub fn run(together: Together, devices: usize, waiting: usize, seed: u64) -> Figures {
    let mut random = Rng::with_seed(seed);
    // Three times what ten thousand rows a batch would allow: whoever finds no place goes away.
    let rate = 3.0 * devices as f64 / (64.0 * PER_TOKEN) / 1e6;
    let moments = Arrivals::Poisson.moments(&mut random, rate, REQUESTS as f64 / rate);
    let requests: Vec<Request> = moments
        .into_iter()
        .map(|nanoseconds| {
            let length = length(&mut random);
            let class = if together == Together::Equal {
                length
            } else {
                0
            };
            Request {
                arrives: Moment::from_nanos(nanoseconds),
                item: Item {
                    rows: 1,
                    length,
                    class: ShapeClass(class as u64),
                    deadline: None,
                    level: 0,
                },
                leaves: None,
            }
        })
        .collect();
    let mut groups = [Group {
        executors: devices,
        takes: Box::new(|_, load| takes(load.rows * load.length)),
    }];
    let mut rule = rule(together, devices, waiting);
    let run = play(&requests, &mut groups, &[], rule.as_mut());
    let ends = run.ends.iter().filter_map(|end| match end {
        Some(End::Answered(moment)) => Some(*moment),
        _ => None,
    });
    let last = ends.clone().max().unwrap_or(Moment::ORIGIN);
    Figures {
        rate: ends.count() as f64 / ((last - Moment::ORIGIN).as_secs_f64() * 1e3),
        waste: 1.0 - run.own as f64 / run.padded as f64,
        rows: run.rows as f64 / run.batches as f64,
    }
}

fn takes(tokens: usize) -> Duration {
    Duration::from_secs_f64((FIXED + PER_TOKEN * tokens as f64) / 1e3)
}

fn rule(together: Together, devices: usize, waiting: usize) -> Box<dyn Rule> {
    if together == Together::Fifo {
        return Box::new(Fifo::greedy(MAX_BATCH_SIZE, waiting));
    }
    let lengths = match together {
        Together::Powers => (4..=9).map(|power| 1 << power).collect(),
        _ => Vec::new(),
    };
    let policy = Policy {
        max_batch_size: MAX_BATCH_SIZE,
        max_queue_size: waiting,
        lengths,
        ..Policy::default()
    };
    Box::new(Jitney::new(policy, &[devices]))
}

/// The rate, in requests a millisecond, of whoever knows every request before the first leaves:
/// sorted by length, and parted where that costs the least time.
pub fn oracle(devices: usize, seed: u64) -> f64 {
    let mut random = Rng::with_seed(seed);
    let mut lengths: Vec<usize> = (0..REQUESTS).map(|_| length(&mut random)).collect();
    lengths.sort_unstable();
    let mut costs = vec![0.0; lengths.len() + 1];
    for (last, length) in lengths.iter().enumerate() {
        let first = (last + 1).saturating_sub(MAX_BATCH_SIZE);
        let cost = |begins: usize| {
            let tokens = (last + 1 - begins) * length;
            costs[begins] + FIXED + PER_TOKEN * tokens as f64
        };
        costs[last + 1] = (first..=last).map(cost).fold(f64::INFINITY, f64::min);
    }
    devices as f64 * lengths.len() as f64 / costs[lengths.len()]
}
