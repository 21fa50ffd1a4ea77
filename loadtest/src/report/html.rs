//! A report as one page that needs nothing else: no script, no font, no network.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::chart::{Chart, Line, escape, number};
use super::terminal::{counted, outcomes, time};
use super::{Report, StepReport, Verdict};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .9em .15em 0;text-align:left;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}\
.charts{display:flex;flex-wrap:wrap;gap:1em}svg{width:560px;max-width:100%;height:auto;font:12px sans-serif}\
svg .title{font-weight:bold;font-size:14px}svg .grid{stroke:#ddd}svg .right{text-anchor:end}svg .middle{text-anchor:middle}\
.met{color:#00693e}.missed{color:#b3261e;font-weight:bold}\
@media(prefers-color-scheme:dark){body{background:#181a1b;color:#ddd}svg text{fill:#ddd}svg .grid{stroke:#444}.met{color:#5fd39a}.missed{color:#ff8a80}}";

/// Shares of requests, in percent, at even distances of nines.
const NINES: [&str; 6] = ["0", "90", "99", "99.9", "99.99", "99.999"];

/// The report as a page.
pub fn write_html(report: &Report) -> String {
    let environment = &report.environment;
    let (class, verdict) = match report.verdict() {
        Verdict::Met => ("met", "met"),
        Verdict::Missed => ("missed", "missed"),
        Verdict::Invalid => ("missed", "invalid"),
    };
    let title = escape(&environment.scenario);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}: {verdict}</title>\
         <style>{STYLE}</style><h1>{title}: <span class=\"{class}\">{verdict}</span></h1><table>"
    );
    let facts = [
        ("server", environment.server.clone()),
        (
            "generator",
            format!(
                "jitney-load {} on {}, {} cores, {}",
                environment.version, environment.processor, environment.cores, environment.system
            ),
        ),
        ("seed", environment.seed.to_string()),
        ("made at", date(environment.time)),
    ];
    for (name, value) in facts {
        let _ = write!(page, "<tr><th>{name}<td>{}", escape(&value));
    }
    page += "</table>";
    // Where steps are different rates of the same, as those of a search.
    let open = report.steps.iter().all(|step| step.offered_rate.is_some());
    if open && report.steps.len() > 2 {
        let _ = write!(page, "<div class=\"charts\">{}</div>", sweep(report));
    }
    for step in &report.steps {
        put_step(&mut page, step);
    }
    page + "</html>\n"
}

fn put_step(page: &mut String, step: &StepReport) {
    let recording = &step.recording;
    let _ = write!(page, "<h2>{}</h2>", escape(&step.name));
    if let Some(reason) = &step.invalid {
        let _ = write!(page, "<p class=\"missed\">Invalid: {}</p>", escape(reason));
    }
    if !step.findings.is_empty() {
        *page += "<ul>";
        for finding in &step.findings {
            let class = if finding.met { "met" } else { "missed" };
            let _ = write!(
                page,
                "<li class=\"{class}\">{}",
                escape(&finding.to_string())
            );
        }
        *page += "</ul>";
    }
    *page += "<table>";
    let offered = step
        .offered_rate
        .map_or("a closed loop".to_owned(), |rate| {
            format!("{} requests/s", number(rate))
        });
    let rates = format!(
        "{offered}; answered {:.1}/s, in time and right {:.1}/s",
        recording.rate(),
        recording.goodput()
    );
    let _ = write!(
        page,
        "<tr><th>offered<td colspan=\"6\">{rates}<tr><th>requests<td colspan=\"6\">{}\
         {}<tr><th><th>p50<th>p90<th>p99<th>p99.9<th>max<th>mean",
        escape(&outcomes(step)),
        server(step)
    );
    for (name, histogram) in [
        ("latency from the intended moment", &recording.latency),
        ("service time", &recording.service),
        ("the generator's lag", &recording.lag),
    ] {
        let _ = write!(page, "<tr><th>{name}");
        let quantiles = [0.5, 0.9, 0.99, 0.999].map(|share| histogram.value_at_quantile(share));
        let mean = histogram.mean() as u64;
        for value in quantiles.into_iter().chain([histogram.max(), mean]) {
            let _ = write!(page, "<td class=\"n\">{}", time(value));
        }
    }
    let _ = write!(
        page,
        "</table><div class=\"charts\">{}{}{}{}{}</div>",
        over_time(step),
        throughput(step),
        by_percentile(step),
        batches(step),
        memory(step)
    );
}

/// A row for each model that the server counts.
fn server(step: &StepReport) -> String {
    let rows = step.counted.iter().map(counted);
    rows.map(|text| format!("<tr><th>server<td colspan=\"6\">{}", escape(&text)))
        .collect()
}

fn milliseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e3
}

/// Latency second by second.
fn over_time(step: &StepReport) -> String {
    let seconds = &step.recording.seconds;
    let line = |name: &str, share: f64| Line {
        name: name.to_owned(),
        points: (0..)
            .zip(seconds)
            .filter(|(_, second)| !second.latency.is_empty())
            .map(|(at, second)| {
                let value = second.latency.value_at_quantile(share);
                (f64::from(at), milliseconds(value))
            })
            .collect(),
    };
    Chart {
        title: "Latency over time".to_owned(),
        x: "seconds".to_owned(),
        y: "ms".to_owned(),
        ticks: ticks(seconds.len()),
        lines: vec![line("p50", 0.5), line("p99", 0.99), line("max", 1.0)],
    }
    .svg()
}

/// Requests second by second.
fn throughput(step: &StepReport) -> String {
    let seconds = &step.recording.seconds;
    let line = |name: &str, count: fn(&crate::outcome::Outcomes) -> u64| Line {
        name: name.to_owned(),
        points: (0..)
            .zip(seconds)
            .map(|(at, second)| (f64::from(at), count(&second.outcomes) as f64))
            .collect(),
    };
    Chart {
        title: "Requests by the second in which they were due".to_owned(),
        x: "seconds".to_owned(),
        y: "requests".to_owned(),
        ticks: ticks(seconds.len()),
        lines: vec![
            line("all", |outcomes| outcomes.all()),
            line("ok", |outcomes| outcomes.ok),
        ],
    }
    .svg()
}

/// Latency against the share of requests that did not exceed it, by nines.
fn by_percentile(step: &StepReport) -> String {
    let line = |name: &str, histogram: &Histogram<u64>| {
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
    };
    let ticks = NINES.iter().enumerate();
    Chart {
        title: "Latency by percentile".to_owned(),
        x: "percent of requests".to_owned(),
        y: "ms".to_owned(),
        ticks: ticks
            .map(|(nines, name)| (nines as f64, (*name).to_owned()))
            .collect(),
        lines: vec![
            line("latency", &step.recording.latency),
            line("service time", &step.recording.service),
        ],
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
    }
    .svg()
}

/// What the server took, if that is known.
fn memory(step: &StepReport) -> String {
    if step.usage.is_empty() {
        return String::new();
    }
    let points = step.usage.iter();
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
    }
    .svg()
}

