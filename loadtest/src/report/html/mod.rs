//! A report as one page that needs nothing else: no script, no font, no network.

mod chart;
mod plots;

use std::fmt::Write;

use chart::{escape, number};

use super::terminal::{counted, outcomes, time};
use super::{Report, StepReport, Verdict};
use crate::compare::Call;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:1200px;margin:2em auto;padding:0 1em;color:#222}\
h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}\
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.15em .9em .15em 0;text-align:left;vertical-align:top}\
td.n{text-align:right;font-variant-numeric:tabular-nums}\
.charts{display:flex;flex-wrap:wrap;gap:1em}svg{width:560px;max-width:100%;height:auto;font:12px sans-serif}\
svg .title{font-weight:bold;font-size:14px}svg .grid{stroke:#ddd}svg .right{text-anchor:end}svg .middle{text-anchor:middle}\
.met{color:#00693e}.missed{color:#b3261e;font-weight:bold}\
@media(prefers-color-scheme:dark){body{background:#181a1b;color:#ddd}svg text{fill:#ddd}svg .grid{stroke:#444}.met{color:#5fd39a}.missed{color:#ff8a80}}";

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
                "jitney-load {} on {}, {} cores, {:.1} GiB, {}",
                environment.version,
                environment.processor,
                environment.cores,
                environment.memory_bytes as f64 / (1_u64 << 30) as f64,
                environment.system
            ),
        ),
        ("seed", environment.seed.to_string()),
        ("made at", date(environment.time)),
    ];
    for (name, value) in facts {
        let _ = write!(page, "<tr><th>{name}<td>{}", escape(&value));
    }
    let text = escape(&environment.scenario_text);
    let _ = write!(
        page,
        "</table><details><summary>scenario</summary><pre>{text}</pre></details>"
    );
    if let Some(found) = &report.found {
        let _ = write!(page, "<p>{found}</p>");
    }
    put_comparisons(&mut page, report);
    if report.steps.len() > 1 {
        put_overview(&mut page, report);
    }
    // Where steps are different rates of the same, as those of a search.
    let open = report.steps.iter().all(|step| step.offered_rate.is_some());
    if open && report.steps.len() > 2 && report.comparisons.is_empty() {
        let _ = write!(page, "<div class=\"charts\">{}</div>", plots::sweep(report));
    }
    for step in &report.steps {
        put_step(&mut page, step);
    }
    page + "</html>\n"
}

/// A row for each step.
fn put_overview(page: &mut String, report: &Report) {
    *page += "<table class=\"steps\"><tr><th>step<th>offered<th>in time and right<th>p50 of answers<th>p99 of answers<th>not ok<th>";
    for step in &report.steps {
        let recording = &step.recording;
        let met = step.findings.iter().all(|finding| finding.met);
        let (class, verdict) = match (&step.invalid, met) {
            (Some(_), _) => ("missed", "invalid"),
            (None, true) => ("met", "met"),
            (None, false) => ("missed", "missed"),
        };
        // Who asks nothing gets no verdict.
        let verdict = if step.findings.is_empty() && step.invalid.is_none() {
            ""
        } else {
            verdict
        };
        let offered = step.offered_rate.map(|rate| format!("{rate:.1}/s"));
        let _ = write!(
            page,
            "<tr><td>{}<td class=\"n\">{}<td class=\"n\">{:.1}/s<td class=\"n\">{}<td class=\"n\">{}\
             <td class=\"n\">{}<td class=\"{class}\">{verdict}",
            escape(&step.name),
            offered.unwrap_or_default(),
            recording.goodput(),
            time(recording.latency.value_at_quantile(0.5)),
            time(recording.latency.value_at_quantile(0.99)),
            recording.outcomes.all() - recording.outcomes.ok,
        );
    }
    *page += "</table>";
}

/// What was said of two servers, and the latencies of both in one picture.
fn put_comparisons(page: &mut String, report: &Report) {
    if report.comparisons.is_empty() {
        return;
    }
    *page += "<ul>";
    for comparison in &report.comparisons {
        let class = match comparison.call {
            Call::Worse => "missed",
            Call::Better => "met",
            Call::Same => "same",
        };
        let text = escape(&comparison.to_string());
        let _ = write!(page, "<li class=\"{class}\">{text}");
    }
    let _ = write!(
        page,
        "</ul><div class=\"charts\">{}</div>",
        plots::of_two(report)
    );
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
        ("latency of all answers", &recording.latency),
        ("of those in time and right", &recording.good_latency),
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
        "</table><div class=\"charts\">{}</div>",
        plots::of_step(step)
    );
}

/// A row for each model that the server counts.
fn server(step: &StepReport) -> String {
    let rows = step.counted.iter().map(counted);
    rows.map(|text| format!("<tr><th>server<td colspan=\"6\">{}", escape(&text)))
        .collect()
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
}
