//! Where a model's time goes, operator by operator: an executor that writes it down takes the place of
//! an instance's own for some batches of real requests.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use super::lane::Lane;
use super::site::Site;
use crate::backend::Executor;
use crate::clock::Clock;
use crate::status::{Code, Status};

/// Where a model's time went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Events in the Trace Event Format, as JSON: Chrome's tracing and Perfetto show it.
    pub trace: Vec<u8>,
    /// Batches that it is of.
    pub batches: usize,
}

/// An executor that is lent to an instance, which gives it back after so many batches.
pub(super) struct Loan {
    /// While it is lent, the instance's own.
    pub(super) executor: Box<dyn Executor>,
    left: usize,
    /// Set when nobody waits for more batches.
    enough: Arc<AtomicBool>,
    back: oneshot::Sender<(Box<dyn Executor>, usize)>,
}

impl Loan {
    /// Lends an executor for so many batches.
    pub(super) fn new(executor: Box<dyn Executor>, batches: usize) -> (Self, Lender) {
        let (back, returned) = oneshot::channel();
        let enough = Arc::new(AtomicBool::new(false));
        let loan = Self {
            executor,
            left: batches,
            enough: Arc::clone(&enough),
            back,
        };
        (loan, Lender { enough, returned })
    }

    /// A batch is about to run.
    pub(super) fn runs(&mut self) {
        self.left = self.left.saturating_sub(1);
    }

    /// Whether nobody waits for another batch.
    pub(super) fn is_over(&self) -> bool {
        self.left == 0 || self.enough.load(Ordering::Acquire)
    }

    /// Gives the executor back to whoever lent it, and how many batches are missing.
    pub(super) fn repay(self) {
        // Who lent it may be gone; then it is nobody's.
        let _ = self.back.send((self.executor, self.left));
    }
}

/// What whoever lent an executor keeps.
pub(super) struct Lender {
    /// To be set before the loan is recalled.
    pub(super) enough: Arc<AtomicBool>,
    /// The executor, and how many batches are missing.
    pub(super) returned: oneshot::Receiver<(Box<dyn Executor>, usize)>,
}

/// Takes back what was lent, whatever happens to whoever waits.
struct Recall<'a> {
    lane: &'a Lane,
    enough: &'a AtomicBool,
}

impl Drop for Recall<'_> {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::Release);
        if let Some(loan) = self.lane.recall() {
            loan.repay();
        }
    }
}

/// Profiles up to so many batches of a lane, as many as come within `patience`.
pub(super) async fn profile(
    lane: &Lane,
    site: Arc<Site>,
    clock: &dyn Clock,
    batches: usize,
    patience: Duration,
) -> Result<Profile, Status> {
    let failed = |error: String| Status::internal(format!("no profile could be made: {error}"));
    let folder = tempfile::tempdir().map_err(|error| failed(error.to_string()))?;
    let prefix = folder.path().join("profile");
    let made = spawn_blocking(move || site.profiled(&prefix)).await;
    let executor = made
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    let (loan, lender) = Loan::new(executor, batches);
    let Lender {
        enough,
        mut returned,
    } = lender;
    if !lane.lend(loan) {
        let message = "a profile of it is being made; wait for that";
        return Err(Status::new(Code::FailedPrecondition, message));
    }
    let recall = Recall {
        lane,
        enough: &enough,
    };
    let in_time = tokio::select! {
        biased;
        returned = &mut returned => Some(returned),
        () = clock.sleep_until(clock.now() + patience) => None,
    };
    drop(recall);
    let returned = match in_time {
        Some(returned) => returned,
        None => returned.await,
    };
    let (mut executor, left) = returned.map_err(|_| failed("the executor broke".to_owned()))?;
    if left == batches {
        let message = format!("no batch ran within {patience:?}, so that there is nothing to tell");
        return Err(Status::unavailable(message));
    }
    let trace = spawn_blocking(move || {
        let written = executor.end_profile()?;
        fs::read(&written).map_err(|error| format!("{}: {error}", written.display()))
    });
    let trace = trace.await.map_err(|error| failed(error.to_string()))?;
    drop(folder);
    Ok(Profile {
        trace: trace.map_err(failed)?,
        batches: batches - left,
    })
}