/// Latency against throughput, a point for each step.
fn sweep(report: &Report) -> String {
    let mut steps: Vec<&StepReport> = report.steps.iter().collect();
    steps.sort_by(|one, other| one.recording.rate().total_cmp(&other.recording.rate()));
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
    let most = steps.last().map_or(1.0, |step| step.recording.rate());
    let ticks = (0..=4).map(|quarter| {
        let rate = most * f64::from(quarter) / 4.0;
        (rate, format!("{rate:.0}"))
    });
    Chart {
        title: "Latency against throughput, all steps".to_owned(),
        x: "answers a second".to_owned(),
        y: "ms".to_owned(),
        ticks: ticks.collect(),
        lines: vec![line("p50", 0.5), line("p99", 0.99)],
    }
    .svg()
}

/// The moment so many seconds after 1970 began, in UTC (after Hinnant,
/// <https://howardhinnant.github.io/date_algorithms.html>).
fn date(seconds: u64) -> String {
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    // Months from March on.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, later) = match month {
        0..=9 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    let (hour, minute) = (seconds / 3_600 % 24, seconds / 60 % 60);
    let year = year + era * 400 + later;
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

/// A few seconds of so many.
fn ticks(seconds: usize) -> Vec<(f64, String)> {
    let last = seconds.saturating_sub(1).max(1);
    let step = (last / 8).max(1);
    let mut marks: Vec<usize> = (0..=last).step_by(step).collect();
    if !last.is_multiple_of(step) {
        marks.pop();
        marks.push(last);
    }
    marks
        .into_iter()
        .map(|second| (second as f64, second.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, said) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_795_470_486, "2026-11-23 21:48 UTC"),
            (4_102_444_800, "2100-01-01 00:00 UTC"),
        ] {
            assert_eq!(date(seconds), said);
        }
    }

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
