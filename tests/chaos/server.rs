//! A server in a process of its own, and what it has.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use jitney::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use tonic::transport::{Channel, Endpoint};

use super::within;
use super::witness::warm;

/// One server is dealt something at a time: what it has is to be its own doing.
static TURN: Mutex<()> = Mutex::new(());
/// What its memory may be more than before.
const MORE: f64 = 1.05;
/// From one look at what it has to the next.
const LOOK: Duration = Duration::from_millis(100);
/// Looks before it is asked something again.
const LOOKS: usize = 15;
/// Rests of which that counts in which it has most.
const RESTS: usize = 5;

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

/// What a process has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Possessions {
    pub(crate) resident_kib: u64,
    pub(crate) threads: usize,
    pub(crate) descriptors: usize,
}

impl Possessions {
    /// The same with so much more memory.
    pub(crate) fn with_more(self, kib: u64) -> Self {
        Self {
            resident_kib: self.resident_kib + kib,
            ..self
        }
    }

    /// Whether this is what was there before, but for what an allocator keeps from time to time.
    pub(crate) fn is_no_more_than(&self, before: Self) -> bool {
        self.resident_kib as f64 <= before.resident_kib as f64 * MORE
            && self.threads <= before.threads
            && self.descriptors <= before.descriptors
    }
}

/// A connection to a server that is made when it is first used.
pub(crate) fn channel(address: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_lazy()
}

/// A client with a connection of its own.
pub(crate) fn client(address: SocketAddr) -> Client {
    Client::new(channel(address))
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX)
}

/// A server that has begun to serve; killed when dropped.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<String>>,
    _turn: MutexGuard<'static, ()>,
}

impl Server {
    /// Serves a repository, gRPC and REST on one port, with these flags.
    pub(crate) fn start(repository: &Path, flags: &[&str]) -> Self {
        Self::start_with(repository, flags, &[])
    }

    /// The same with variables of its own.
    pub(crate) fn start_with(repository: &Path, flags: &[&str], set: &[(&str, &str)]) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut child = Command::new(env!("CARGO_BIN_EXE_jitney"))
            .arg("serve")
            .arg(repository)
            .args(["--grpc-address", "127.0.0.1:0"])
            .args(["--http-address", "127.0.0.1:0"])
            .args(["--metrics-address", "off", "--lame-duck-ms", "0"])
            .args(flags)
            .envs(set.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let errors = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in errors.lines().map_while(Result::ok) {
                *kept.lock().unwrap() += &(line + "\n");
            }
        });
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (told, said) = mpsc::channel();
        // It is read to its end: a full pipe would stop the server.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        let mut address = None;
        let mut is_ready = false;
        while let Ok(line) = said.recv_timeout(super::HANG) {
            if let Some(line) = line.strip_prefix("gRPC on ") {
                address = line.split(' ').next().and_then(|first| first.parse().ok());
            }
            is_ready = line == "ready";
            if is_ready {
                break;
            }
        }
        if !is_ready {
            let _ = child.kill();
            panic!("not ready: {}", log.lock().unwrap());
        }
        Self {
            child,
            address: address.unwrap(),
            log,
            _turn: turn,
        }
    }

    pub(crate) fn client(&self) -> Client {
        client(self.address)
    }

    /// Everything that it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.process(), signal).unwrap();
    }

    /// Its one worker that lives, as soon as there is one.
    pub(crate) async fn worker(&self) -> i32 {
        within("there is a worker", async {
            loop {
                if let [worker] = self.workers()[..] {
                    return worker;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await
    }

    /// Sends its worker a signal, and says which it was.
    pub(crate) async fn deal_worker(&self, signal: Signal) -> i32 {
        let worker = self.worker().await;
        kill_process(Pid::from_raw(worker).unwrap(), signal).unwrap();
        worker
    }

    fn workers(&self) -> Vec<i32> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let children = threads.flatten().filter_map(|thread| {
            // A thread may have ended since.
            fs::read_to_string(thread.path().join("children")).ok()
        });
        let children: Vec<String> = children.collect();
        let numbers = children.iter().flat_map(|line| line.split_whitespace());
        // Those that have ended have no command line.
        let lives = |number: &&str| {
            let line = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
            !line.is_empty()
        };
        let living = numbers.filter(lives);
        living.map(|number| number.parse().unwrap()).collect()
    }

    /// Bounds its descriptors from now on.
    pub(crate) fn allow_descriptors(&self, most: usize) {
        let limit = Rlimit {
            current: Some(most as u64),
            ..getrlimit(Resource::Nofile)
        };
        prlimit(Some(self.process()), Resource::Nofile, limit).unwrap();
    }

    /// Its exit, once it comes.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        within("the server ends", async {
            loop {
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status;
                }
                tokio::time::sleep(LOOK).await;
            }
        })
        .await
    }

    /// What it has now.
    pub(crate) fn has(&self) -> Possessions {
        let folder = format!("/proc/{}", self.child.id());
        let status = fs::read_to_string(format!("{folder}/status")).unwrap();
        let of = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap().split_whitespace().next().unwrap().to_owned()
        };
        Possessions {
            resident_kib: of("VmRSS:").parse().unwrap(),
            threads: of("Threads:").parse().unwrap(),
            descriptors: fs::read_dir(format!("{folder}/fd")).unwrap().count(),
        }
    }

    /// Serves so many requests, and gives the most that it then has when it rests: memory differs by some MiB from one
    /// rest to the next, as threads give back what others freed.
    pub(crate) async fn rests_after(&self, requests: usize) -> Possessions {
        warm(self, requests).await;
        let mut most = Possessions::default();
        for _ in 0..RESTS {
            warm(self, 64).await;
            tokio::time::sleep(LOOK * LOOKS as u32).await;
            let now = self.has();
            most = Possessions {
                resident_kib: most.resident_kib.max(now.resident_kib),
                threads: most.threads.max(now.threads),
                descriptors: most.descriptors.max(now.descriptors),
            };
        }
        most
    }

    /// Waits until it has no more than before, while it serves as it usually does: what a thread has freed
    /// goes back when it next rests. Panics if it never comes to that.
    pub(crate) async fn settles(&self, before: Possessions) -> Possessions {
        let settled = tokio::time::timeout(super::HANG, async {
            loop {
                for _ in 0..LOOKS {
                    let now = self.has();
                    if now.is_no_more_than(before) {
                        return now;
                    }
                    tokio::time::sleep(LOOK).await;
                }
                warm(self, 64).await;
            }
        });
        match settled.await {
            Ok(after) => after,
            Err(_) => panic!("before {before:?}, and now {:?}", self.has()),
        }
    }

    fn process(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
