//! What a person types: one file a command.
//! Uses `server`, `config`, `device` and `repository`.
//! Never serves: a command builds what it needs, runs it, and says how it went.

/// Prints a line, as `println!` does, but for a reader who has read enough (`jitney check | head`): what
/// goes on does not depend on him.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($line)*);
    }};
}
use say;

mod check;
mod convert;
mod descriptors;
mod devices;
mod probe;
mod serve;
mod token;
mod worker;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::telemetry::logs::Logs;

/// An inference server for ONNX models: KServe V2 over gRPC and REST, batched without knobs.
#[derive(Debug, Parser)]
#[command(name = "jitney", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the models of a repository.
    Serve(Box<serve::Serve>),
    /// Read a repository and load its models: what would be served, or everything that is wrong.
    Check(Box<check::Check>),
    /// Print the model.toml that means what a model's config.pbtxt says.
    Convert(convert::Convert),
    /// List the devices that models can run on, and why others are missing.
    Devices(devices::Devices),
    /// Ask a server on this machine whether it is ready: 0 if it is.
    Probe(probe::Probe),
    /// Make a token for the file that --identity names.
    Token(token::Token),
    /// Run a model for a server that has started this with --isolation process.
    #[command(hide = true)]
    Worker(worker::Worker),
}

/// Starts the log lines that `--log` asks for.
fn log(filter: &str, json: bool) -> anyhow::Result<()> {
    Logs::start(filter, json)
        .with_context(|| format!("--log: {filter:?} is not a filter such as info or debug"))
}

impl Cli {
    /// Runs the command; an error is for the person who typed it.
    pub fn run(self) -> anyhow::Result<()> {
        match self.command {
            Command::Serve(serve) => serve.run(),
            Command::Check(check) => check.run(),
            Command::Convert(convert) => convert.run(),
            Command::Devices(devices) => devices.run(),
            Command::Probe(probe) => probe.run(),
            Command::Token(token) => token.run(),
            Command::Worker(worker) => worker.run(),
        }
    }
}
