//! A server that is started for a run, stopped and started again in it, and killed when it is over.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::blows::Blows;
use crate::scenario::Server;

/// The longest wait for a server that was started, and for one that was asked to stop.
const START: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(120);

/// A server that can be driven.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) address: String,
    started: Option<Started>,
}

/// A server that was started.
#[derive(Debug)]
struct Started {
    command: Vec<String>,
    /// Killed when dropped. None while it is being started again.
    child: Mutex<Option<Child>>,
    /// 0 while there is no process.
    id: AtomicU32,
}

/// How a server is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM: it may finish what it has.
    Terminate,
    /// SIGKILL: it may not.
    Kill,
}

impl Running {
    /// Finds the server, or starts it and waits until it is ready.
    pub(crate) async fn find(server: &Server) -> anyhow::Result<Self> {
        let command = match server {
            Server::At(address) => {
                return Ok(Self {
                    address: address.clone(),
                    started: None,
                });
            }
            Server::Start(command) => with_port(&with_programs(command)?)?,
        };
        let (child, address) = start(&command).await?;
        Ok(Self {
            address,
            started: Some(Started {
                command,
                id: AtomicU32::new(child.id().unwrap_or_default()),
                child: Mutex::new(Some(child)),
            }),
        })
    }

    /// The process that was started, if one was.
    pub(crate) fn id(&self) -> Option<u32> {
        let id = self.started.as_ref()?.id.load(Ordering::Relaxed);
        (id > 0).then_some(id)
    }

    /// Stops the server that was started for this, and starts it again.
    pub(crate) async fn restart(&self, end: End, blows: &Blows) -> anyhow::Result<()> {
        let started = self.started.as_ref();
        let started = started.context("only a server of server.command can be stopped")?;
        let mut child = started.child.lock().await;
        if let Some(mut old) = child.take() {
            started.id.store(0, Ordering::Relaxed);
            stop(&mut old, end).await?;
            // Until then one that was asked to stop may go on serving.
            blows.deal();
        }
        self.start_again(started, &mut child).await
    }

    /// Starts the server again if a step ended before that was done.
    pub(crate) async fn revive(&self) -> anyhow::Result<()> {
        let Some(started) = &self.started else {
            return Ok(());
        };
        let mut child = started.child.lock().await;
        match *child {
            Some(_) => Ok(()),
            None => self.start_again(started, &mut child).await,
        }
    }

    async fn start_again(
        &self,
        started: &Started,
        child: &mut Option<Child>,
    ) -> anyhow::Result<()> {
        let (new, address) = start(&started.command).await?;
        ensure!(
            address == self.address,
            "the server was at {} and is at {address} now; write {{port}} for the port in \
             server.command",
            self.address
        );
        started
            .id
            .store(new.id().unwrap_or_default(), Ordering::Relaxed);
        *child = Some(new);
        Ok(())
    }
}

async fn stop(child: &mut Child, end: End) -> anyhow::Result<()> {
    match end {
        End::Kill => child.start_kill()?,
        End::Terminate => {
            let id = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
            // One that has ended by itself needs no signal.
            if let Some(id) = id {
                kill_process(id, Signal::TERM)?;
            }
        }
    }
    let ended = tokio::time::timeout(STOP, child.wait()).await;
    ended.with_context(|| format!("the server did not end within {STOP:?}"))??;
    Ok(())
}

/// The command with the folder that this program is in where it asks for it: a server that was built
/// together with it lies there, wherever that is.
fn with_programs(command: &[String]) -> anyhow::Result<Vec<String>> {
    const PROGRAMS: &str = "{programs}";
    if !command.iter().any(|word| word.contains(PROGRAMS)) {
        return Ok(command.to_vec());
    }
    let own = std::env::current_exe().context("it cannot be told where this program is")?;
    let folder = own.parent().and_then(Path::to_str);
    let folder = folder.with_context(|| format!("{} has no folder with a name", own.display()))?;
    let words = command.iter().map(|word| word.replace(PROGRAMS, folder));
    Ok(words.collect())
}

/// The command with a free port where it leaves one open.
fn with_port(command: &[String]) -> anyhow::Result<Vec<String>> {
    const PORT: &str = "{port}";
    if !command.iter().any(|word| word.contains(PORT)) {
        return Ok(command.to_vec());
    }
    let socket = TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    let port = socket.local_addr()?.port().to_string();
    let words = command.iter().map(|word| word.replace(PORT, &port));
    Ok(words.collect())
}

async fn start(command: &[String]) -> anyhow::Result<(Child, String)> {
    let started = tokio::time::timeout(START, started(command)).await;
    started.with_context(|| format!("{command:?} was not ready within {START:?}"))?
}

async fn started(command: &[String]) -> anyhow::Result<(Child, String)> {
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
            return Ok((child, address));
        }
    }
    bail!(
        "{command:?} ended before it was ready: {}",
        child.wait().await?
    )
}
