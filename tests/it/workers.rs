//! Servers whose models run in processes of their own, and those processes.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use jitney::backend::Cause;
use jitney::config::RawServer;
use rustix::process::{Pid, Signal, kill_process};

use super::node::{Node, until};

/// Settings of a server with workers, by which its own can be told from those of others.
pub(crate) struct Isolated {
    mark: String,
}

impl Isolated {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            // A filter of log lines that is handed on to workers and matches nothing.
            mark: format!("error,of_{}_{number}=error", std::process::id()),
        }
    }

    pub(crate) fn settings(&self) -> RawServer {
        RawServer {
            isolation: Some("process".to_owned()),
            worker_executable: Some(env!("CARGO_BIN_EXE_jitney").into()),
            log: Some(self.mark.clone()),
            ..RawServer::default()
        }
    }

    /// A server in a process of its own, with these flags; and where it serves gRPC.
    pub(crate) fn spawn(&self, repository: &Path, flags: &[&str]) -> (Child, String) {
        use std::io::{BufRead, BufReader};
        let mut child = Command::new(env!("CARGO_BIN_EXE_jitney"))
            .arg("serve")
            .arg(repository)
            .args(["--isolation", "process", "--log", &self.mark])
            .args(["--grpc-address", "127.0.0.1:0", "--http-address", "off"])
            .args(["--metrics-address", "off"])
            .args(flags)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut address = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some(rest) = line.strip_prefix("gRPC on ") {
                address = rest.split(' ').next().unwrap().to_owned();
            }
            if line == "ready" {
                break;
            }
        }
        (child, address)
    }

    /// Its workers that live, by their process numbers.
    pub(crate) fn workers(&self) -> Vec<i32> {
        let processes = fs::read_dir("/proc").unwrap().flatten();
        let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let is_one = |number: &i32| {
            let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            let mut words = line.split(|byte| *byte == 0);
            words.nth(1) == Some(b"worker") && words.any(|word| word == self.mark.as_bytes())
        };
        numbers.filter(is_one).collect()
    }

    /// The one worker that lives.
    pub(crate) fn worker(&self) -> i32 {
        let workers = self.workers();
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers[0]
    }

    /// Kills it, and waits until it has been buried.
    pub(crate) async fn kill(&self) {
        let worker = self.worker();
        signal(worker, Signal::KILL);
        until("a worker has died", || !is_there(worker)).await;
    }
}

pub(crate) fn signal(process: i32, signal: Signal) {
    kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
}

pub(crate) fn is_there(process: i32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

/// How often workers of a model's newest version have died, for this reason.
pub(crate) fn deaths(node: &Node, model: &str, cause: Cause) -> u64 {
    let deaths = node.version(model).casualties().deaths;
    let of = deaths.iter().filter(|((_, own), _)| *own == cause);
    of.map(|(_, count)| count).sum()
}
