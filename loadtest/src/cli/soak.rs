//! `jitney-load soak`.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use jitney_load::Session;
use jitney_load::report::{Report, Verdict, terminal};
use jitney_load::slo::Growth;

use super::{Written, only_step, read, watch};

/// Run the scenario's one step for hours, and look for what grows.
///
/// Memory, file descriptors, threads and the median latency of each second are looked at: a line is
/// laid through them, and what counts is the growth that it has with 99 % confidence. What may grow is
/// said in slo.max_growth; where it says nothing, 2 % of the mean an hour, and 10 % for latency.
#[derive(Debug, Args)]
pub(super) struct Soak {
    /// The scenario, a TOML file with one step.
    scenario: PathBuf,
    /// Drive the server there, whatever the scenario says.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// How long; as long as the step says if not given.
    #[arg(long)]
    hours: Option<f64>,
    /// The server's process, if it runs on this machine and was not started for the run: without one
    /// only latency can be looked at.
    #[arg(long, value_name = "ID")]
    process: Option<u32>,
    #[command(flatten)]
    written: Written,
}

impl Soak {
    pub(super) async fn run(self) -> anyhow::Result<Verdict> {
        let scenario = read(&self.scenario, self.address.as_deref())?;
        let mut session = Session::open(scenario).await?;
        if let Some(id) = self.process {
            session.watch_process(id)?;
        }
        let mut step = only_step(&session)?.clone();
        if let Some(hours) = self.hours {
            let duration = Duration::try_from_secs_f64(hours * 3_600.0);
            step.duration = duration.context("--hours is no time")?;
        }
        if step.slo.max_growth == Growth::default() {
            step.slo.max_growth = Growth::of_a_soak(session.sees_a_process());
        }
        let run = session.step(&step, watch(&step)).await;
        terminal::clear();
        self.written.show(&Report {
            environment: session.environment(&self.scenario.display().to_string()),
            steps: vec![run?],
            comparisons: Vec::new(),
            found: None,
        })
    }
}
