//! The pictures of a report's page: what each shows, and of which figures.

use std::collections::BTreeSet;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::chart::{Chart, Line, number, round_step};
use crate::counted::CountedSecond;
use crate::outcome::Outcomes;
use crate::recording::Second;
use crate::report::{Report, StepReport};

/// Shares of answers, in percent, at even distances of nines.
const NINES: [&str; 6] = ["0", "90", "99", "99.9", "99.99", "99.999"];

/// All that there is of a step.
pub(super) fn of_step(step: &StepReport) -> String {
    let queue = |one: &CountedSecond| one.queue_ns / 1e6;
    let rows = |one: &CountedSecond| one.rows;
    [
        over_time(step),
        throughput(step),
        by_percentile(step),
        batches(step),
        counted_over_time(step, "Time in the server's queue, on average", "ms", queue),
        counted_over_time(
            step,
            "Rows of the server's batches, on average",
            "rows",
            rows,
        ),
        memory(step),
    ]
    .concat()
}

/// The latencies of two servers that were compared.
pub(super) fn of_two(report: &Report) -> String {
    let sides = report.steps.iter().zip(["A", "B"]);
    let lines = sides.map(|(step, name)| nines(name, &step.recording.latency));
    percentiles(
        "Latency of answers of A and B by percentile",
        lines.collect(),
    )
    .svg()
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// No chart has room for more points.
const MOST_POINTS: usize = 400;

/// So many seconds that lie together are one point, in a run that has more of them than a chart has room
/// for.
fn together(seconds: usize) -> usize {
    seconds.div_ceil(MOST_POINTS).max(1)
}

/// Where each point begins, and what it shows.
fn points(step: &StepReport) -> Vec<(f64, Second)> {
    let seconds = &step.recording.seconds;
    let together = together(seconds.len());
    let points = seconds.chunks(together).enumerate();
    let points = points.map(|(number, chunk)| {
        let mut whole = Second::default();
        chunk.iter().for_each(|second| whole.merge(second));
        ((number * together) as f64, whole)
    });
    points.collect()
}

/// Latency second by second.
fn over_time(step: &StepReport) -> String {
    let points = points(step);
    let line = |name: &str, share: f64| {
        let points = points.iter();
        let points = points.filter(|(_, second)| !second.latency.is_empty());
        Line {
            name: name.to_owned(),
            points: points
                .map(|(at, second)| (*at, milliseconds(second.latency.value_at_quantile(share))))
                .collect(),
        }
    };
    Chart {
        title: "Latency of answers over time".to_owned(),
        x: "seconds".to_owned(),
        y: "ms".to_owned(),
        ticks: ticks(step.recording.seconds.len()),
        lines: vec![line("p50", 0.5), line("p99", 0.99), line("max", 1.0)],
        ..Chart::default()
    }
    .svg()
}

/// Requests second by second.
fn throughput(step: &StepReport) -> String {
    let points = points(step);
    // The last point may have fewer seconds than the others.
    let seconds = step.recording.seconds.len();
    let together = together(seconds) as f64;
    let line = |name: &str, count: fn(&Outcomes) -> u64| Line {
        name: name.to_owned(),
        points: points
            .iter()
            .map(|(at, second)| {
                let lasts = together.min(seconds as f64 - at).max(1.0);
                (*at, count(&second.outcomes) as f64 / lasts)
            })
            .collect(),
    };
    Chart {
        title: "Requests by the second in which they were due".to_owned(),
        x: "seconds".to_owned(),
        y: "requests".to_owned(),
        ticks: ticks(seconds),
        lines: vec![
            line("all", Outcomes::all),
            line("not ok", |outcomes| outcomes.all() - outcomes.ok),
        ],
        ..Chart::default()
    }
    .svg()
}

/// Latency against the share of answers that did not exceed it, by nines.
fn by_percentile(step: &StepReport) -> String {
    let lines = vec![
        nines("latency", &step.recording.latency),
        nines("service time", &step.recording.service),
    ];
    percentiles("Latency of answers by percentile", lines).svg()
}

fn nines(name: &str, histogram: &Histogram<u64>) -> Line {
    let nines = (0..=100).map(|at| f64::from(at) / 20.0);
    // Beyond this one request alone speaks.
    let most = (histogram.len() as f64).log10();
    Line {
        name: name.to_owned(),
        points: nines
            .filter(|nines| *nines <= most)
            .map(|nines| {
                let share = 1.0 - 10_f64.powf(-nines);
                (nines, milliseconds(histogram.value_at_quantile(share)))
            })
            .collect(),
    }
}

fn percentiles(title: &str, lines: Vec<Line>) -> Chart {
    let ends = lines.iter().filter_map(|line| line.points.last());
    let most = ends.map(|end| end.0).fold(1.0, f64::max);
    let ticks = NINES.iter().enumerate().take(most.ceil() as usize + 1);
    Chart {
        title: title.to_owned(),
        x: "percent of answers".to_owned(),
        y: "ms".to_owned(),
        ticks: ticks
            .map(|(nines, name)| (nines as f64, (*name).to_owned()))
            .collect(),
        lines,
        ..Chart::default()
    }
}

/// What the server counted of itself from look to look, a line for each model.
fn counted_over_time(
    step: &StepReport,
    title: &str,
    unit: &str,
    value: fn(&CountedSecond) -> f64,
) -> String {
    let models = step.counted.iter().filter(|one| !one.seconds.is_empty());
    let lines = models.map(|one| {
        let looks = one.seconds.iter();
        Line {
            name: format!("{} {}", one.model, one.version),
            points: looks
                .step_by(together(one.seconds.len()))
                .map(|look| (look.second, value(look)))
                .collect(),
        }
    });
    let lines: Vec<Line> = lines.collect();
    if lines.is_empty() {
        return String::new();
    }
    Chart {
        title: title.to_owned(),
        x: "seconds".to_owned(),
        y: unit.to_owned(),
        ticks: ticks(step.recording.seconds.len() + 1),
        lines,
        ..Chart::default()
    }
    .svg()
}

/// Runs of each model by their rows, if the server counts them.
fn batches(step: &StepReport) -> String {
    let most = step
        .counted
        .iter()
        .filter_map(|one| one.batches.keys().last());
    let Some(most) = most.max() else {
        return String::new();
    };
    let lines = step.counted.iter().map(|one| {
        let all: u64 = one.batches.values().sum();
        let share = |rows: u64| {
            let runs = one.batches.get(&rows).copied().unwrap_or_default();
            (rows as f64, runs as f64 / all.max(1) as f64 * 1e2)
        };
        // Between batches that were run a chart would draw those that were not.
        let shown = one
            .batches
            .keys()
            .flat_map(|rows| [rows - 1, *rows, rows + 1]);
        let shown: BTreeSet<u64> = shown.filter(|rows| *rows > 0 && rows <= most).collect();
        Line {
            name: format!("{} {}", one.model, one.version),
            points: shown.into_iter().map(share).collect(),
        }
    });
    let marks = [
        1,
        most.div_ceil(4),
        most.div_ceil(2),
        (3 * most).div_ceil(4),
        *most,
    ];
    let marks: BTreeSet<u64> = marks.into_iter().collect();
    Chart {
        title: "The server's batches".to_owned(),
        x: "rows".to_owned(),
        y: "% of batches".to_owned(),
        ticks: marks
            .into_iter()
            .map(|rows| (rows as f64, rows.to_string()))
            .collect(),
        lines: lines.collect(),
        ..Chart::default()
    }
    .svg()
}

/// What the server took, if that is known.
fn memory(step: &StepReport) -> String {
    if step.usage.is_empty() {
        return String::new();
    }
    let points = step.usage.iter().step_by(together(step.usage.len()));
    let points = points.map(|(second, usage)| (*second, usage.resident_bytes as f64 / 1048576.0));
    Chart {
        title: "The server's resident memory".to_owned(),
        x: "seconds".to_owned(),
        y: "MiB".to_owned(),
        ticks: ticks(step.usage.len()),
        lines: vec![Line {
            name: "memory".to_owned(),
            points: points.collect(),
        }],
        ..Chart::default()
    }
    .svg()
}

/// Latency against throughput, a point for each step, from the lowest rate that was offered to the
/// highest: beyond what a server can do, the line goes up or back.
pub(super) fn sweep(report: &Report) -> String {
    let mut steps: Vec<&StepReport> = report.steps.iter().collect();
    steps.sort_by(|one, other| {
        let (one, other) = (one.offered_rate, other.offered_rate);
        one.unwrap_or(0.0).total_cmp(&other.unwrap_or(0.0))
    });
    let line = |name: &str, share: f64| Line {
        name: name.to_owned(),
        points: steps
            .iter()
            .map(|step| {
                let value = step.recording.latency.value_at_quantile(share);
                (step.recording.rate(), milliseconds(value))
            })
            .collect(),
    };
    let rates = steps.iter().map(|step| step.recording.rate());
    let most = rates.fold(0.0, f64::max);
    let step = round_step(most / 5.0);
    let marks = (0..=(most / step).ceil() as usize).map(|mark| {
        let rate = step * mark as f64;
        (rate, number(rate))
    });
    Chart {
        title: "Latency of answers against throughput, all steps".to_owned(),
        x: "answers a second".to_owned(),
        y: "ms".to_owned(),
        ticks: marks.collect(),
        lines: vec![line("p50", 0.5), line("p99", 0.99)],
        dots: true,
    }
    .svg()
}

/// A few round seconds of so many, and the last.
fn ticks(seconds: usize) -> Vec<(f64, String)> {
    let last = seconds.saturating_sub(1).max(1);
    let step = (round_step(last as f64 / 8.0) as usize).max(1);
    // None so near the last that their names meet.
    let marks = (0..=last.saturating_sub(step.div_ceil(2))).step_by(step);
    let marks = marks.chain([last]);
    marks
        .map(|second| (second as f64, second.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_reach_the_last_second() {
        for seconds in [0, 1, 2, 9, 10, 37, 3_600] {
            let marks = ticks(seconds);
            assert!(marks.len() <= 17, "{seconds}: {}", marks.len());
            let last = marks.last().unwrap().0;
            assert_eq!(last, seconds.saturating_sub(1).max(1) as f64);
        }
    }
}
