//! `jitney-load`: see `--help`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use jitney_load::Session;
use jitney_load::report::{self, Report, Verdict, terminal};
use jitney_load::scenario::{Scenario, Server, read_scenario};

/// Drives a KServe V2 server over gRPC and tells what its users would see.
///
/// Exit codes: 0 what was asked holds, 1 it does not, 2 the run is invalid because the generator
/// could not keep up, 3 it could not be run.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario, and judge it by what its steps ask.
    Run {
        /// The scenario, a TOML file.
        scenario: PathBuf,
        /// Drive the server there, whatever the scenario says.
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// Decide chance by this number, whatever the scenario says.
        #[arg(long)]
        seed: Option<u64>,
        /// Write the report there, as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Show a report again; put together those of several generators that ran at the same time.
    Report {
        /// Reports, as JSON.
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// Write what they say together there, as JSON.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Help is no failure.
            return ExitCode::from(if error.use_stderr() { 3 } else { 0 });
        }
    };
    match run(arguments.command) {
        Ok(Verdict::Met) => ExitCode::SUCCESS,
        Ok(Verdict::Missed) => ExitCode::from(1),
        Ok(Verdict::Invalid) => ExitCode::from(2),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(3)
        }
    }
}

fn run(command: Command) -> anyhow::Result<Verdict> {
    match command {
        Command::Run {
            scenario,
            address,
            seed,
            json,
        } => {
            let mut read = read(&scenario)?;
            read.server = address.map_or(read.server, Server::At);
            read.seed = seed.unwrap_or(read.seed);
            let report = run_scenario(&scenario, read)?;
            show(&report, json.as_deref())
        }
        Command::Report { reports, json } => show(&merged(&reports)?, json.as_deref()),
    }
}

fn read(file: &Path) -> anyhow::Result<Scenario> {
    let text = fs::read_to_string(file);
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(read_scenario(file, &text)?)
}

fn run_scenario(file: &Path, scenario: Scenario) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let session = Session::open(scenario).await?;
        let name = file.display().to_string();
        let report = session.run(&name, |step| {
            terminal::progress(&step.name, step.warm_up + step.duration)
        });
        let report = report.await;
        terminal::clear();
        report
    })
}

fn merged(files: &[PathBuf]) -> anyhow::Result<Report> {
    let mut whole: Option<Report> = None;
    for file in files {
        let text = fs::read_to_string(file);
        let text = text.with_context(|| format!("cannot read {}", file.display()))?;
        let report = report::read_report(&text);
        let report = report.with_context(|| format!("{} is no report", file.display()))?;
        match &mut whole {
            None => whole = Some(report),
            Some(whole) => whole.merge(report).map_err(anyhow::Error::msg)?,
        }
    }
    whole.context("no report")
}

fn show(report: &Report, json: Option<&Path>) -> anyhow::Result<Verdict> {
    if let Some(file) = json {
        let written = fs::write(file, report::write_report(report));
        written.with_context(|| format!("cannot write {}", file.display()))?;
    }
    print!("{}", terminal::summary(report));
    Ok(report.verdict())
}
