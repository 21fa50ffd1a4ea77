//! A worker as its server sees it: started, spoken to, killed, and buried.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::channel::Channel;
use super::message::{Order, OrderKind};
use crate::backend::{Cause, Death};

/// How long the kernel may take to end a worker that was killed. On a GPU its memory is freed first.
const BURIAL: Duration = Duration::from_secs(10);

/// The program that workers run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its file.
    pub file: PathBuf,
    /// What it is told; the socket is its standard input.
    pub arguments: Vec<std::ffi::OsString>,
}

/// A process that runs a version on a device.
pub(super) struct Worker {
    number: u64,
    pid: u32,
    /// Signals to this reach no other process, even if the number is given again.
    process: OwnedFd,
    /// The worker ends when it is closed.
    lifeline: Mutex<Channel>,
    fate: Arc<Fate>,
}

/// What became of a worker.
#[derive(Default)]
struct Fate {
    state: Mutex<Ending>,
    changed: Condvar,
}

#[derive(Default)]
struct Ending {
    status: Option<ExitStatus>,
    /// Why it was killed, if we did it.
    verdict: Option<(Cause, String)>,
}

impl Fate {
    fn lock(&self) -> MutexGuard<'_, Ending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Worker {
    /// Starts one, and the thread that waits for its end.
    pub(super) fn start(program: &Program) -> io::Result<Arc<Self>> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let (lifeline, theirs) = Channel::pair()?;
        let mut command = Command::new(&program.file);
        command
            .args(&program.arguments)
            .arg0("jitney")
            .stdin(Stdio::from(theirs))
            // What native libraries print is no output of the server's.
            .stdout(Stdio::from(io::stderr().as_fd().try_clone_to_owned()?))
            // What is typed at a terminal is for the server.
            .process_group(0);
        let fate: Arc<Fate> = Arc::default();
        let (pid, process) = spawn(command, Arc::clone(&fate))?;
        Ok(Arc::new(Self {
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            pid,
            process,
            lifeline: Mutex::new(lifeline),
            fate,
        }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// A new conversation.
    pub(super) fn open(&self) -> io::Result<Channel> {
        let (own, theirs) = Channel::pair()?;
        let order = Order {
            kind: Some(OrderKind::Open(true)),
        };
        let mut lifeline = self.lifeline.lock().unwrap_or_else(PoisonError::into_inner);
        lifeline.send(&order, &[theirs.as_fd()])?;
        Ok(own)
    }

    /// Why it died, if it has, or is about to.
    pub(super) fn ended(&self) -> Option<Death> {
        let ending = self.fate.lock();
        let gone = ending.status.is_some() || ending.verdict.is_some();
        gone.then(|| self.told(&ending))
    }

    /// Ends it, for this reason unless there is one already.
    pub(super) fn kill(&self, cause: Cause, reason: impl Into<String>) {
        let mut ending = self.fate.lock();
        if ending.status.is_none() && ending.verdict.is_none() {
            ending.verdict = Some((cause, reason.into()));
        }
        drop(ending);
        // One that has ended needs no signal.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }

    /// Why it died. It has closed its socket: if it lives, it will be of no use.
    pub(super) fn death(&self) -> Death {
        // One that dies closes its sockets a moment before its end can be told.
        let ended = |ending: &mut Ending| ending.status.is_none();
        let waited = self
            .fate
            .changed
            .wait_timeout_while(self.fate.lock(), BURIAL, ended);
        let (ending, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() && ending.verdict.is_none() {
            drop(ending);
            self.kill(Cause::Hung, "closed its socket and did not end");
            return self.told(&self.fate.lock());
        }
        self.told(&ending)
    }

    fn told(&self, ending: &Ending) -> Death {
        let (cause, reason) = match (&ending.verdict, ending.status) {
            (Some((cause, reason)), _) => (*cause, reason.clone()),
            (None, Some(status)) => told(status),
            (None, None) => (Cause::Hung, "does not end".to_owned()),
        };
        Death {
            worker: self.number,
            cause,
            reason: format!("worker {} {reason}", self.pid),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// Starts a process from the thread that then waits for its end. It has to be that thread: the kernel
/// kills a worker when the *thread* that started it ends.
fn spawn(mut command: Command, fate: Arc<Fate>) -> io::Result<(u32, OwnedFd)> {
    let (tell, told) = mpsc::channel();
    let keep = move || {
        let started = command.spawn();
        // The worker's end of the socket is the worker's alone from here on.
        drop(command);
        let child = match started.and_then(|child| Ok((open(&child)?, child))) {
            Ok((process, child)) => {
                let _ = tell.send(Ok((child.id(), process)));
                child
            }
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        bury(child, &fate);
    };
    thread::Builder::new()
        .name("worker".to_owned())
        .spawn(keep)?;
    told.recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread of a worker ended")))
}

fn open(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

/// Waits for its end, so that it leaves nothing behind.
fn bury(mut child: Child, fate: &Fate) {
    let status = child.wait().unwrap_or_default();
    fate.lock().status = Some(status);
    fate.changed.notify_all();
}

fn told(status: ExitStatus) -> (Cause, String) {
    match status.signal() {
        Some(number) if number == Signal::KILL.as_raw() => {
            (Cause::Killed, "was killed (signal 9)".to_owned())
        }
        Some(number) => (Cause::Crashed, format!("crashed (signal {number})")),
        None => {
            let code = status.code().unwrap_or_default();
            (Cause::Exited, format!("exited with {code}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(file: &str, arguments: &[&str]) -> Arc<Worker> {
        let arguments = arguments.iter().map(Into::into).collect();
        let file = file.into();
        Worker::start(&Program { file, arguments }).unwrap()
    }

    #[test]
    fn how_one_ended_is_told() {
        let death = start("/bin/sh", &["-c", "exit 3"]).death();
        assert_eq!(death.cause, Cause::Exited);
        assert!(death.reason.ends_with("exited with 3"), "{}", death.reason);
        let death = start("/bin/sh", &["-c", "kill -SEGV $$"]).death();
        assert_eq!(death.cause, Cause::Crashed);
        let death = start("/bin/sh", &["-c", "kill -KILL $$"]).death();
        assert_eq!(death.cause, Cause::Killed);
    }

    #[test]
    fn one_that_is_killed_is_gone_for_the_first_reason() {
        let worker = start("/bin/sleep", &["600"]);
        assert_eq!(worker.ended(), None);
        worker.kill(Cause::Hung, "hung");
        worker.kill(Cause::DeviceLost, "too late");
        assert_eq!(worker.ended().unwrap().cause, Cause::Hung);
        assert_eq!(worker.ended(), Some(worker.death()));
    }

    #[test]
    fn one_that_nobody_has_is_buried() {
        let worker = start("/bin/sleep", &["600"]);
        let fate = Arc::clone(&worker.fate);
        drop(worker);
        let ended = |ending: &mut Ending| ending.status.is_none();
        let waited = fate.changed.wait_while(fate.lock(), ended).unwrap();
        assert_eq!(waited.status.unwrap().signal(), Some(9));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let program = Program {
            file: "/nowhere/jitney".into(),
            arguments: Vec::new(),
        };
        assert!(Worker::start(&program).is_err());
    }
}
