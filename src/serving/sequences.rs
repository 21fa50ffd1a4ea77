//! The sequences of one stateful version: each request waits for its turn, takes what its sequence
//! has kept, and leaves what came of it.

mod table;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use self::table::{Bounds, Granted, Refused, Table, Wait};
use super::request::InSequence;
use super::stateful::Stateful;
use super::ticket::{late, timed_out};
use crate::clock::{Clock, Moment};
use crate::model::{SequencePolicy, TimeoutAction, VersionId};
use crate::status::Status;
use crate::tensor::Tensor;

/// The sequences of one stateful version.
pub(super) struct Sequences {
    id: VersionId,
    pub(super) stateful: Arc<Stateful>,
    bounds: Bounds,
    table: Mutex<Table>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Sequences {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Sequences").finish_non_exhaustive()
    }
}

impl Sequences {
    /// No sequences yet, of a version with so many instances, for which so many requests may wait.
    pub(super) fn new(
        id: VersionId,
        stateful: Arc<Stateful>,
        policy: &SequencePolicy,
        instances: usize,
        waiting: usize,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let bounds = Bounds {
            sequences: policy.places(instances),
            waiting,
            idle: policy.max_idle,
        };
        Self {
            id,
            stateful,
            bounds,
            table: Mutex::new(Table::new(bounds)),
            clock,
        }
    }

    /// Sequences that are going on.
    pub(super) fn live(&self) -> usize {
        self.lock().live()
    }

    /// Waits until it is a request's turn, but no longer than its deadline and its queue's timeout let
    /// it. Requests of one sequence have theirs in the order in which this was first polled. Dropping it
    /// has the next follow and leaves the sequence as it was.
    pub(super) async fn leg(
        self: &Arc<Self>,
        sequence: Option<InSequence>,
        arrived: Moment,
        deadline: Option<Moment>,
        limit: Option<(Moment, TimeoutAction)>,
    ) -> Result<Leg, Status> {
        let sequence = sequence.ok_or_else(|| self.refuse_stateless())?;
        let limit = limit.filter(|(_, action)| *action == TimeoutAction::Reject);
        let timeout = limit.map(|(moment, _)| moment);
        let entered = self.lock().enter(arrived, &sequence.id, sequence.start);
        let entered = entered.map_err(|refused| self.refusal(refused, &sequence))?;
        let mut leg = Leg {
            sequences: Arc::clone(self),
            sequence,
            number: entered.number,
            states: Vec::new(),
            waited: false,
        };
        let states = match entered.wait {
            Wait::Over(states) => states,
            Wait::For(granted) => {
                leg.waited = true;
                let granted = self.wait(granted, arrived, deadline, timeout).await;
                let granted = granted.map_err(|status| self.about(&status, &leg.sequence))?;
                granted.map_err(|refused| self.refusal(refused, &leg.sequence))?
            }
        };
        leg.states = states.unwrap_or_else(|| self.stateful.initial());
        Ok(leg)
    }

    /// Ends every sequence: this version takes no more requests.
    pub(super) fn close(&self) {
        self.lock().close();
    }

    async fn wait(
        &self,
        mut granted: oneshot::Receiver<Granted>,
        arrived: Moment,
        deadline: Option<Moment>,
        timeout: Option<Moment>,
    ) -> Result<Granted, Status> {
        loop {
            let look = self.lock().look_again(self.clock.now());
            let wake = [deadline, timeout, look].into_iter().flatten().min();
            let sleep = async {
                match wake {
                    Some(moment) => self.clock.sleep_until(moment).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                granted = &mut granted => return Ok(granted.unwrap_or(Err(Refused::Closed))),
                () = sleep => {}
            }
            let now = self.clock.now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Err(late(now - arrived, Duration::ZERO));
            }
            if timeout.is_some_and(|timeout| timeout <= now) {
                return Err(timed_out(now - arrived));
            }
            self.lock().expire(now);
        }
    }

    fn about(&self, status: &Status, sequence: &InSequence) -> Status {
        let what = format_args!("{}: sequence {}", self.id, sequence.id);
        status.clone().about(what)
    }

    fn refuse_stateless(&self) -> Status {
        Status::invalid(format!(
            "{}: the model is stateful: parameter sequence_id has to name the request's sequence, by a \
             number that is not 0 or a text that is not empty",
            self.id
        ))
    }

    fn refusal(&self, refused: Refused, sequence: &InSequence) -> Status {
        let idle = self.bounds.idle.as_secs_f64() * 1e3;
        let status = match refused {
            Refused::NotStarted => Status::invalid(format!(
                "it has not begun, or has ended: its first request says sequence_start; it ends with \
                 sequence_end, after {idle} ms without a request (sequence.max_idle_ms), and when the \
                 version is replaced"
            )),
            Refused::Full => Status::exhausted(
                format!(
                    "{} requests wait already (max_queue_size) for the turn of their sequence, or for one \
                     of {} places (sequence.max_sequences)",
                    self.bounds.waiting, self.bounds.sequences
                ),
                self.bounds.idle,
            ),
            Refused::Closed => closed(),
        };
        self.about(&status, sequence)
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a request is told whose version goes while it waits.
fn closed() -> Status {
    Status::unavailable(
        "the version is being unloaded or replaced, and its sequences end with it; begin anew",
    )
}

/// A request's part of its sequence, from its arrival to its answer.
#[derive(Debug)]
pub(super) struct Leg {
    sequences: Arc<Sequences>,
    pub(super) sequence: InSequence,
    number: u64,
    /// What the sequence has kept.
    pub(super) states: Vec<Tensor>,
    /// Whether it had to wait for another's.
    pub(super) waited: bool,
}

impl Leg {
    /// The request has succeeded: keeps what is to be kept, and gives what the client sees.
    pub(super) fn finish(self, outputs: Vec<Tensor>) -> Result<Vec<Tensor>, Status> {
        let sequences = &self.sequences;
        let split = sequences.stateful.split(outputs);
        let (seen, states) = split.map_err(|status| sequences.about(&status, &self.sequence))?;
        let states = (!self.sequence.end).then_some(states);
        let now = sequences.clock.now();
        let mut table = sequences.lock();
        table.finish(now, &self.sequence.id, self.number, states);
        drop(table);
        Ok(seen)
    }
}

impl Drop for Leg {
    /// After [`Self::finish`] there is nothing left to leave.
    fn drop(&mut self) {
        let now = self.sequences.clock.now();
        let mut table = self.sequences.lock();
        table.leave(now, &self.sequence.id, self.number);
    }
}

#[cfg(test)]
mod tests;
