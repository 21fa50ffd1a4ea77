//! Thousands of small worlds, each made from a seed: whatever comes, every request ends once.
//!
//! `JITNEY_SEED=7 cargo test -p jitney-simulation --test seeds` plays one of them.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use fastrand::Rng;
use jitney::clock::Moment;
use jitney::scheduler::{Item, Load, Policy, ShapeClass};
use jitney_simulation::arrivals::{Arrivals, exponential, normal};
use jitney_simulation::rules::{Decision, Jitney, Number, Rule};
use jitney_simulation::world::{End, Group, Outage, Request, Run, play};

const SEEDS: u64 = 10_000;

#[test]
fn every_request_ends_once_and_in_its_time() {
    let chosen = std::env::var("JITNEY_SEED")
        .ok()
        .map(|seed| seed.parse().unwrap());
    let seeds = chosen.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world(seed))) {
            eprintln!(
                "seed {seed} fails; JITNEY_SEED={seed} cargo test -p jitney-simulation --test seeds \
                 plays it again"
            );
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    for seed in 0..50 {
        assert_eq!(world(seed), world(seed));
    }
}

/// Plays the world of a seed and checks what must hold of it.
fn world(seed: u64) -> Run {
    let mut random = Rng::with_seed(seed);
    let policy = policy(&mut random);
    let sizes: Vec<usize> = (0..random.usize(1..4))
        .map(|_| random.usize(1..5))
        .collect();
    let speeds: Vec<(f64, f64)> = sizes
        .iter()
        .map(|_| {
            (
                10_f64.powf(3.0 + 4.0 * random.f64()),
                10_f64.powf(2.0 + 4.0 * random.f64()),
            )
        })
        .collect();
    let requests = requests(&mut random, &policy, &speeds);
    let outages = outages(&mut random, &requests, sizes.len());
    let mut groups = groups(&mut random, &sizes, &speeds);
    let mut rule = Checked {
        inner: Jitney::new(policy.clone(), &sizes),
        requests: &requests,
        policy: &policy,
    };
    let run = play(&requests, &mut groups, &outages, &mut rule);
    assert_eq!(rule.queued(), 0, "left waiting");
    for (number, (request, end)) in requests.iter().zip(&run.ends).enumerate() {
        match end {
            None => panic!("request {number} has no end"),
            Some(End::Cancelled) => assert!(request.leaves.is_some()),
            Some(End::Refused(moment)) => assert!(*moment >= request.arrives),
            Some(End::Answered(moment)) => assert!(*moment >= request.arrives),
        }
    }
    run
}

/// The scheduler, with every departure looked at.
struct Checked<'a> {
    inner: Jitney,
    requests: &'a [Request],
    policy: &'a Policy,
}

impl Rule for Checked<'_> {
    fn arrive(&mut self, now: Moment, number: Number, item: Item) -> bool {
        self.inner.arrive(now, number, item)
    }

    fn decide(&mut self, now: Moment, group: usize, decision: &mut Decision) {
        self.inner.decide(now, group, decision);
        let members = || {
            decision
                .members
                .iter()
                .map(|number| self.requests[*number].item)
        };
        let rows = members().map(|item| item.rows).sum::<usize>();
        let length = members().map(|item| item.length).max().unwrap_or(0);
        assert!(rows <= self.policy.max_batch_size);
        assert!(rows * self.policy.run_length(length) <= self.policy.max_batch_tokens);
        for item in members() {
            assert_eq!(Some(item.class), members().next().map(|first| first.class));
            assert!(
                item.deadline.is_none_or(|deadline| deadline > now),
                "left late"
            );
        }
        for number in &decision.refused {
            assert!(
                self.requests[*number].item.deadline.is_some(),
                "refused without a deadline"
            );
        }
    }

    fn completed(&mut self, now: Moment, group: usize, load: Load, took: Duration, late: bool) {
        self.inner.completed(now, group, load, took, late);
    }

    fn cancel(&mut self, number: Number) -> bool {
        self.inner.cancel(number)
    }

    fn alive(&mut self, group: usize, executors: usize) {
        self.inner.alive(group, executors);
    }

    fn queued(&self) -> usize {
        self.inner.queued()
    }
}

