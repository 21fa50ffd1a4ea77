//! Where one request's answer arrives, and how it leaves the queue.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::Lane;
use crate::scheduler::ItemId;
use crate::serving::order::Turn;
use crate::serving::ticket::{Answer, Outputs};
use crate::status::Status;

/// Where one request's answer arrives.
#[derive(Debug)]
pub(in crate::serving) struct Seat {
    pub(super) lane: Arc<Lane>,
    pub(super) id: ItemId,
    pub(super) receiver: oneshot::Receiver<Answer>,
    pub(super) answered: bool,
    /// Whether the request's own thread is to run the batch.
    pub(super) quick: bool,
    /// When the answer may leave, if that matters.
    pub(in crate::serving) turn: Option<Turn>,
}

impl Seat {
    /// Waits for the answer. If batches are quick, runs one itself rather than wake a thread to do
    /// it, once every other request that has been received is queued too.
    pub(in crate::serving) async fn answer(&mut self, alone: bool) -> Result<Outputs, Status> {
        if std::mem::take(&mut self.quick) {
            if !alone {
                tokio::task::yield_now().await;
            }
            if self.receiver.is_empty() {
                self.lane.drive();
            }
        }
        let answer = (&mut self.receiver).await;
        self.answered = true;
        let answer =
            answer.unwrap_or_else(|_| Err(Status::internal("the executor gave no answer")));
        let outputs = answer?;
        let now = self.lane.clock.now();
        self.lane.delivery.saw(now, now - outputs.trip.ended);
        Ok(outputs)
    }
}

impl Seat {
    /// Gives up, if the request is still queued. False if it is not, and will be answered.
    pub(in crate::serving) fn leave(&mut self) -> bool {
        let left = self.lane.cancel(self.id);
        self.answered |= left;
        left
    }

    /// Lets all others go first.
    pub(in crate::serving) fn step_back(&mut self) {
        self.id = self.lane.step_back(self.id);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.answered {
            self.lane.cancel(self.id);
        }
    }
}
