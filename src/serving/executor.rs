//! One OS thread for each model instance: pulls batches, stacks, runs, slices, answers.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::lane::{Job, Lane, Timing};
use super::statistics::Ledger;
use crate::backend::{Executor, Input, LoadError, RunError};
use crate::clock::{Clock, Moment, wall_nanoseconds};
use crate::device::{Device, HostMemory, SharedDevice};
use crate::model::Signature;
use crate::scheduler::Batch;
use crate::status::Status;
use crate::tensor::{Shape, Slicer, Tensor};

/// First pause before an executor that went down is made again; doubles up to [`MOST_BACKOFF`].
const LEAST_BACKOFF: Duration = Duration::from_millis(50);
const MOST_BACKOFF: Duration = Duration::from_secs(5);

/// The largest staging buffer that is kept for the next batch.
const MOST_KEPT: usize = 64 << 20;

/// Makes an instance of the model anew, on the device that it had.
pub(super) type Remake = Box<dyn FnMut() -> Result<Box<dyn Executor>, LoadError> + Send>;

/// Everything that one executor's thread owns.
pub(super) struct ExecutorThread {
    pub(super) name: String,
    pub(super) lane: Arc<Lane>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) device: SharedDevice,
    pub(super) executor: Box<dyn Executor>,
    pub(super) remake: Remake,
    pub(super) batched: bool,
    pub(super) staging: Staging,
}

impl ExecutorThread {
    /// Runs until the lane is closed and empty.
    pub(super) fn run(mut self) {
        let mut batch = Batch::default();
        let mut jobs = Vec::new();
        while self.lane.next(&mut batch, &mut jobs) {
            let health = self.serve(&mut jobs);
            jobs.clear();
            if let Err(reason) = health
                && !self.come_back(&reason)
            {
                return;
            }
        }
    }

    /// Answers every job; an error says why this executor can run no more.
    fn serve(&mut self, jobs: &mut Vec<Job>) -> Result<(), String> {
        match self.attempt(jobs) {
            Ok(()) => Ok(()),
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

    /// Tries until the executor is whole again; false if the lane closed first.
    fn come_back(&mut self, reason: &str) -> bool {
        tracing::error!(executor = self.name, reason, "executor down");
        self.lane.executor_down(reason);
        let mut pause = LEAST_BACKOFF;
        loop {
            match catch_unwind(AssertUnwindSafe(|| (self.remake)())) {
                Ok(Ok(executor)) => {
                    self.executor = executor;
                    self.lane.executor_up();
                    tracing::info!(executor = self.name, "executor is back");
                    return true;
                }
                Ok(Err(error)) => tracing::warn!(executor = self.name, %error, "not back yet"),
                Err(panic) => {
                    tracing::warn!(executor = self.name, error = said(&*panic), "not back yet");
                }
            }
            if self.lane.closed_within(pause) {
                return false;
            }
            pause = (pause * 2).min(MOST_BACKOFF);
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

/// Buffers into which batches are stacked, one for each input, used again for every batch.
#[derive(Default)]
pub(super) struct Staging {
    buffers: Vec<Option<Box<dyn HostMemory>>>,
    /// Where the input's bytes are: its length in the buffer, or none if the one job's own will do.
    lengths: Vec<Option<usize>>,
}

impl Staging {
    /// Puts the jobs' rows behind each other and gives the shape of each whole input. A single job
    /// whose bytes are aligned is left where it is.
    pub(super) fn stack(
        &mut self,
        jobs: &[Job],
        device: &dyn Device,
        batched: bool,
    ) -> Result<Vec<Shape>, Status> {
        self.lengths.clear();
        let Some(first) = jobs.first() else {
            return Ok(Vec::new());
        };
        let rows: usize = jobs.iter().map(|job| job.rows).sum();
        let mut shapes = Vec::with_capacity(first.inputs.len());
        for (index, tensor) in first.inputs.iter().enumerate() {
            let shape = if batched {
                tensor
                    .shape
                    .with_rows(i64::try_from(rows).unwrap_or(i64::MAX))
            } else {
                tensor.shape.clone()
            };
            let length = if jobs.len() == 1 && is_aligned(tensor) {
                None
            } else {
                Some(self.fill(index, jobs, &shape, device)?)
            };
            self.lengths.push(length);
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// The inputs as the backend takes them.
    pub(super) fn inputs<'a>(&'a self, jobs: &'a [Job], shapes: &'a [Shape]) -> Vec<Input<'a>> {
        let Some(first) = jobs.first() else {
            return Vec::new();
        };
        let tensors = first.inputs.iter().zip(shapes).zip(&self.lengths);
        tensors
            .enumerate()
            .map(|(index, ((tensor, shape), length))| Input {
                dtype: tensor.dtype,
                shape,
                data: match length {
                    None => &tensor.data,
                    Some(length) => self.staged(index, *length),
                },
            })
            .collect()
    }

    /// Gives back buffers that one very large batch has left behind.
    fn trim(&mut self) {
        for buffer in &mut self.buffers {
            if buffer
                .as_ref()
                .is_some_and(|buffer| buffer.as_slice().len() > MOST_KEPT)
            {
                *buffer = None;
            }
        }
    }

    fn staged(&self, index: usize, length: usize) -> &[u8] {
        let buffer = self.buffers.get(index).and_then(Option::as_ref);
        buffer
            .and_then(|buffer| buffer.as_slice().get(..length))
            .unwrap_or(&[])
    }

    fn fill(
        &mut self,
        index: usize,
        jobs: &[Job],
        shape: &Shape,
        device: &dyn Device,
    ) -> Result<usize, Status> {
        let parts = || jobs.iter().filter_map(|job| job.inputs.get(index));
        let length: usize = parts().map(|tensor| tensor.data.len()).sum();
        check_stack(parts(), shape)?;
        let buffer = self.buffer(index, length, device)?;
        let mut rest = buffer.as_mut_slice();
        for tensor in parts() {
            let Some((head, tail)) = rest.split_at_mut_checked(tensor.data.len()) else {
                return Err(Status::internal("a staging buffer is too small"));
            };
            head.copy_from_slice(&tensor.data);
            rest = tail;
        }
        Ok(length)
    }

    fn buffer(
        &mut self,
        index: usize,
        length: usize,
        device: &dyn Device,
    ) -> Result<&mut Box<dyn HostMemory>, Status> {
        if self.buffers.len() <= index {
            self.buffers.resize_with(index + 1, || None);
        }
        let lost = || Status::internal("a staging buffer is missing");
        let place = self.buffers.get_mut(index).ok_or_else(lost)?;
        if place
            .as_ref()
            .is_none_or(|buffer| buffer.as_slice().len() < length)
        {
            let memory = device.staging(length.next_power_of_two());
            *place = Some(memory.map_err(|error| Status::internal(error.to_string()))?);
        }
        place.as_mut().ok_or_else(lost)
    }
}

/// Whether the backend can read the elements where they are.
fn is_aligned(tensor: &Tensor) -> bool {
    match tensor.dtype.size() {
        Some(size) => (tensor.data.as_ptr() as usize).is_multiple_of(size),
        // Strings are read byte by byte.
        None => true,
    }
}

/// Guards against two shapes in one batch, which the scheduler's classes rule out.
fn check_stack<'a>(
    mut parts: impl Iterator<Item = &'a Tensor>,
    shape: &Shape,
) -> Result<(), Status> {
    if parts.all(|tensor| tensor.shape.get(1..) == shape.get(1..)) {
        Ok(())
    } else {
        Err(Status::internal("a batch of different shapes"))
    }
}
