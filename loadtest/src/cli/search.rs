//! `jitney-load search`.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use clap::Args;
use jitney_load::arrivals::{Arrivals, Profile, Schedule};
use jitney_load::confidence::{Known, interval, queries_for};
use jitney_load::report::{Report, StepReport, Verdict, terminal};
use jitney_load::scenario::Step;
use jitney_load::search::{Found, MOST_RUNS, Search as Rates, bad, holds, least_rate};
use jitney_load::{Recording, Session};

use super::{Written, only_step, read, watch};

/// Find the largest rate at which the scenario's one step holds what it asks.
///
/// Rates are doubled or halved until one holds and one does not, then closed in on. A rate holds if
/// with 95 % confidence no larger share of requests fails or is too slow than the percentile allows;
/// where that cannot be told the rate is run again, three times in all. No rate is tried at which a run
/// sends fewer than 30 requests, or three runs fewer than it takes for one to be too slow: if the least
/// does not hold either, the exit code is 1.
#[derive(Debug, Args)]
pub(super) struct Search {
    /// The scenario, a TOML file with one step, whose arrivals are open and which asks for a
    /// percentile.
    scenario: PathBuf,
    /// Drive the server there, whatever the scenario says.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Where to begin, in requests a second; the step's own rate if not given.
    #[arg(long)]
    from: Option<f64>,
    /// How far the rate that holds and the one that does not may be apart at the end, as a share.
    #[arg(long, default_value_t = 0.02)]
    precision: f64,
    #[command(flatten)]
    written: Written,
}

impl Search {
    pub(super) async fn run(self) -> anyhow::Result<Verdict> {
        let session = Session::open(read(&self.scenario, self.address.as_deref())?).await?;
        let template = only_step(&session)?.clone();
        let Arrivals::Open(Schedule::Process(process, profile)) = &template.arrivals else {
            bail!("a search needs arrivals that are constant, poisson or bursty");
        };
        let Some((percentile, _)) = template.slo.latency else {
            bail!("a search needs slo.latency_ms, the latency that a percentile must keep");
        };
        let least = least_rate(percentile, template.duration);
        let start = self.from.unwrap_or(profile.rate(0.0).max(least));
        ensure!(
            start > 0.0 && start.is_finite(),
            "--from {start} is no rate"
        );
        let mut search = Rates::new(start, least, self.precision);
        let mut steps = Vec::new();
        let found = loop {
            let rate = search.rate();
            let schedule = Schedule::Process(*process, Profile::Constant(rate));
            let step = Step {
                name: format!("{rate:.1}/s"),
                arrivals: Arrivals::Open(schedule),
                ..template.clone()
            };
            let (tried, holds) = probe(&session, &step).await?;
            let stop = tried.invalid.is_some();
            steps.push(tried);
            if stop {
                break None;
            }
            if let Some(found) = search.tell(holds) {
                break Some(found);
            }
        };
        let report = Report {
            environment: session.environment(&self.scenario.display().to_string()),
            steps,
            comparisons: Vec::new(),
            found,
        };
        self.written.write(&report)?;
        self.written.say(&said(found, percentile, &template));
        Ok(report.verdict())
    }
}

/// What was found, in words.
fn said(found: Option<Found>, percentile: f64, step: &Step) -> String {
    let Some(found) = found else {
        return "no rate was found: the generator lagged\n".to_owned();
    };
    let about = match found {
        Found::Nothing(_) => format!(
            "at lower rates a run of {:?} sends too few to tell: lengthen duration_s to try them",
            step.duration
        ),
        Found::Between(..) | Found::Everything(_) => format!(
            "for a statement of 99 % confidence a rate has to be run for {} requests",
            queries_for(percentile)
        ),
    };
    format!("{found}\n({about})\n")
}

/// Runs a rate until it is known whether it holds.
async fn probe(session: &Session, step: &Step) -> anyhow::Result<(StepReport, bool)> {
    let mut whole: Option<StepReport> = None;
    for _ in 0..MOST_RUNS {
        let run = session.step(step, watch(step)).await;
        terminal::clear();
        let run = run?;
        let tried = match &mut whole {
            None => whole.insert(run),
            Some(whole) => {
                whole.append(&run, session.scenario().max_lag);
                whole
            }
        };
        let known = holds(&tried.recording, &step.slo);
        eprintln!("{}: {}", step.name, seen(&tried.recording, step, known));
        if known != Known::Open || tried.invalid.is_some() {
            break;
        }
    }
    let tried = whole.context("nothing was run")?;
    let others = tried.findings.iter().all(|finding| finding.met);
    let held = match holds(&tried.recording, &step.slo) {
        Known::Below => others,
        Known::Above => false,
        // It was run often enough: the count itself decides.
        Known::Open => others,
    };
    Ok((tried, held))
}

fn seen(recording: &Recording, step: &Step, known: Known) -> String {
    let (low, high) = interval(bad(recording, &step.slo), recording.outcomes.all());
    let word = match known {
        Known::Below => "holds",
        Known::Above => "does not hold",
        Known::Open => "cannot be told yet",
    };
    format!(
        "{word}: between {:.2} and {:.2} % of requests failed or took too long",
        low * 1e2,
        high * 1e2
    )
}
