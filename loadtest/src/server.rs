//! A server that is started for a run, and killed when the run is over.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::scenario::Server;

/// The longest wait for a server that was started.
const START: Duration = Duration::from_secs(600);

/// A server that can be driven.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: String,
    /// Killed when dropped.
    child: Option<Child>,
}

impl Running {
    /// The process that was started, if one was and it still runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Finds the server, or starts it and waits until it is ready.
    pub(crate) async fn find(server: &Server) -> anyhow::Result<Self> {
        match server {
            Server::At(address) => Ok(Self {
                address: address.clone(),
                child: None,
            }),
            Server::Start(command) => tokio::time::timeout(START, start(command))
                .await
                .with_context(|| format!("{command:?} was not ready within {START:?}"))?,
        }
    }
}

async fn start(command: &[String]) -> anyhow::Result<Running> {
    let (program, arguments) = command.split_first().context("server.command is empty")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let output = child.stdout.take().context("the server has no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut address = None;
    while let Some(line) = lines.next_line().await? {
        if let Some(rest) = line.strip_prefix("gRPC on ") {
            address = rest.split(' ').next().map(str::to_owned);
        }
        if let (true, Some(address)) = (line == "ready", &address) {
            let address = address.clone();
            // Whatever else it prints must not fill the pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok(Running {
                address,
                child: Some(child),
            });
        }
    }
    bail!(
        "{command:?} ended before it was ready: {}",
        child.wait().await?
    )
}
