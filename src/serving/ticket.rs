//! A request on its way through a lane, and the promise to answer it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::journey::{TraceContext, Trip};
use super::order::Place;
use crate::clock::Moment;
use crate::scheduler::Item;
use crate::status::{Code, Status};
use crate::tensor::Tensor;

/// What a ticket is answered with.
pub(super) type Answer = Result<Outputs, Status>;

/// What a model gave for one request.
#[derive(Debug)]
pub(super) struct Outputs {
    /// In the signature's order.
    pub(super) tensors: Vec<Tensor>,
    /// The batch that it was in.
    pub(super) trip: Arc<Trip>,
}

/// A promise to answer one request, kept exactly once: sending consumes it, and dropping it tells
/// the one who waits that no answer will come.
#[derive(Debug, Default)]
pub(super) struct Ticket {
    sender: Option<oneshot::Sender<Answer>>,
    /// Among the answers, where their order matters; left once this is kept.
    place: Option<Place>,
}

impl Ticket {
    pub(super) fn new(sender: oneshot::Sender<Answer>, place: Option<Place>) -> Self {
        Self {
            sender: Some(sender),
            place,
        }
    }

    pub(super) fn answer(self, answer: Answer) {
        // Whoever waited may have gone away; then the answer is nobody's.
        let _ = self.sender.map(|sender| sender.send(answer));
        // Whose turn it is now finds that this one has its answer.
        drop(self.place);
    }

    /// The promise, for somebody else to keep.
    pub(super) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    /// Whether whoever waited has gone away.
    pub(super) fn is_forsaken(&self) -> bool {
        self.sender.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

/// A request on its way to an executor.
#[derive(Debug)]
pub(super) struct Job {
    /// In the signature's order.
    pub(super) inputs: Vec<Tensor>,
    pub(super) item: Item,
    pub(super) arrived: Moment,
    /// Where it is in a trace, if it is traced.
    pub(super) context: Option<TraceContext>,
    /// Whether an executor broke under it before.
    pub(super) retried: bool,
    pub(super) ticket: Ticket,
}

/// How much a request brings.
pub(super) fn input_bytes(inputs: &[Tensor]) -> usize {
    inputs.iter().map(|tensor| tensor.data.len()).sum()
}

/// What a request is told whose deadline has passed, or cannot be met, or with little to spare, by a batch
/// that is expected to take this long.
pub(super) fn late(waited: Duration, expected: Duration) -> Status {
    let milliseconds = |duration: Duration| duration.as_secs_f64() * 1e3;
    let message = if expected.is_zero() {
        format!(
            "the deadline passed after {:.1} ms in the queue",
            milliseconds(waited)
        )
    } else {
        format!(
            "after {:.1} ms in the queue the deadline cannot be met, or only just: a batch is expected to take {:.1} ms",
            milliseconds(waited),
            milliseconds(expected)
        )
    };
    Status::new(Code::DeadlineExceeded, message)
}

/// What a request is told whose deadline has passed while it was queued or ran.
pub(super) fn overdue(waited: Duration) -> Status {
    let milliseconds = waited.as_secs_f64() * 1e3;
    let message = format!("the deadline passed after {milliseconds:.1} ms");
    Status::new(Code::DeadlineExceeded, message)
}

/// What a request is told that was in the queue as long as it may be.
pub(super) fn timed_out(waited: Duration) -> Status {
    let milliseconds = waited.as_secs_f64() * 1e3;
    let message = format!("the queue's timeout passed after {milliseconds:.1} ms in the queue");
    Status::new(Code::DeadlineExceeded, message)
}
