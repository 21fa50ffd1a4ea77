//! `jitney-load run`.

use std::path::PathBuf;

use clap::Args;
use jitney_load::Session;
use jitney_load::report::{Report, Verdict, terminal};

use super::{Written, read, watch};

/// Run a scenario, and judge it by what its steps ask.
#[derive(Debug, Args)]
pub(super) struct Run {
    /// The scenario, a TOML file.
    scenario: PathBuf,
    /// Drive the server there, whatever the scenario says.
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Decide chance by this number, whatever the scenario says.
    #[arg(long)]
    seed: Option<u64>,
    #[command(flatten)]
    written: Written,
}

impl Run {
    pub(super) async fn run(self) -> anyhow::Result<Verdict> {
        let mut scenario = read(&self.scenario, self.address.as_deref())?;
        scenario.seed = self.seed.unwrap_or(scenario.seed);
        let session = Session::open(scenario).await?;
        let name = self.scenario.display().to_string();
        let mut steps = Vec::new();
        for step in &session.scenario().steps {
            let run = session.step(step, watch(step)).await;
            terminal::clear();
            let run = run?;
            if session.scenario().steps.len() > 1 {
                eprintln!("{}", terminal::step_line(&run));
            }
            steps.push(run);
        }
        self.written.show(&Report {
            environment: session.environment(&name),
            steps,
            comparisons: Vec::new(),
            found: None,
        })
    }
}
