//! The only door: every request of every frontend comes through here.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use super::cache::{Cached, Question};
use super::catalog::{Catalog, Version};
use super::classification::classify;
use super::ensemble::{Bound, Ensemble};
use super::inputs::Checked;
use super::journey::{Journey, TraceContext};
use super::lane::{Refused, Seat};
use super::request::{InferRequest, InferResponse, OutputTensor};
use super::sequences::Sequences;
use super::ticket::{Outputs, late, overdue, timed_out};
use crate::clock::{Clock, Moment, wall_nanoseconds};
use crate::model::{QueuePolicy, TimeoutAction};
use crate::scheduler::{Item, Rejected};
use crate::status::{Code, Status};
use crate::tensor::Tensor;

/// The least time after which trying again makes sense when a queue is full.
const LEAST_RETRY: Duration = Duration::from_millis(10);

/// The only door: picks the version, checks, queues, waits, answers.
#[derive(Clone)]
pub struct Engine {
    catalog: Arc<Catalog>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Engine {
    /// An engine over what is in `catalog`.
    pub fn new(catalog: Arc<Catalog>, clock: Arc<dyn Clock>) -> Self {
        Self { catalog, clock }
    }

    /// What is served.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The clock by which deadlines are meant.
    pub fn clock(&self) -> &dyn Clock {
        self.clock.as_ref()
    }

    /// The same, for whoever outlives this.
    pub fn shared_clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Answers one request. Dropping the future takes the request out of its queue.
    /// What it goes through is noted in `journey`.
    pub async fn infer(
        &self,
        mut request: InferRequest,
        journey: &mut Journey,
    ) -> Result<InferResponse, Status> {
        let version = self.catalog.resolve(&request.model, &request.version);
        let version = version.inspect_err(|_| journey.answered = self.clock.now())?;
        let answer = self.answer(version, &mut request, journey).await;
        journey.answered = self.clock.now();
        let mut answer = answer?;
        if let Some(version) = &journey.version {
            classify(version, &request.classes, &mut answer)?;
        }
        Ok(answer)
    }

    /// A request is done with: its answer was written at `encoded`, or it was told this.
    pub fn ended(&self, journey: &Journey, code: Option<Code>, encoded: Option<Moment>) {
        if let Some(version) = &journey.version {
            let objective = version.objective();
            version.ledger.ended(journey, objective, code, encoded);
        }
    }

    async fn answer(
        &self,
        version: Arc<Version>,
        request: &mut InferRequest,
        journey: &mut Journey,
    ) -> Result<InferResponse, Status> {
        journey.version = Some(Arc::clone(&version));
        let version = &version;
        let checked = version.check.check(request, version.max_batch_size())?;
        journey.rows = checked.rows;
        if let Some(ensemble) = version.ensemble() {
            let run = self.pass(ensemble, version, request, checked, journey);
            return run.await;
        }
        let terms = Terms::of(request, version, journey);
        if let Some(sequences) = &version.sequences {
            let sequences = Arc::clone(sequences);
            let going = self.go_on(request, version, sequences, checked, terms, journey);
            return Box::pin(going).await;
        }
        let Some(cached) = &version.cached else {
            return self.run(version, request, checked, terms, journey).await;
        };
        let question = cached.question(&version.signature, &checked);
        if let Some(outputs) = self.recall(version, cached, &question, &terms)? {
            journey.cached = true;
            return Ok(response(version, request, outputs));
        }
        let answer = self.run(version, request, checked, terms, journey).await?;
        self.keep(version, cached, question, &answer);
        Ok(answer)
    }

    /// What is in the cache, told as late as anything else would be.
    fn recall(
        &self,
        version: &Version,
        cached: &Cached,
        question: &Question,
        terms: &Terms,
    ) -> Result<Option<Vec<OutputTensor>>, Status> {
        let found = cached.find(question);
        let now = self.clock.now();
        let took = now - terms.arrived;
        if found.is_none() {
            version.ledger.missed(took);
        } else if terms.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(late(took, Duration::ZERO));
        } else {
            let milliseconds = wall_nanoseconds() / 1_000_000;
            version.ledger.hit(took, took, milliseconds);
        }
        Ok(found)
    }

