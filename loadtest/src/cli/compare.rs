//! `jitney-load compare`.

use std::path::PathBuf;

use anyhow::{bail, ensure};
use clap::Args;
use jitney_load::compare::{Call, FEWEST_PAIRS, compare};
use jitney_load::report::{StepReport, Verdict, terminal};
use jitney_load::{Recording, Session};

use super::{only_step, read, watch};

/// Compare two servers, versions or configurations, in turns: A B, B A, A B and so on.
///
/// Says for throughput and for the 50th, 90th and 99th percentile of latency whether B differs from
/// A, by how much, and between which bounds the truth lies; a difference is called by mistake in no
/// more than one comparison of twenty. Exit code 1 if B is worse in any.
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
}

impl Compare {
    pub(super) async fn run(self) -> anyhow::Result<Verdict> {
        ensure!(
            self.pairs >= FEWEST_PAIRS,
            "fewer than {FEWEST_PAIRS} pairs tell nothing"
        );
        let file = self.b_scenario.as_ref().unwrap_or(&self.scenario);
        let a = Session::open(read(&self.scenario, self.a.as_deref())?).await?;
        let b = Session::open(read(file, self.b.as_deref())?).await?;
        let mut turns = Vec::new();
        for pair in 0..self.pairs {
            turns.push(match pair % 2 {
                0 => {
                    let a = turn("A", pair, &a).await?;
                    (a, turn("B", pair, &b).await?)
                }
                _ => {
                    let b = turn("B", pair, &b).await?;
                    (turn("A", pair, &a).await?, b)
                }
            });
        }
        let seed = a.scenario().seed;
        let Some(comparisons) = compare(&turns, self.matters, seed) else {
            bail!("the turns cannot be compared: in one too many requests had no answer");
        };
        for comparison in &comparisons {
            println!("{comparison}");
        }
        let worse = comparisons.iter().any(|one| one.call == Call::Worse);
        Ok(match worse {
            true => Verdict::Missed,
            false => Verdict::Met,
        })
    }
}

async fn turn(side: &str, pair: usize, session: &Session) -> anyhow::Result<Recording> {
    let step = only_step(session)?;
    let run = session.step(step, watch(step)).await;
    terminal::clear();
    let StepReport {
        recording, invalid, ..
    } = run?;
    if let Some(reason) = invalid {
        eprintln!("{side} {pair}: {reason}");
    }
    eprintln!(
        "{side} {}: {:.1} answers/s, p50 {:.3} ms, p99 {:.3} ms",
        pair + 1,
        recording.rate(),
        recording.quantile(0.5).as_secs_f64() * 1e3,
        recording.quantile(0.99).as_secs_f64() * 1e3,
    );
    Ok(recording)
}
