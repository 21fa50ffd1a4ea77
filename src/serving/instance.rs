//! One instance of a model on one device: runs a batch and answers its requests.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::journey::{Member, TraceContext, Trip};
use super::limiter::Permit;
use super::placing::Berth;
use super::profile::Loan;
use super::quickness::Quickness;
use super::stacking::Stacking;
use super::staging::Staging;
use super::statistics::Ledger;
use super::ticket::{Job, Outputs, input_bytes};
use super::watchdog::Watch;
use crate::backend::{Death, Executor, LoadError, RunError};
use crate::clock::{Clock, Moment, wall_nanoseconds};
use crate::device::DeviceId;
use crate::scheduler::{Batch, Load};
use crate::status::{Code, Status};
use crate::tensor::Tensor;

/// Makes an executor of the model anew, on the device that it had; with new weights, if those that it
/// had are lost.
pub(super) type Remake = Box<dyn FnMut(bool) -> Result<Box<dyn Executor>, LoadError> + Send>;

/// One instance of a model on one device. Whoever holds it may run it; there is one holder.
pub(super) struct Instance {
    name: String,
    /// The name of the device.
    device: Arc<str>,
    ledger: Arc<Ledger>,
    clock: Arc<dyn Clock>,
    pub(super) berth: Berth,
    executor: Box<dyn Executor>,
    /// What it runs with for a while in place of its own executor, which is in there meanwhile.
    loan: Option<Loan>,
    remake: Remake,
    stacking: Arc<Stacking>,
    staging: Staging,
    /// Whether its batches take little time, from stacking to slices.
    quickness: Quickness,
    /// What the last batch was and how long it took, until the scheduler has been told; none if it
    /// failed.
    pub(super) took: Option<(Load, Duration)>,
    /// What did not fit into memory, until the scheduler has been told.
    pub(super) too_large: Option<Load>,
    /// Who leaves next, and their jobs; here so that both are used again.
    pub(super) batch: Batch,
    pub(super) jobs: Vec<Job>,
    /// When its last batch began, and how many ran on the device then.
    started: (Moment, usize),
    /// Requests that stayed in the queue when they left.
    pub(super) stayed: usize,
    /// Whether the device's time goes on the version's account now.
    charged: bool,
    /// What its batch holds, if it has to.
    pub(super) permit: Option<Permit>,
    /// How long a run may take; the executor sees to it where it waits for a worker, else the watchdog.
    longest: Option<Duration>,
    /// Whether the executor waits for another process.
    waits: bool,
    pub(super) watch: Option<Arc<Watch>>,
    /// Whether it is back from a run that had hung, until the lane has been told.
    pub(super) is_back: bool,
}

impl Instance {
    pub(super) fn new(
        name: String,
        berth: Berth,
        executor: Box<dyn Executor>,
        remake: Remake,
        stacking: Arc<Stacking>,
        ledger: Arc<Ledger>,
        clock: Arc<dyn Clock>,
    ) -> Box<Self> {
        Box::new(Self {
            name,
            device: berth.device.id().to_string().into(),
            ledger,
            clock,
            berth,
            executor,
            loan: None,
            remake,
            stacking,
            staging: Staging::default(),
            quickness: Quickness::default(),
            took: None,
            too_large: None,
            batch: Batch::default(),
            jobs: Vec::new(),
            started: (Moment::ORIGIN, 1),
            stayed: 0,
            charged: false,
            permit: None,
            longest: None,
            waits: false,
            watch: None,
            is_back: false,
        })
    }

    /// From now on it serves, and no run is to take longer than this.
    pub(super) fn bound(&mut self, longest: Option<Duration>) {
        self.longest = longest;
        self.executor.bound(longest);
        self.waits = self.executor.waits();
        let watched = longest.filter(|_| !self.waits);
        self.watch = watched.map(Watch::new);
    }

    /// Why it can run no more, if its worker has ended while it had nothing to do.
    pub(super) fn ended(&self) -> Option<Broken> {
        if !self.waits {
            return None;
        }
        Some(self.broken_by(self.executor.death()?))
    }

    fn broken_by(&self, death: Death) -> Broken {
        Broken {
            status: Status::internal(format!("{}: {death}", self.name)),
            panicked: false,
            death: Some(death),
        }
    }

