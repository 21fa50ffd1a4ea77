//! One instance of a model on one device: runs a batch and answers its requests.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::lane::{Job, Timing};
use super::staging::Staging;
use super::statistics::Ledger;
use crate::backend::{Executor, LoadError, RunError};
use crate::clock::{Clock, Moment, wall_nanoseconds};
use crate::device::{DeviceId, SharedDevice};
use crate::model::Signature;
use crate::scheduler::Batch;
use crate::status::Status;
use crate::tensor::{Slicer, Tensor};

/// A batch that takes less than this is run by the thread that received the request: waking another
/// would take longer.
const QUICK: Duration = Duration::from_micros(50);

/// Makes an instance of the model anew, on the device that it had.
pub(super) type Remake = Box<dyn FnMut() -> Result<Box<dyn Executor>, LoadError> + Send>;

/// One instance of a model on one device. Whoever holds it may run it; there is one holder.
pub(super) struct Instance {
    name: String,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    device: SharedDevice,
    executor: Box<dyn Executor>,
    remake: Remake,
    batched: bool,
    staging: Staging,
    /// Smoothed time of a batch, from stacking to slices; none before the first.
    typical: Option<Duration>,
    /// Which executors are as fast as this one; see [`crate::scheduler::Batcher`].
    pub(super) group: usize,
    /// How long the last batch took, until the scheduler has been told; none if it failed.
    pub(super) took: Option<Duration>,
    /// Who leaves next, and their jobs; here so that both are used again.
    pub(super) batch: Batch,
    pub(super) jobs: Vec<Job>,
}

