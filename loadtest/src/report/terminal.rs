//! What somebody reads at the terminal: a line a second while a step runs, then what it showed.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use super::{Report, StepReport, Verdict};
use crate::counted::Counted;
use crate::recording::{Progress, Recording};

/// Tells how a step goes, which warms up for so long and then lasts so long. On a terminal the line is
/// written again each second; elsewhere there is one every ten seconds.
pub fn progress(
    step: &str,
    warm_up: Duration,
    duration: Duration,
) -> impl FnMut(Progress) + Send + use<> {
    let step = step.to_owned();
    let live = std::io::stderr().is_terminal();
    let mut looks = 0_u64;
    move |progress| {
        looks += 1;
        if !live && !looks.is_multiple_of(10) {
            return;
        }
        let line = line(&step, warm_up, warm_up + duration, &progress);
        let mut out = std::io::stderr().lock();
        // Nobody may be reading. A line that is too long is cut, for the next one could not replace it.
        let _ = match live {
            true => write!(out, "\r\x1b[2K\x1b[?7l{line}\x1b[?7h").and_then(|()| out.flush()),
            false => writeln!(out, "{line}"),
        };
    }
}

/// Clears the line that [`progress`] writes on a terminal.
pub fn clear() {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[2K");
    }
}

fn line(step: &str, warm_up: Duration, whole: Duration, progress: &Progress) -> String {
    let since = progress.since.as_secs_f64().max(f64::MIN_POSITIVE);
    let all = progress.outcomes.all();
    let warming = match progress.elapsed < warm_up {
        true => ", warming up",
        false => "",
    };
    format!(
        "{step} {} {:.0} of {:.0} s{warming}  {:.0}/s  answers' p50 {}  p99 {}  not ok {}",
        bar(progress.elapsed, whole),
        progress.elapsed.as_secs_f64(),
        whole.as_secs_f64(),
        all as f64 / since,
        time(progress.latency.value_at_quantile(0.5)),
        time(progress.latency.value_at_quantile(0.99)),
        all - progress.outcomes.ok,
    )
}

/// How much of the whole is done.
fn bar(done: Duration, whole: Duration) -> String {
    const WIDTH: usize = 20;
    let share = done.as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
    let full = ((share * WIDTH as f64) as usize).min(WIDTH);
    format!("[{}{}]", "=".repeat(full), " ".repeat(WIDTH - full))
}

/// What a step showed, in a line.
pub fn step_line(step: &StepReport) -> String {
    let recording = &step.recording;
    let verdict = match (
        &step.invalid,
        step.findings.iter().all(|finding| finding.met),
    ) {
        (Some(_), _) => "INVALID",
        (None, true) => "met",
        (None, false) => "MISSED",
    };
    format!(
        "{}: {verdict}, {:.1}/s in time and right, answers' p50 {}, p99 {}, {} not ok",
        step.name,
        recording.goodput(),
        time(recording.latency.value_at_quantile(0.5)),
        time(recording.latency.value_at_quantile(0.99)),
        recording.outcomes.all() - recording.outcomes.ok,
    )
}

/// What a scenario showed.
pub fn summary(report: &Report) -> String {
    let mut text = format!("server {}\n", report.environment.server);
    for step in &report.steps {
        text += &step_summary(step);
    }
    text.push('\n');
    if let Some(found) = &report.found {
        let _ = writeln!(text, "{found}");
    }
    for comparison in &report.comparisons {
        let _ = writeln!(text, "{comparison}");
    }
    text += match report.verdict() {
        Verdict::Met => "met\n",
        Verdict::Missed => "MISSED\n",
        Verdict::Invalid => "INVALID\n",
    };
    text
}

fn step_summary(step: &StepReport) -> String {
    let recording = &step.recording;
    let mut text = format!("\n{}\n", step.name);
    // Writing to a string cannot fail.
    let mut put = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<10}{value}");
    };
    if let Some(rate) = step.offered_rate {
        put("offered", format!("{rate:.1}/s"));
    }
    put(
        "answered",
        format!(
            "{:.1}/s, in time and right {:.1}/s",
            recording.rate(),
            recording.goodput()
        ),
    );
    let at = |share| time(recording.latency.value_at_quantile(share));
    put(
        "latency",
        format!(
            "p50 {}  p90 {}  p99 {}  p99.9 {}  max {}  {}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999),
            time(recording.latency.max()),
            of_answers(recording)
        ),
    );
    let service = |share| time(recording.service.value_at_quantile(share));
    put(
        "service",
        format!("p50 {}  p99 {}", service(0.5), service(0.99)),
    );
    put("requests", outcomes(step));
    for counted in &step.counted {
        put("server", self::counted(counted));
    }
    for finding in &step.findings {
        put("asked", finding.to_string());
    }
    if let Some(reason) = &step.invalid {
        put("INVALID", reason.clone());
    }
    text
}

/// Of what the latencies are: not of requests, some of which may have got no answer or none of use.
fn of_answers(recording: &Recording) -> String {
    let (all, good) = (recording.latency.len(), recording.good_latency.len());
    match all == good {
        true => format!("(of {all} answers)"),
        false => format!("(of {all} answers, {} of them late or wrong)", all - good),
    }
}

/// What the server counted of a model, in words.
pub(super) fn counted(counted: &Counted) -> String {
    format!(
        "{} {}: {:.2} rows a batch, {} in the queue on average",
        counted.model,
        counted.version,
        counted.mean_rows(),
        time(counted.queue_ns as u64)
    )
}

pub(super) fn outcomes(step: &StepReport) -> String {
    let outcomes = &step.recording.outcomes;
    let mut parts = vec![format!("{}", outcomes.all())];
    let others = [
        ("late", outcomes.late),
        ("wrong", outcomes.wrong),
        ("without an answer", outcomes.missing),
        ("not sent", outcomes.skipped),
        ("answers that nobody waited for", outcomes.doubled),
    ];
    parts.push(format!("{} ok", outcomes.ok));
    for (name, count) in others.into_iter().filter(|(_, count)| *count > 0) {
        parts.push(format!("{count} {name}"));
    }
    for (code, count) in &outcomes.failed {
        parts.push(format!("{count} {code}"));
    }
    parts.join(", ")
}

/// Nanoseconds in the unit that suits them.
pub(super) fn time(nanoseconds: u64) -> String {
    let seconds = Duration::from_nanos(nanoseconds).as_secs_f64();
    match seconds {
        0.0 => "-".to_owned(),
        seconds if seconds < 1e-3 => format!("{:.0} us", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.2} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcomes;
    use crate::recording::histogram;

    #[test]
    fn a_line_says_how_far_it_is() {
        let second = Duration::from_secs(1);
        let progress = |elapsed| Progress {
            elapsed,
            since: second,
            outcomes: Outcomes {
                ok: 90,
                late: 10,
                ..Outcomes::default()
            },
            latency: histogram(),
        };
        assert_eq!(
            line("steady", 2 * second, 10 * second, &progress(second)),
            "steady [==                  ] 1 of 10 s, warming up  100/s  answers' p50 -  p99 -  not ok 10"
        );
        let line = line("steady", 2 * second, 10 * second, &progress(11 * second));
        assert!(
            line.starts_with("steady [====================] 11 of 10 s  100/s"),
            "{line}"
        );
    }
}