    pub(super) fn device(&self) -> &Arc<str> {
        &self.device
    }

    /// From here on the device's time is its version's.
    pub(super) fn begin(&mut self, now: Moment) {
        self.charged = self.berth.turn.begin(now);
    }

    /// Its batch has ended, and another is to follow at once or not. True if others may have waited
    /// for that.
    pub(super) fn end(&mut self, now: Moment, follows: bool) -> bool {
        let charged = std::mem::take(&mut self.charged);
        if charged {
            self.berth.turn.end(now, follows);
        }
        charged
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// So many were told in time that they would be late.
    pub(super) fn refused_early(&self, requests: usize) {
        self.ledger.refused_early(requests);
    }

    /// Whether a batch of so many bytes of inputs takes so little of the host's time that it need not
    /// change threads. One that has to hold resources may wait for them, which a request's own thread
    /// must not; nor may it hang, where somebody looks whether it does.
    pub(super) fn is_quick_with(&self, bytes: usize) -> bool {
        self.quickness.covers(bytes) && self.may_be_quick()
    }

    /// Whether its batches take so little, as they come.
    pub(super) fn is_quick(&self) -> bool {
        self.quickness.is_quick() && self.may_be_quick()
    }

    fn may_be_quick(&self) -> bool {
        self.berth.device.id() == DeviceId::Cpu
            && !self.waits
            && self.watch.is_none()
            && self.berth.stake.is_none()
    }

    /// Whether the batch that it has is one to run at once.
    pub(super) fn has_quick_batch(&self) -> bool {
        self.is_quick_with(bytes(&self.jobs))
    }

    /// Makes the executor anew; the error says why it cannot be.
    pub(super) fn mend(&mut self, broken: &Broken) -> Result<(), NotMended> {
        // A panic is ours, and does not touch the weights.
        let lost = !broken.panicked;
        self.executor =
            catch_unwind(AssertUnwindSafe(|| (self.remake)(lost))).map_err(|panic| {
                NotMended {
                    reason: said(&*panic),
                    death: None,
                }
            })??;
        self.executor.bound(self.longest);
        Ok(())
    }

    /// Answers every job that was put into `jobs`. If this instance can run no more, those that
    /// another may run are left there.
    pub(super) fn serve(&mut self) -> Result<(), Broken> {
        let mut jobs = std::mem::take(&mut self.jobs);
        if let Some(loan) = self.loan.as_mut().filter(|_| !jobs.is_empty()) {
            loan.runs();
        }
        let health = self.serve_batch(&mut jobs);
        self.jobs = jobs;
        match health.is_err() {
            // Who lent it sees that it broke.
            true => drop(self.give_back()),
            false => self.settle(),
        }
        health
    }

    /// Repays what was lent, if nobody waits for more.
    pub(super) fn settle(&mut self) {
        if self.loan.as_ref().is_some_and(Loan::is_over)
            && let Some(loan) = self.give_back()
        {
            loan.repay();
        }
    }

    /// Runs the next batches with another executor than its own.
    pub(super) fn borrow(&mut self, mut loan: Loan) {
        std::mem::swap(&mut self.executor, &mut loan.executor);
        self.loan = Some(loan);
    }

    /// Goes on with its own executor; the other one is in what is given back.
    pub(super) fn give_back(&mut self) -> Option<Loan> {
        let mut loan = self.loan.take()?;
        std::mem::swap(&mut self.executor, &mut loan.executor);
        Some(loan)
    }

    fn serve_batch(&mut self, jobs: &mut Vec<Job>) -> Result<(), Broken> {
        if jobs.is_empty() {
            return Ok(());
        }
        let start = self.clock.now();
        self.started = (start, self.berth.turn.enter());
        let load = self.stacking.load(jobs);
        let outcome = self.attempt(jobs, load);
        self.berth.turn.leave();
        match outcome {
            Ok(()) => {
                self.took = Some((load, self.clock.now() - start));
                Ok(())
            }
            // How long it took says nothing of the next.
            Err(Trouble::Hung) => Ok(()),
            Err(Trouble::Batch(status) | Trouble::Memory(status)) if jobs.len() == 1 => {
                self.fail(jobs, &status);
                Ok(())
            }
            Err(Trouble::Batch(_)) => self.serve_each(jobs),
            Err(Trouble::Memory(_)) => {
                self.too_large = Some(load);
                self.serve_halves(jobs)
            }
            Err(Trouble::Executor(broken)) => {
                self.fail_again(jobs, &broken);
                Err(broken)
            }
        }
    }

    /// A batch failed, and one of its members may be why: each runs again by itself, so that the
    /// poisonous one fails alone.
    fn serve_each(&mut self, jobs: &mut Vec<Job>) -> Result<(), Broken> {
        let mut rest = std::mem::take(jobs).into_iter();
        for job in rest.by_ref() {
            jobs.push(job);
            if let Err(broken) = self.serve_batch(jobs) {
                jobs.extend(rest);
                return Err(broken);
            }
            jobs.clear();
        }
        Ok(())
    }

    /// A batch did not fit into memory: its halves may.
    fn serve_halves(&mut self, jobs: &mut Vec<Job>) -> Result<(), Broken> {
        let mut second = jobs.split_off(jobs.len() / 2);
        let health = self.serve_batch(jobs);
        if health.is_err() {
            jobs.append(&mut second);
            return health;
        }
        jobs.clear();
        std::mem::swap(jobs, &mut second);
        self.serve_batch(jobs)
    }

    /// Runs the jobs as one batch. On success they are answered and gone; else they are still there.
    fn attempt(&mut self, jobs: &mut Vec<Job>, load: Load) -> Result<(), Trouble> {
        let start = self.clock.now();
        let device = self.berth.device.as_ref();
        let shapes = self.staging.stack(jobs, load, device, &self.stacking);
        let shapes = shapes.map_err(Trouble::Batch)?;
        let stacked = self.clock.now();
        if let Some(watch) = &self.watch {
            watch.begin(stacked, jobs);
        }
        let inputs = self.staging.inputs(jobs, &shapes, &self.stacking);
        let executor = &mut self.executor;
        let outcome = catch_unwind(AssertUnwindSafe(|| executor.run(&inputs)));
        drop(inputs);
        self.staging.trim();
        let hung = self.watch.as_ref().is_some_and(|watch| !watch.end(jobs));
        if hung {
            self.come_back(jobs);
        }
        let outputs = match outcome {
            Ok(Ok(_)) if hung => return Err(Trouble::Hung),
            Ok(Ok(outputs)) => outputs,
            Ok(Err(error)) => return Err(self.trouble(error)),
            Err(panic) => {
                let status = Status::internal(format!("{}: {}", self.name, said(&*panic)));
                let panicked = true;
                return Err(Trouble::Executor(Broken {
                    status,
                    panicked,
                    death: None,
                }));
            }
        };
        let ran = self.clock.now();
        let signature = self.executor.signature();
        let answers = self.stacking.slice(outputs, jobs, load, signature);
        let answers = answers.map_err(Trouble::Batch)?;
        let sliced = self.clock.now();
        self.quickness.saw(bytes(jobs), sliced - start);
        let trip = self.trip(jobs, load, [start, stacked, ran, sliced]);
        self.answer(jobs, answers, trip);
        Ok(())
    }

    /// From a run that was given up: its requests have been answered.
    fn come_back(&mut self, jobs: &mut Vec<Job>) {
        self.is_back = true;
        self.note_failure(jobs, Code::Internal);
        jobs.clear();
    }

    fn trouble(&self, error: RunError) -> Trouble {
        match error {
            RunError::Failed(reason) => Trouble::Batch(Status::internal(reason)),
            RunError::OutOfMemory(_) => {
                let message = format!("{}: {error}", self.name);
                Trouble::Memory(Status::new(Code::ResourceExhausted, message))
            }
            RunError::DeviceLost(_) => {
                let status = Status::unavailable(format!("{}: {error}", self.name));
                Trouble::Executor(Broken {
                    status,
                    panicked: false,
                    death: None,
                })
            }
            RunError::Died(death) => Trouble::Executor(self.broken_by(death)),
        }
    }

    /// What the jobs went through together; [`Ledger::ran`] numbers it.
    fn trip(&self, jobs: &[Job], load: Load, moments: [Moment; 4]) -> Trip {
        let [left, stacked, ran, ended] = moments;
        let member = |job: &Job| Member {
            rows: job.item.rows,
            arrived: job.arrived,
            deadline: job.item.deadline,
            level: job.item.level,
            context: job.context,
            awaited: !job.ticket.is_forsaken(),
        };
        let traced = jobs.iter().any(|job| job.context.is_some());
        let (_, beside) = self.started;
        let beside = (beside + self.berth.turn.running().max(1)) as f64 / 2.0;
        Trip {
            device_time: (ended - left).div_f64(beside),
            device: Arc::clone(&self.device),
            left,
            stacked,
            ran,
            ended,
            reason: self.batch.reason,
            rows: jobs.iter().map(|job| job.item.rows).sum(),
            run_rows: load.rows,
            own_tokens: own(jobs),
            run_tokens: load.rows * load.length,
            stayed: self.stayed,
            members: jobs.iter().map(member).collect(),
            context: traced.then(TraceContext::root),
            ..Trip::default()
        }
    }

    fn answer(&self, jobs: &mut Vec<Job>, answers: Vec<Vec<Tensor>>, trip: Trip) {
        let wall_milliseconds = wall_nanoseconds() / 1_000_000;
        let trip = self.ledger.ran(self.berth.group, trip, wall_milliseconds);
        for (job, tensors) in jobs.drain(..).zip(answers) {
            let trip = Arc::clone(&trip);
            job.ticket.answer(Ok(Outputs { tensors, trip }));
        }
    }

    /// Fails those under whom an executor broke before, unless they may owe it to their company this
    /// time: then they run alone. The others are run again.
    fn fail_again(&self, jobs: &mut Vec<Job>, broken: &Broken) {
        if broken.is_suspect() && jobs.len() > 1 {
            return;
        }
        let mut failed: Vec<Job> = jobs.extract_if(.., |job| job.retried).collect();
        self.fail(&mut failed, &broken.status);
    }

    fn note_failure(&self, jobs: &[Job], code: Code) {
        if jobs.is_empty() {
            return;
        }
        let (start, now) = (self.started.0, self.clock.now());
        let load = self.stacking.load(jobs);
        let mut trip = self.trip(jobs, load, [start, start, now, now]);
        trip.failed = Some(code);
        self.ledger.broke(self.berth.group, trip);
    }

    pub(super) fn fail(&self, jobs: &mut Vec<Job>, status: &Status) {
        self.note_failure(jobs, status.code);
        for job in jobs.drain(..) {
            job.ticket.answer(Err(status.clone()));
        }
    }
}

/// What went wrong with a batch.
enum Trouble {
    /// These inputs; the executor is well.
    Batch(Status),
    /// These inputs together; the executor is well.
    Memory(Status),
    /// The executor itself.
    Executor(Broken),
    /// It was so late that nobody waits for it any more.
    Hung,
}

/// Why an instance can run no more.
pub(super) struct Broken {
    pub(super) status: Status,
    /// Whether it was a panic of ours.
    pub(super) panicked: bool,
    /// The end of its worker, if that is why.
    pub(super) death: Option<Death>,
}

impl Broken {
    /// Whether one of the inputs may be why.
    pub(super) fn is_suspect(&self) -> bool {
        self.panicked || self.death.is_some()
    }
}

/// Why an instance is not whole again.
#[derive(Debug)]
pub(super) struct NotMended {
    pub(super) reason: String,
    /// The end of the worker that was started for it, if that is why.
    pub(super) death: Option<Death>,
}

impl From<LoadError> for NotMended {
    fn from(error: LoadError) -> Self {
        Self {
            reason: error.to_string(),
            death: match error {
                LoadError::Died(death) => Some(death),
                _ => None,
            },
        }
    }
}

fn bytes(jobs: &[Job]) -> usize {
    jobs.iter().map(|job| input_bytes(&job.inputs)).sum()
}

/// Rows times their own lengths.
fn own(jobs: &[Job]) -> usize {
    let items = jobs.iter().map(|job| job.item);
    items.map(|item| item.rows * item.length).sum()
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panicked: {}", text.unwrap_or_default())
}