fn policy(random: &mut Rng) -> Policy {
    let delay = if random.f64() < 0.2 {
        random.u64(1..5_000_000)
    } else {
        0
    };
    Policy {
        max_batch_size: 1 << random.u32(0..8),
        max_queue_size: 1 << random.u32(2..10),
        max_queue_delay: Duration::from_nanos(delay),
        preferred_sizes: if random.bool() { vec![] } else { vec![2, 4] },
        margin: Duration::from_nanos(random.u64(0..100_000)),
        lengths: if random.bool() {
            vec![]
        } else {
            vec![8, 64, 512]
        },
        max_batch_tokens: if random.bool() { usize::MAX } else { 4096 },
        ..Policy::default()
    }
}

fn requests(random: &mut Rng, policy: &Policy, speeds: &[(f64, f64)]) -> Vec<Request> {
    let arrivals = match random.u32(0..4) {
        0 => Arrivals::Poisson,
        1 => Arrivals::Bursty,
        2 => Arrivals::Ramp,
        _ => Arrivals::Trace((0..20).map(|_| exponential(random).powi(3)).collect()),
    };
    // From a tenth to thirty times what the first group does one by one.
    let rate = 10_f64.powf(-1.0 + 2.5 * random.f64()) / (speeds[0].0 + speeds[0].1);
    let count = 30.0 + 120.0 * random.f64();
    let slo = (speeds[0].0 + speeds[0].1) * 10_f64.powf(-0.5 + 2.0 * random.f64());
    let (hurried, impatient) = (random.f64(), 0.2 * random.f64());
    let (classes, levels) = (random.u64(1..6), random.u32(1..4));
    let most = policy.max_batch_size.min(4);
    let longest = if random.bool() { 1 } else { 512 };
    arrivals
        .moments(random, rate, count / rate)
        .into_iter()
        .map(|nanoseconds| {
            let arrives = Moment::from_nanos(nanoseconds);
            let budget = Duration::from_nanos((slo * (0.2 + exponential(random))) as u64);
            let patience = Duration::from_nanos((slo * exponential(random)) as u64);
            Request {
                arrives,
                item: Item {
                    rows: random.usize(1..=most),
                    length: random.usize(1..=longest),
                    class: ShapeClass(random.u64(0..classes)),
                    deadline: (random.f64() < hurried).then(|| arrives + budget),
                    level: random.u32(0..levels),
                },
                leaves: (random.f64() < impatient).then(|| arrives + patience),
            }
        })
        .collect()
}

fn outages(random: &mut Rng, requests: &[Request], groups: usize) -> Vec<Outage> {
    let end = requests
        .last()
        .map_or(1, |request| request.arrives.as_nanos().max(1));
    (0..random.usize(0..4))
        .map(|_| {
            let from = random.u64(0..end);
            Outage {
                group: random.usize(0..groups),
                from: Moment::from_nanos(from),
                until: Moment::from_nanos(from + random.u64(0..end)),
            }
        })
        .collect()
}

/// Executors with noise, and now and then a stall.
fn groups(random: &mut Rng, sizes: &[usize], speeds: &[(f64, f64)]) -> Vec<Group> {
    let (noise, stalls) = (0.3 * random.f64(), 0.03 * random.f64());
    sizes
        .iter()
        .zip(speeds)
        .map(|(executors, (fixed, per_row))| {
            let (fixed, per_row) = (*fixed, *per_row);
            let mut random = random.fork();
            let takes = move |_: Moment, load: Load| {
                let work = load.rows as f64 * (load.length as f64).sqrt();
                let usual = fixed + per_row * work * (1 + load.class.0) as f64;
                let stall = if random.f64() < stalls { 50.0 } else { 1.0 };
                let time = usual * stall * (1.0 + noise * normal(&mut random)).max(0.1);
                Duration::from_nanos(time as u64)
            };
            Group {
                executors: *executors,
                takes: Box::new(takes),
            }
        })
        .collect()
}