impl Instance {
    pub(super) fn new(
        name: String,
        device: SharedDevice,
        executor: Box<dyn Executor>,
        remake: Remake,
        batched: bool,
        ledger: Arc<Ledger>,
        clock: Arc<dyn Clock>,
    ) -> Box<Self> {
        Box::new(Self {
            name,
            ledger,
            clock,
            device,
            executor,
            remake,
            batched,
            staging: Staging::default(),
            typical: None,
            group: 0,
            took: None,
            batch: Batch::default(),
            jobs: Vec::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether a batch takes so little of the host's time that it need not change threads.
    pub(super) fn is_quick(&self) -> bool {
        self.device.id() == DeviceId::Cpu && self.typical.is_some_and(|typical| typical < QUICK)
    }

    /// Makes the executor anew; the error says why it cannot be.
    pub(super) fn mend(&mut self) -> Result<(), String> {
        self.executor = catch_unwind(AssertUnwindSafe(|| (self.remake)()))
            .map_err(|panic| said(&*panic))?
            .map_err(|error| error.to_string())?;
        Ok(())
    }

    /// Answers every job that was put into `jobs`; an error says why this instance can run no more.
    pub(super) fn serve(&mut self) -> Result<(), String> {
        let mut jobs = std::mem::take(&mut self.jobs);
        let health = self.serve_batch(&mut jobs);
        jobs.clear();
        self.jobs = jobs;
        health
    }

    fn serve_batch(&mut self, jobs: &mut Vec<Job>) -> Result<(), String> {
        let start = self.clock.now();
        match self.attempt(jobs) {
            Ok(()) => {
                self.took = Some(self.clock.now() - start);
                Ok(())
            }
            Err(Trouble::Batch(status)) if jobs.len() == 1 => {
                self.fail(jobs, &status);
                Ok(())
            }
            Err(Trouble::Batch(_)) => self.serve_alone(jobs),
            Err(Trouble::Executor(status)) => {
                self.fail(jobs, &status);
                Err(status.message)
            }
        }
    }

    /// A batch failed, and one of its members may be why: each runs again by itself, so that the
    /// poisonous one fails alone.
    fn serve_alone(&mut self, jobs: &mut Vec<Job>) -> Result<(), String> {
        let mut health = Ok(());
        for job in jobs.drain(..) {
            let mut alone = vec![job];
            let result = match &health {
                Ok(()) => self.attempt(&mut alone),
                Err(reason) => Err(Trouble::Batch(Status::unavailable(reason))),
            };
            match result {
                Ok(()) => {}
                Err(Trouble::Batch(status)) => self.fail(&mut alone, &status),
                Err(Trouble::Executor(status)) => {
                    self.fail(&mut alone, &status);
                    health = Err(status.message);
                }
            }
        }
        health
    }

    /// Runs the jobs as one batch. On success they are answered and gone; else they are still there.
    fn attempt(&mut self, jobs: &mut Vec<Job>) -> Result<(), Trouble> {
        let start = self.clock.now();
        let shapes = self.staging.stack(jobs, self.device.as_ref(), self.batched);
        let shapes = shapes.map_err(Trouble::Batch)?;
        let stacked = self.clock.now();
        let inputs = self.staging.inputs(jobs, &shapes);
        let executor = &mut self.executor;
        let outcome = catch_unwind(AssertUnwindSafe(|| executor.run(&inputs)));
        drop(inputs);
        self.staging.trim();
        let outputs = match outcome {
            Ok(Ok(outputs)) => outputs,
            Ok(Err(RunError::Failed(reason))) => {
                return Err(Trouble::Batch(Status::internal(reason)));
            }
            Ok(Err(lost @ RunError::DeviceLost(_))) => {
                let status = Status::unavailable(format!("{}: {lost}", self.name));
                return Err(Trouble::Executor(status));
            }
            Err(panic) => {
                let status = Status::internal(format!("{}: {}", self.name, said(&*panic)));
                return Err(Trouble::Executor(status));
            }
        };
        let ran = self.clock.now();
        let answers = slice(outputs, jobs, self.batched, self.executor.signature());
        let answers = answers.map_err(Trouble::Batch)?;
        let sliced = self.clock.now();
        let timing = Timing {
            queue: Duration::ZERO,
            stack: stacked - start,
            execute: ran - stacked,
            slice: sliced - ran,
        };
        self.typical = smoothed(self.typical, sliced - start);
        self.answer(jobs, answers, timing, start, sliced);
        Ok(())
    }

    fn answer(
        &self,
        jobs: &mut Vec<Job>,
        answers: Vec<Vec<Tensor>>,
        timing: Timing,
        start: Moment,
        end: Moment,
    ) {
        let rows = jobs.iter().map(|job| job.rows).sum();
        self.ledger
            .ran(rows, timing, wall_nanoseconds() / 1_000_000);
        self.ledger.succeeded(jobs.iter().map(|job| {
            let queue = start - job.arrived;
            (end - job.arrived, Timing { queue, ..timing })
        }));
        for (job, outputs) in jobs.drain(..).zip(answers) {
            job.ticket.answer(Ok(outputs));
        }
    }

    fn fail(&self, jobs: &mut Vec<Job>, status: &Status) {
        let now = self.clock.now();
        for job in jobs.drain(..) {
            self.ledger.failed(now - job.arrived);
            job.ticket.answer(Err(status.clone()));
        }
    }
}

/// What went wrong with a batch.
enum Trouble {
    /// These inputs; the executor is well.
    Batch(Status),
    /// The executor itself.
    Executor(Status),
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}

/// Cuts a batch's outputs into each job's share.
fn slice(
    outputs: Vec<Tensor>,
    jobs: &[Job],
    batched: bool,
    signature: &Signature,
) -> Result<Vec<Vec<Tensor>>, Status> {
    if !batched {
        return Ok(vec![outputs]);
    }
    let rows = jobs.iter().map(|job| job.rows).sum();
    let mut shares: Vec<Vec<Tensor>> = jobs
        .iter()
        .map(|_| Vec::with_capacity(outputs.len()))
        .collect();
    for (output, spec) in outputs.into_iter().zip(&signature.outputs) {
        let cannot = |error| {
            Status::internal(format!(
                "output {spec}: {error}; set batch_axis = \"none\" in model.toml if rows are not independent"
            ))
        };
        let mut slicer = Slicer::new(output, rows).map_err(cannot)?;
        for (job, share) in jobs.iter().zip(&mut shares) {
            share.push(slicer.take(job.rows).map_err(cannot)?);
        }
    }
    Ok(shares)
}

/// An eighth of the way from what was typical to what was just seen.
fn smoothed(typical: Option<Duration>, seen: Duration) -> Option<Duration> {
    Some(typical.map_or(seen, |typical| (typical * 7 + seen) / 8))
}