    /// Keeps an answer. Whoever asked the same meanwhile has run too: one that waited for the other
    /// would share its failure, its deadline and its place in the queue.
    fn keep(&self, version: &Version, cached: &Cached, question: Question, answer: &InferResponse) {
        // One that was replaced had a newer one answer in its place.
        if version.runner.is_closed() {
            return;
        }
        let start = self.clock.now();
        cached.keep(question, &answer.outputs);
        version.ledger.kept(self.clock.now() - start);
    }

    /// Has a lane run the request.
    async fn run(
        &self,
        version: &Arc<Version>,
        request: &mut InferRequest,
        mut checked: Checked,
        terms: Terms,
        journey: &mut Journey,
    ) -> Result<InferResponse, Status> {
        let mut seat = match queue(version, terms.arrived, &terms, &mut checked) {
            Err(Refused::Closed) => {
                // Replaced between the look and the queue.
                let newer = self.catalog.resolve(&request.model, &request.version)?;
                if Arc::ptr_eq(&newer, version) {
                    return Err(self.refusal(version, Refused::Closed));
                }
                version.check.give_back(checked, request);
                return self.answer_by(newer, request, journey).await;
            }
            queued => queued.map_err(|refused| self.refusal(version, refused))?,
        };
        let outputs = self
            .in_turn(&mut seat, &terms, request.alone, journey)
            .await?;
        let outputs = chosen(version, wanted(&outputs, &checked));
        Ok(response(version, request, outputs))
    }

