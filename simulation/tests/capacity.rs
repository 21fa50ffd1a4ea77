//! What the server says that it could do is what it can: the rate at which 99 of 100 requests are still
//! answered within the objective, found by playing it, is within 10 % of what was told at any load. And far
//! beyond it that is still what it does, also for those whose clock counts more than its own.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Duration;

use fastrand::Rng;
use jitney::clock::Moment;
use jitney::scheduler::{Item, Load, Policy, ShapeClass};
use jitney_simulation::arrivals::Arrivals;
use jitney_simulation::rules::{Jitney, Rule};
use jitney_simulation::world::{End, Group, Request, play};

/// A model on equal devices, and the time within which it is to answer. Milliseconds.
#[derive(Clone, Copy, Debug)]
struct Case {
    fixed: f64,
    per_row: f64,
    max_batch_size: usize,
    devices: usize,
    objective: f64,
}

impl Case {
    fn takes(&self, rows: usize) -> Duration {
        milliseconds(self.fixed + self.per_row * rows as f64)
    }
}

/// What a run at one rate showed.
struct Shown {
    /// Share of requests answered within the objective.
    in_time: f64,
    /// Answers a second for which a tenth of the objective was left.
    to_spare: f64,
    /// Rows that the server counted, a second.
    offered: f64,
    /// Rows a second that it says it could do.
    sustainable: f64,
}

fn milliseconds(time: f64) -> Duration {
    Duration::from_secs_f64(time / 1e3)
}

/// Plays a rate, in requests a second, for so many objectives.
fn run(case: Case, rate: f64, objectives: f64) -> Shown {
    let seconds = objectives * case.objective / 1e3;
    let mut random = Rng::with_seed(7);
    let moments = Arrivals::Poisson.moments(&mut random, rate / 1e9, seconds * 1e9);
    let objective = milliseconds(case.objective);
    let requests: Vec<Request> = moments
        .into_iter()
        .map(Moment::from_nanos)
        .map(|arrives| Request {
            arrives,
            item: Item {
                rows: 1,
                length: 1,
                class: ShapeClass(0),
                deadline: Some(arrives + objective),
                level: 0,
            },
            leaves: None,
        })
        .collect();
    let policy = Policy {
        max_batch_size: case.max_batch_size,
        max_queue_size: 100_000,
        ..Policy::default()
    };
    let mut jitney = Jitney::new(policy, &[case.devices]);
    for rows in [1, case.max_batch_size] {
        jitney.seed(0, rows, case.takes(rows));
    }
    let takes = Box::new(move |_, load: Load| case.takes(load.rows));
    let executors = case.devices;
    let run = play(
        &requests,
        &mut [Group { executors, takes }],
        &[],
        &mut jitney,
    );
    let answered = |within: Duration| {
        let ended = requests.iter().zip(&run.ends);
        let answered = ended.filter(|(request, end)| matches!(end, Some(End::Answered(at)) if *at - request.arrives <= within));
        answered.count() as f64
    };
    assert_eq!(jitney.queued(), 0);
    Shown {
        in_time: answered(objective) / requests.len() as f64,
        to_spare: answered(objective * 9 / 10) / seconds,
        offered: jitney.rows_offered() as f64 / seconds,
        sustainable: jitney.sustainable(objective).unwrap(),
    }
}

const CASES: [Case; 5] = [
    // The batch is what bounds it: 16 rows in 21 ms.
    case(5.0, 1.0, 16, 1, 200.0),
    case(5.0, 1.0, 16, 3, 200.0),
    // The objective is: two batches of 60 ms.
    case(2.0, 0.1, 1024, 1, 60.0),
    case(4.0, 0.5, 1024, 4, 60.0),
    case(20.0, 0.5, 32, 2, 300.0),
];

const fn case(
    fixed: f64,
    per_row: f64,
    max_batch_size: usize,
    devices: usize,
    objective: f64,
) -> Case {
    Case {
        fixed,
        per_row,
        max_batch_size,
        devices,
        objective,
    }
}

#[test]
fn what_it_could_do_is_what_it_can() {
    for case in CASES {
        let told = run(case, 50.0, 20.0).sustainable;
        let (mut low, mut high) = (0.5, 1.5);
        for _ in 0..6 {
            let middle = (low + high) / 2.0;
            if run(case, middle * told, 40.0).in_time >= 0.99 {
                low = middle;
            } else {
                high = middle;
            }
        }
        println!("{case:?}: told {told:.0}/s, bears {low:.3} of it");
        assert!((0.9..1.1).contains(&low), "{case:?}: {low}");
    }
}

#[test]
fn the_share_that_is_used_is_told_at_any_load() {
    for case in CASES {
        let told = run(case, 50.0, 20.0).sustainable;
        for share in [0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 3.0] {
            let shown = run(case, share * told, 20.0);
            let used = shown.offered / shown.sustainable;
            assert!(
                (used / share - 1.0).abs() < 0.1,
                "{case:?}: {used} at {share}"
            );
        }
    }
}

#[test]
fn ten_times_too_much_is_borne_by_those_too_whose_clock_counts_more() {
    for case in CASES {
        let told = run(case, 50.0, 20.0).sustainable;
        let share = run(case, 10.0 * told, 10.0).to_spare / told;
        assert!(share > 0.9, "{case:?}: {share}");
    }
}
