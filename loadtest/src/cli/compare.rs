//! `jitney-load compare`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::Args;
use jitney_load::Session;
use jitney_load::compare::{FEWEST_PAIRS, compare};
use jitney_load::report::{Report, StepReport, Verdict, terminal};
use jitney_load::scenario::Step;
use jitney_load::slo::Slo;

use super::{Written, only_step, read, watch};

/// Compare two servers, versions or configurations, in turns: A B, B A, A B and so on.
///
/// Says for throughput and for the 50th, 90th and 99th percentile of latency whether B differs from
/// A, by how much, and between which bounds the truth lies; a difference is called by mistake in no
/// more than one comparison of twenty. Exit code 1 if B is worse in any, 2 if the generator lagged over
/// all turns of one.
#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The scenario, a TOML file with one step.
    scenario: PathBuf,
    /// The server A; the scenario's own if not given.
    #[arg(long, value_name = "HOST:PORT")]
    a: Option<String>,
    /// The server B.
    #[arg(long, value_name = "HOST:PORT", required_unless_present = "b_scenario")]
    b: Option<String>,
    /// Another scenario for B, such as one that starts another version.
    #[arg(long, value_name = "FILE")]
    b_scenario: Option<PathBuf>,
    /// Turns of each.
    #[arg(long, default_value_t = 10)]
    pairs: usize,
    /// The smallest difference that matters, as a share.
    #[arg(long, default_value_t = 0.02)]
    matters: f64,
    #[command(flatten)]
    written: Written,
}

impl Compare {
    pub(super) async fn run(self) -> anyhow::Result<Verdict> {
        ensure!(
            self.pairs >= FEWEST_PAIRS,
            "fewer than {FEWEST_PAIRS} pairs tell nothing"
        );
        let file = self.b_scenario.as_ref().unwrap_or(&self.scenario);
        let a = Side::open("A", &self.scenario, self.a.as_deref()).await?;
        let b = Side::open("B", file, self.b.as_deref()).await?;
        let mut turns = Vec::new();
        for pair in 1..=self.pairs {
            turns.push(match pair % 2 {
                1 => {
                    let a = a.turn(pair).await?;
                    (a, b.turn(pair).await?)
                }
                _ => {
                    let b = b.turn(pair).await?;
                    (a.turn(pair).await?, b)
                }
            });
        }
        let scenario = a.session.scenario();
        let recordings: Vec<_> = turns
            .iter()
            .map(|(a, b)| (a.recording.clone(), b.recording.clone()))
            .collect();
        let Some(comparisons) = compare(&recordings, self.matters, scenario.seed) else {
            bail!(
                "the turns cannot be compared: in one of them more than 1 % of the requests got no good \
                 answer, so that its 99th percentile has no bound"
            );
        };
        let (all_a, all_b) = turns.into_iter().unzip();
        let report = Report {
            environment: a.session.environment(&self.scenario.display().to_string()),
            steps: vec![
                together(all_a, scenario.max_lag)?,
                together(all_b, b.session.scenario().max_lag)?,
            ],
            comparisons,
            found: None,
        };
        self.written.show(&report)
    }
}

/// One of the two.
struct Side {
    name: &'static str,
    session: Session,
}

impl Side {
    async fn open(
        name: &'static str,
        scenario: &Path,
        address: Option<&str>,
    ) -> anyhow::Result<Self> {
        let session = Session::open(read(scenario, address)?).await?;
        only_step(&session)?;
        Ok(Self { name, session })
    }

    async fn turn(&self, number: usize) -> anyhow::Result<StepReport> {
        let step = Step {
            name: format!("{}: {}", self.name, self.session.server()),
            ..only_step(&self.session)?.clone()
        };
        let run = self.session.step(&step, watch(&step)).await;
        terminal::clear();
        let turn = run?;
        let recording = &turn.recording;
        eprintln!(
            "{} {number}: {:.1} answers/s, p50 of them {:.3} ms, p99 {:.3} ms",
            self.name,
            recording.rate(),
            recording.quantile(0.5).as_secs_f64() * 1e3,
            recording.quantile(0.99).as_secs_f64() * 1e3,
        );
        Ok(turn)
    }
}

/// All turns of one side. What its step asks is not judged: one is compared with the other.
fn together(turns: Vec<StepReport>, max_lag: Duration) -> anyhow::Result<StepReport> {
    let mut turns = turns.into_iter();
    let mut whole = turns.next().context("no turn was run")?;
    for turn in turns {
        whole.append(&turn, max_lag);
    }
    whole.asked = Slo::default();
    whole.findings.clear();
    Ok(whole)
}