    /// Answers a request by the version that has replaced its own, and may take and give something else. Boxed,
    /// because it comes back to whoever calls it.
    fn answer_by<'a>(
        &'a self,
        newer: Arc<Version>,
        request: &'a mut InferRequest,
        journey: &'a mut Journey,
    ) -> Pin<Box<dyn Future<Output = Result<InferResponse, Status>> + Send + 'a>> {
        Box::pin(self.answer(newer, request, journey))
    }

    /// Answers one request of a sequence, when it is its turn.
    async fn go_on(
        &self,
        request: &mut InferRequest,
        version: &Arc<Version>,
        sequences: Arc<Sequences>,
        mut checked: Checked,
        mut terms: Terms,
        journey: &mut Journey,
    ) -> Result<InferResponse, Status> {
        let wrong = |what| Status::invalid(format!("{}: {what}", version.id));
        if checked.rows != 1 {
            let rows = checked.rows;
            return Err(wrong(format!(
                "a request of a sequence has 1 row, and {rows} came"
            )));
        }
        let (arrived, deadline) = (terms.arrived, terms.deadline);
        let leg = sequences.leg(request.sequence.take(), arrived, deadline, terms.limit);
        let leg = leg.await?;
        let stateful = &sequences.stateful;
        let sent = std::mem::take(&mut checked.inputs);
        checked.inputs = stateful
            .inputs(sent, &leg.sequence, &leg.states)
            .map_err(wrong)?;
        checked.class = stateful.class(checked.class, &leg.states);
        let queued = match leg.waited {
            true => self.clock.now(),
            false => arrived,
        };
        // What it waited for before is no reason to let others go first now.
        let over = |limit: &mut (_, _)| limit.0 <= queued && limit.1 == TimeoutAction::Delay;
        terms.limit.take_if(over);
        let mut seat = queue(version, queued, &terms, &mut checked)
            .map_err(|refused| self.refusal(version, refused))?;
        let alone = request.alone && !leg.waited;
        let outputs = self.in_turn(&mut seat, &terms, alone, journey).await?;
        let outputs = leg.finish(outputs)?;
        let outputs = chosen(version, wanted(&outputs, &checked));
        Ok(response(version, request, outputs))
    }

    /// Answers a request of an ensemble. Boxed, because the steps come back to this engine, and so that
    /// requests of other models need no room for it.
    fn pass<'a>(
        &'a self,
        ensemble: &'a Ensemble,
        version: &'a Version,
        request: &'a mut InferRequest,
        checked: Checked,
        journey: &'a mut Journey,
    ) -> Pin<Box<dyn Future<Output = Result<InferResponse, Status>> + Send + 'a>> {
        let now = journey.began;
        Box::pin(async move {
            let _place = ensemble
                .enter(request)
                .map_err(|bound| out_of_bounds(version, &bound))?;
            let default = version.policy.queue.default_priority;
            let shared = InferRequest {
                deadline: deadline(request, version, now),
                priority: request.priority.or(Some(default.into())),
                sequence: request.sequence.take(),
                alone: request.alone,
                nested: request.nested,
                ..InferRequest::default()
            };
            let wanted = checked.outputs;
            let run = ensemble.run(self, shared, checked.inputs, &wanted, journey);
            let outputs = run.await.map_err(|status| {
                version.ledger.failed(self.clock.now() - now);
                status.about(&version.id)
            })?;
            let total = self.clock.now() - now;
            version
                .ledger
                .passed(checked.rows, total, wall_nanoseconds() / 1_000_000);
            let outputs = chosen(version, wanted.into_iter().zip(outputs));
            Ok(response(version, request, outputs))
        })
    }

    /// Waits for an answer as long as the queue lets it, and until it is its turn to leave.
    async fn in_turn(
        &self,
        seat: &mut Seat,
        terms: &Terms,
        alone: bool,
        journey: &mut Journey,
    ) -> Result<Vec<Tensor>, Status> {
        let (arrived, deadline) = (terms.arrived, terms.deadline);
        let answer = match terms.limit {
            None => self.wait(seat, arrived, deadline, alone).await,
            Some(limit) => self.wait_until(limit, seat, arrived, deadline).await,
        };
        if let Some(turn) = &seat.turn
            && !turn.comes(self.clock.as_ref(), deadline).await
        {
            return Err(overdue(self.clock.now() - arrived));
        }
        let Outputs { tensors, trip } = answer?;
        journey.trip = Some(trip);
        Ok(tensors)
    }

    async fn wait(
        &self,
        seat: &mut Seat,
        arrived: Moment,
        deadline: Option<Moment>,
        alone: bool,
    ) -> Result<Outputs, Status> {
        let Some(deadline) = deadline else {
            return seat.answer(alone).await;
        };
        tokio::select! {
            biased;
            answer = seat.answer(alone) => answer,
            () = self.clock.sleep_until(deadline) => Err(overdue(self.clock.now() - arrived)),
        }
    }

    /// Waits for so long while the request is queued, and for its answer once it is not.
    async fn wait_until(
        &self,
        (moment, action): (Moment, TimeoutAction),
        seat: &mut Seat,
        arrived: Moment,
        deadline: Option<Moment>,
    ) -> Result<Outputs, Status> {
        tokio::select! {
            biased;
            answer = self.wait(seat, arrived, deadline, false) => return answer,
            () = self.clock.sleep_until(moment) => {}
        }
        match action {
            TimeoutAction::Reject if seat.leave() => {
                return Err(timed_out(self.clock.now() - arrived));
            }
            TimeoutAction::Reject => {}
            TimeoutAction::Delay => seat.step_back(),
        }
        self.wait(seat, arrived, deadline, false).await
    }

    fn refusal(&self, version: &Version, refused: Refused) -> Status {
        let id = &version.id;
        match refused {
            Refused::Closed => Status::unavailable(format!("{id} is being unloaded")),
            Refused::Down(reason) => {
                Status::unavailable(format!("{id}: no executor is alive: {reason}"))
            }
            Refused::Rejected(Rejected::Full) => Status::exhausted(
                format!(
                    "{id}: {} requests are queued (max_queue_size)",
                    version.policy.queue.max_queue_size
                ),
                retry_after(version),
            ),
            Refused::Rejected(Rejected::Late(expected)) => {
                if !expected.is_zero() {
                    version.ledger.refused_early(1);
                }
                late(Duration::ZERO, expected)
            }
            Refused::Rejected(Rejected::Rows) => {
                Status::invalid(format!("{id}: {}", Rejected::Rows))
            }
        }
    }
}

