//! Clients that behave, all the while: each asks, waits, and looks whether the answer is right.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::request::{assert_echo, rows};
use super::server::{Client, Server};
use super::within;

/// How requests ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answered, and right.
    pub(crate) right: usize,
    /// Refused or failed, by code.
    pub(crate) codes: BTreeMap<i32, usize>,
    /// What one of each code was told.
    pub(crate) messages: BTreeMap<i32, String>,
    /// The longest that one took.
    pub(crate) slowest: Duration,
}

impl Tally {
    pub(crate) fn add(&mut self, other: Self) {
        self.right += other.right;
        for (code, count) in other.codes {
            *self.codes.entry(code).or_default() += count;
        }
        self.messages.extend(other.messages);
        self.slowest = self.slowest.max(other.slowest);
    }

    pub(crate) fn of(&self, code: Code) -> usize {
        self.codes.get(&(code as i32)).copied().unwrap_or(0)
    }

    /// None failed.
    #[track_caller]
    pub(crate) fn assert_all_right(&self) {
        assert!(self.codes.is_empty() && self.right > 0, "{self:?}");
    }
}

/// Behaves until it is asked what it saw.
pub(crate) struct Witness {
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Tally>>,
}

impl Witness {
    /// So many clients, each with a connection of its own, of the model "m".
    pub(crate) fn begin(server: &Server, clients: usize) -> Self {
        let (ends, asked) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..clients).map(|number| {
            let (ends, asked) = (Arc::clone(&ends), Arc::clone(&asked));
            tokio::spawn(behave(server.client(), number, ends, asked))
        });
        Self {
            clients: clients.collect(),
            ends,
            asked,
        }
    }

    /// Waits until so many more have been answered.
    pub(crate) async fn sees(&self, more: usize) {
        let wanted = self.asked.load(Ordering::Relaxed) + more;
        within("the witness is answered", async {
            while self.asked.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }

    /// What it saw.
    pub(crate) async fn tells(mut self) -> Tally {
        self.ends.store(true, Ordering::Relaxed);
        let mut all = Tally::default();
        for client in std::mem::take(&mut self.clients) {
            all.add(within("a request is answered", client).await.unwrap());
        }
        all
    }
}

impl Drop for Witness {
    /// Clients of a server that is gone are told so without a pause, and a runtime ends no task that never pauses.
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

async fn behave(
    mut client: Client,
    number: usize,
    ends: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
) -> Tally {
    let mut tally = Tally::default();
    for seed in 0.. {
        if ends.load(Ordering::Relaxed) {
            break;
        }
        let request = rows("m", number * 1000 + seed % 1000, 1 + seed % 3);
        let began = tokio::time::Instant::now();
        match client.model_infer(request.clone()).await {
            Ok(answer) => {
                assert_echo(answer.get_ref(), &request);
                tally.right += 1;
            }
            Err(status) => {
                let code = code(&status) as i32;
                *tally.codes.entry(code).or_default() += 1;
                tally.messages.insert(code, status.message().to_owned());
            }
        }
        tally.slowest = tally.slowest.max(began.elapsed());
        asked.fetch_add(1, Ordering::Relaxed);
    }
    tally
}

/// A status's code. This client says INTERNAL of a call that was on its way when the server said which was the
/// last that it took, and that is after that one: nobody has run it, and it may be asked of another.
fn code(status: &Status) -> Code {
    let mut source = status.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<h2::Error>()
            && error.is_go_away()
            && error.is_remote()
            && error.reason() == Some(h2::Reason::NO_ERROR)
        {
            return Code::Unavailable;
        }
        source = error.source();
    }
    status.code()
}

/// Has a server do so much that what it needs for that is there.
pub(crate) async fn warm(server: &Server, requests: usize) {
    let witness = Witness::begin(server, 32);
    witness.sees(requests).await;
    witness.tells().await.assert_all_right();
}
