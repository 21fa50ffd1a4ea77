//! `jitney-load search`.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use jitney_load::arrivals::{Arrivals, Profile, Schedule};
use jitney_load::confidence::{Known, interval, queries_for};
use jitney_load::report::{Report, StepReport, Verdict, terminal};
use jitney_load::scenario::Step;
use jitney_load::search::{Found, Search as Rates, bad, holds};
use jitney_load::{Recording, Session};

use super::{Written, only_step, read, watch};

/// Find the largest rate at which the scenario's one step holds what it asks.
///
/// Rates are doubled or halved until one holds and one does not, then closed in on. A rate holds if
/// with 95 % confidence no larger share of requests fails or is too slow than the percentile allows;
/// where that cannot be told the rate is run again, three times in all.
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

const MOST_RUNS: usize = 3;

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
        let mut search = Rates::new(self.from.unwrap_or(profile.rate(0.0)), self.precision);
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
        };
        self.written.write(&report)?;
        Ok(verdict(found, percentile))
    }
}

fn verdict(found: Option<Found>, percentile: f64) -> Verdict {
    match found {
        None => {
            println!("no rate was found: the generator lagged");
            return Verdict::Invalid;
        }
        Some(Found::Nothing(rate)) => println!("not even {rate:.1} requests a second hold"),
        Some(Found::Everything(rate)) => println!("every rate up to {rate:.1} holds"),
        Some(Found::Between(held, failed)) => {
            println!("{held:.1} requests a second hold, {failed:.1} do not");
        }
    }
    let needed = queries_for(percentile);
    println!("(for a statement of 99 % confidence a rate has to be run for {needed} requests)");
    match found {
        Some(Found::Nothing(_)) => Verdict::Missed,
        _ => Verdict::Met,
    }
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
        eprintln!("{}: {}", step.name, said(&tried.recording, step, known));
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

fn said(recording: &Recording, step: &Step, known: Known) -> String {
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