/// How a request waits.
struct Terms {
    arrived: Moment,
    context: Option<TraceContext>,
    deadline: Option<Moment>,
    level: u32,
    /// Until when it may be in the queue, and what then.
    limit: Option<(Moment, TimeoutAction)>,
}

impl Terms {
    fn of(request: &InferRequest, version: &Version, journey: &Journey) -> Self {
        let arrived = journey.began;
        let level = level(request.priority, &version.policy.queue);
        Self {
            arrived,
            context: journey.context,
            deadline: deadline(request, version, arrived),
            level,
            limit: limit(request, version, level, arrived),
        }
    }
}

fn deadline(request: &InferRequest, version: &Version, now: Moment) -> Option<Moment> {
    let queue = &version.policy.queue;
    // Where the queue has a timeout, the request's own is about the queue too.
    let own = request.timeout.filter(|_| queue.timeout.is_none());
    let own = own.map(|own| now + own);
    let asked = match (request.deadline, own) {
        (Some(call), Some(own)) => Some(call.min(own)),
        (call, own) => call.or(own),
    };
    asked.or(queue.default_deadline.map(|default| now + default))
}

/// Until when the request may be in the queue, and what then.
fn limit(
    request: &InferRequest,
    version: &Version,
    level: u32,
    now: Moment,
) -> Option<(Moment, TimeoutAction)> {
    let queue = &version.policy.queue;
    let mut priorities = queue.priorities.iter();
    let own = priorities.find(|priority| priority.level == level + 1);
    let timeout = own.map(|own| &own.timeout).or(queue.timeout.as_ref())?;
    let after = timeout.of(request.timeout)?;
    Some((now + after, timeout.action))
}

fn queue(
    version: &Arc<Version>,
    now: Moment,
    terms: &Terms,
    checked: &mut Checked,
) -> Result<Seat, Refused> {
    let item = Item {
        rows: checked.rows,
        length: checked.length,
        class: checked.class,
        deadline: terms.deadline,
        level: terms.level,
    };
    let inputs = &mut checked.inputs;
    version.runner.submit(now, item, terms.context, inputs)
}

/// The scheduler's level of a priority; one beyond the lowest is the lowest.
fn level(priority: Option<u64>, policy: &QueuePolicy) -> u32 {
    let priority = priority.map_or(policy.default_priority, |priority| {
        u32::try_from(priority).map_or(policy.priority_levels, |priority| {
            priority.clamp(1, policy.priority_levels)
        })
    });
    priority.saturating_sub(1)
}

fn out_of_bounds(version: &Version, bound: &Bound) -> Status {
    let id = &version.id;
    match bound {
        Bound::InFlight(most) => Status::exhausted(
            format!("{id}: {most} requests are in flight (max_in_flight)"),
            retry_after(version),
        ),
        Bound::Nested => Status::internal(format!("{id} is a part of itself")),
    }
}

/// When a full queue is likely to have room: the time that its batches took so far, each.
fn retry_after(version: &Version) -> Duration {
    version.ledger.mean_run().max(LEAST_RETRY)
}

/// The outputs that are wanted, by their positions.
fn wanted(outputs: &[Tensor], checked: &Checked) -> impl Iterator<Item = (usize, Tensor)> {
    let positions = checked.outputs.iter();
    positions.filter_map(|position| Some((*position, outputs.get(*position)?.clone())))
}

/// Outputs with their names.
fn chosen(version: &Version, outputs: impl Iterator<Item = (usize, Tensor)>) -> Vec<OutputTensor> {
    let named = outputs.filter_map(|(position, tensor)| {
        Some(OutputTensor {
            name: Arc::clone(version.output_names.get(position)?),
            tensor: version.check.seen(position, tensor),
            region: None,
        })
    });
    named.collect()
}

fn response(
    version: &Version,
    request: &mut InferRequest,
    outputs: Vec<OutputTensor>,
) -> InferResponse {
    InferResponse {
        model: Arc::clone(&version.id.model),
        version: version.id.version,
        id: std::mem::take(&mut request.id),
        outputs,
    }
}
