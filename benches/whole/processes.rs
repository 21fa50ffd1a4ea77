//! Servers as processes of their own, killed when dropped.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    pub(crate) ready_after: Duration,
}

impl Process {
    pub(crate) fn echo() -> anyhow::Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).arg("echo"))
    }

    /// The same over HTTP.
    pub(crate) fn echo_of_rest() -> anyhow::Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).arg("echo-rest"))
    }

    /// Whoever takes traces.
    pub(crate) fn receiver() -> anyhow::Result<Self> {
        Self::start(Command::new(std::env::current_exe()?).arg("receiver"))
    }

    /// ONNX Runtime with a model loaded, and nothing else.
    pub(crate) fn bare(model: &Path) -> anyhow::Result<Self> {
        Self::start(
            Command::new(std::env::current_exe()?)
                .arg("bare")
                .arg(model),
        )
    }

    #[allow(clippy::disallowed_methods)] // measures how long it takes
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let output = child.stdout.take().context("no output")?;
        let mut address = String::new();
        for line in BufReader::new(output).lines() {
            let line = line?;
            if let Some(rest) = line.strip_prefix("gRPC on ") {
                address = rest.split(' ').next().unwrap_or(rest).to_owned();
            }
            if line == "ready" {
                return Ok(Self {
                    child,
                    address,
                    ready_after: began.elapsed(),
                });
            }
        }
        bail!("{command:?} ended before it was ready: {:?}", child.wait()?)
    }

    /// Processor time that it has taken, in steps of the kernel's clock.
    pub(crate) fn processor_seconds(&self) -> anyhow::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may hold anything, and ends with the last parenthesis.
        let (_, rest) = stat.rsplit_once(')').context("no name")?;
        let ticks = rest.split_whitespace().skip(11).take(2);
        let ticks: Vec<u64> = ticks.map(str::parse).collect::<Result<_, _>>()?;
        Ok(ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64)
    }

    pub(crate) fn resident_kibibytes(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .context("no VmRSS")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server over a repository, with its defaults.
pub(crate) fn jitney(repository: &Path) -> anyhow::Result<Process> {
    serve(repository, "off", &[])
}

/// The same with REST on the port of gRPC.
pub(crate) fn jitney_with_rest(repository: &Path) -> anyhow::Result<Process> {
    serve(repository, "127.0.0.1:0", &[])
}

/// The same, with these flags.
pub(crate) fn jitney_with(repository: &Path, flags: &[&str]) -> anyhow::Result<Process> {
    serve(repository, "off", flags)
}

fn serve(repository: &Path, http_address: &str, flags: &[&str]) -> anyhow::Result<Process> {
    Process::start(
        Command::new(env!("CARGO_BIN_EXE_jitney"))
            .arg("serve")
            .arg(repository)
            .args(["--grpc-address", "127.0.0.1:0"])
            .args(["--http-address", http_address])
            .args(["--metrics-address", "off", "--log", "warn"])
            .args(flags),
    )
}
