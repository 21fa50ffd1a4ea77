//! The commands, one file each.

mod compare;
mod report;
mod run;
mod search;
mod soak;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use jitney_load::report::{Report, Verdict, terminal, write_hgrm, write_html, write_report};
use jitney_load::scenario::{Scenario, Server, Step, read_scenario};
use jitney_load::{Progress, Session};

/// Drives a server that speaks KServe V2, over gRPC or REST, and tells what its users would see.
///
/// Exit codes: 0 what was asked holds, 1 it does not, 2 the run is invalid because the generator
/// could not keep up, 3 it could not be run.
#[derive(Debug, Parser)]
#[command(version, about)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Search(search::Search),
    Compare(compare::Compare),
    Soak(soak::Soak),
    Report(report::Merge),
}

const STANDARD_OUTPUT: &str = "-";

/// Where reports are written.
#[derive(Debug, Args)]
struct Written {
    /// Write the report there, as JSON on one line; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report there, as a page that needs nothing else; `-` is the standard output.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the latencies of each step's answers there, as NAME.hgrm for the tools of HdrHistogram.
    #[arg(long, value_name = "FOLDER")]
    hgrm: Option<PathBuf>,
}

impl Arguments {
    /// Does what was asked.
    pub(crate) fn run(self) -> anyhow::Result<Verdict> {
        let runtime = tokio::runtime::Runtime::new()?;
        runtime.block_on(async {
            match self.command {
                Command::Run(run) => run.run().await,
                Command::Search(search) => search.run().await,
                Command::Compare(compare) => compare.run().await,
                Command::Soak(soak) => soak.run().await,
                Command::Report(merge) => merge.run(),
            }
        })
    }
}

impl Written {
    /// Writes the report where it is wanted and shows it at the terminal.
    fn show(&self, report: &Report) -> anyhow::Result<Verdict> {
        self.write(report)?;
        self.say(&terminal::summary(report));
        Ok(report.verdict())
    }

    /// Tells whoever sits at the terminal: at the standard output, unless a report goes there. Whoever
    /// reads the one is not to find the other in it.
    fn say(&self, text: &str) {
        let mut files = [&self.json, &self.html].into_iter();
        match files.any(|file| is_standard_output(file.as_deref())) {
            true => eprint!("{text}"),
            false => print!("{text}"),
        }
    }

    fn write(&self, report: &Report) -> anyhow::Result<()> {
        let written = [
            (&self.json, write_report(report)),
            (&self.html, write_html(report)),
        ];
        for (file, text) in written {
            if is_standard_output(file.as_deref()) {
                print!("{text}");
            } else if let Some(file) = file {
                let done = fs::write(file, text);
                done.with_context(|| format!("cannot write {}", file.display()))?;
            }
        }
        if let Some(folder) = &self.hgrm {
            write_histograms(report, folder)?;
        }
        Ok(())
    }
}

fn is_standard_output(file: Option<&Path>) -> bool {
    file == Some(Path::new(STANDARD_OUTPUT))
}

fn write_histograms(report: &Report, folder: &Path) -> anyhow::Result<()> {
    let failed = || format!("cannot write into {}", folder.display());
    fs::create_dir_all(folder).with_context(failed)?;
    for (number, step) in (1..).zip(&report.steps) {
        // A step may be called anything.
        let plain = |letter: char| match letter.is_alphanumeric() {
            true => letter,
            false => '_',
        };
        let name: String = step.name.chars().map(plain).collect();
        let file = folder.join(format!("{number}_{name}.hgrm"));
        fs::write(file, write_hgrm(&step.recording.latency)).with_context(failed)?;
    }
    Ok(())
}

fn read(file: &Path, address: Option<&str>) -> anyhow::Result<Scenario> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    let mut scenario = read_scenario(file, &text)?;
    if let Some(address) = address {
        scenario.server = Server::At(address.to_owned());
    }
    Ok(scenario)
}

/// Tells at the terminal how a step goes.
fn watch(step: &Step) -> impl FnMut(Progress) + Send + use<> {
    terminal::progress(&step.name, step.warm_up, step.duration)
}

/// The one step of a scenario that is run again and again.
fn only_step(session: &Session) -> anyhow::Result<&Step> {
    match &session.scenario().steps[..] {
        [step] => Ok(step),
        steps => anyhow::bail!(
            "the scenario has {} steps where one is run again and again",
            steps.len()
        ),
    }
}
