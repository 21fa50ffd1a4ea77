//! From an artifact to a version that serves: placed, loaded, tried, warmed.

mod failure;
mod plan;
mod version;
mod warming;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(super) use self::failure::LoadFailure;
use self::warming::{rehearse, run_together, warm};
use super::breaker::BreakerPolicy;
use super::budget::{Budget, Room};
use super::cache::ResponseCache;
use super::catalog::Version;
use super::changes::Changes;
use super::graph::Interface;
use super::limiter::{Limiter, Stake, TooMany};
use super::logbook::{Entry, Logbook};
use super::placing::{Placer, expected};
use super::progress::{Phase, Progress};
use super::site::{Made, Site};
use super::watchdog::Watchdog;
use crate::backend::{Artifact, Backend, LoadError, Placement};
use crate::clock::{Clock, Moment};
use crate::device::{Inventory, SharedDevice};
use crate::model::{BackendPolicy, DeviceChoice, InstanceGroup, ModelPolicy};
use crate::repository::Fingerprint;
use crate::scheduler::Load;

/// What can run models here.
#[derive(Clone)]
pub struct Backends {
    /// ONNX Runtime.
    pub onnx_runtime: Arc<dyn Backend>,
    /// The simulation.
    pub simulated: Arc<dyn Backend>,
    /// Which ONNX Runtime it is, and where it runs.
    pub about: String,
}

/// How far what goes wrong may go.
#[derive(Clone, Debug, Default)]
pub struct Containment {
    /// How long a run may take where a model does not say; none: for ever.
    pub executor_timeout: Option<Duration>,
    /// When a version whose workers die is left alone.
    pub breaker: BreakerPolicy,
    /// Looks after executors in threads of this process.
    pub watchdog: Arc<Watchdog>,
}

/// Loads versions. Blocks; for minutes if need be.
pub struct Loader {
    backends: Backends,
    placer: Placer,
    pub(super) clock: Arc<dyn Clock>,
    changes: Changes,
    pub(super) budget: Arc<Budget>,
    responses: Option<Arc<ResponseCache>>,
    limiter: Option<Arc<Limiter>>,
    logbook: Arc<Logbook>,
    containment: Containment,
}

/// A model on a device, not yet serving.
struct Loaded {
    site: Arc<Site>,
    made: Made,
    stake: Option<Arc<Stake>>,
    /// What took how long in the warm-up.
    times: Vec<(Load, Duration)>,
}

impl Loader {
    /// Whole milliseconds since `start`, for log lines.
    pub(super) fn took_ms(&self, start: Moment) -> u64 {
        (self.clock.now() - start).as_millis() as u64
    }

    /// A loader that places models on what `inventory` has, by `default_device` where a model does
    /// not say, and lets them take so much of each device's memory; all of it if none.
    pub fn new(
        backends: Backends,
        inventory: Arc<Inventory>,
        default_device: DeviceChoice,
        clock: Arc<dyn Clock>,
        changes: Changes,
        device_memory_bytes: Option<u64>,
    ) -> Self {
        Self {
            backends,
            placer: Placer::new(inventory, default_device),
            clock,
            changes,
            budget: Budget::new(device_memory_bytes),
            responses: None,
            limiter: None,
            logbook: Arc::default(),
            containment: Containment::default(),
        }
    }

    /// Has what loads take written down there.
    #[must_use]
    pub fn with_logbook(mut self, logbook: Logbook) -> Self {
        self.logbook = Arc::new(logbook);
        self
    }

    /// Keeps what goes wrong within these bounds.
    #[must_use]
    pub fn with_containment(mut self, containment: Containment) -> Self {
        self.containment = containment;
        self
    }

    /// Has the models that want it keep their answers here.
    #[must_use]
    pub fn with_response_cache(mut self, responses: Option<Arc<ResponseCache>>) -> Self {
        self.responses = responses;
        self
    }

    /// Has instances run only while they hold what they need.
    #[must_use]
    pub fn with_limiter(mut self, limiter: Option<Arc<Limiter>>) -> Self {
        self.limiter = limiter;
        self
    }

    /// What a version's load is written down by: whatever what it takes depends on.
    pub(super) fn key(&self, artifact: &Artifact, fingerprint: &Fingerprint) -> String {
        let Artifact { id, policy, .. } = artifact;
        let library = &self.backends.about;
        let cores = thread::available_parallelism().ok();
        let place = self.placer.about();
        let all = format!("{id:?} {fingerprint:?} {policy:?} {library} {cores:?} {place}");
        blake3::hash(all.as_bytes()).to_hex().to_string()
    }

    /// What the load of this key took before.
    pub(super) fn past(&self, key: &str) -> Option<Entry> {
        self.logbook.find(key)
    }

    /// Writes down what a load took.
    pub(super) fn note(&self, key: &str, loaded: &Version, progress: &Progress) {
        let (compile, warm_up) = progress.ends();
        let entry = Entry::of(compile, warm_up, &loaded.memory);
        self.logbook.note(key, entry);
    }

    /// Room for a version where it goes: beside other loads if it is known what it takes there, else
    /// once no other is under way, so that what it takes is measured.
    fn room(
        &self,
        artifact: &Artifact,
        backend: &dyn Backend,
        past: Option<&Entry>,
    ) -> Result<(Room<'_>, Vec<(Placement, InstanceGroup)>), LoadFailure> {
        let known = past.filter(|past| self.budget.is_limited() && !past.memory.is_empty());
        if let Some(past) = known {
            let mut room = self.budget.enter_beside();
            let placements = self.placer.placements(artifact, &room)?;
            let expected = expected(artifact, &placements, backend);
            if let Some(known) = measured(&expected, past) {
                room.reserve(&known)?;
                return Ok((room, placements));
            }
        }
        let mut room = self.budget.enter();
        let placements = self.placer.placements(artifact, &room)?;
        room.expect(&expected(artifact, &placements, backend))?;
        Ok((room, placements))
    }

    pub(super) fn load(
        &self,
        artifact: &Artifact,
        progress: &Progress,
    ) -> Result<Version, LoadFailure> {
        let backend = self.backend(&artifact.policy);
        let mut instances = Vec::new();
        progress.enter(Phase::Memory, 0);
        let past = progress.past();
        let (room, placements) = self.room(artifact, backend.as_ref(), past.as_ref())?;
        let stakes = self.stakes(&placements)?;
        let count = placements.iter().map(|(_, group)| group.count).sum();
        progress.enter(Phase::Compile, count);
        for ((mut placement, group), stake) in placements.into_iter().zip(stakes) {
            placement.device = backend.device(placement.device);
            let site = Arc::new(Site::new(Arc::clone(&backend), artifact, placement));
            for _ in 0..group.count {
                instances.push(Loaded {
                    stake: stake.clone(),
                    made: site.executor(None)?,
                    site: Arc::clone(&site),
                    times: Vec::new(),
                });
                progress.step();
            }
        }
        let Some(first) = instances.first_mut() else {
            return Err(LoadFailure::Axis("no instance is asked for".to_owned()));
        };
        progress.enter(Phase::WarmUp, 0);
        let plan = self.plan(first.made.executor.as_mut(), artifact)?;
        progress.expect(plan.buckets(self.clock.as_ref()) * instances.len());
        for instance in &mut instances {
            let executor = instance.made.executor.as_mut();
            instance.times = warm(executor, &plan, self.clock.as_ref(), &|| progress.step())?;
            rehearse(executor, &plan)?;
            // What a warm-up that nobody asked for does to it is no reason to refuse a model, but this is.
            if let Some(death) = instance.site.death() {
                return Err(LoadError::Died(death).into());
            }
        }
        if self.budget.is_limited() {
            run_together(&mut instances, &plan, self.clock.as_ref());
        }
        let claim = Arc::new(room.settle()?);
        self.start(&plan, instances, claim)
    }

    /// What a version takes and gives, and whether it would be batched, without serving it.
    pub fn inspect(&self, artifact: &Artifact) -> Result<Interface, String> {
        let inspect = || -> Result<_, LoadFailure> {
            let placements = self.placer.placements(artifact, &self.budget.enter())?;
            self.stakes(&placements)?;
            let Some((placement, _)) = placements.first() else {
                return Err(LoadFailure::Axis("no instance is asked for".to_owned()));
            };
            let weights = self.backend(&artifact.policy).load(artifact, placement)?;
            let mut executor = weights.executor()?;
            let plan = self.plan(executor.as_mut(), artifact)?;
            rehearse(executor.as_mut(), &plan)?;
            Ok(plan.interface())
        };
        inspect().map_err(|error| error.to_string())
    }

    /// What the instances of each placement have to hold, if anything.
    fn stakes(
        &self,
        placements: &[(Placement, InstanceGroup)],
    ) -> Result<Vec<Option<Arc<Stake>>>, TooMany> {
        let stake = |(placement, group): &(Placement, InstanceGroup)| {
            let join = |limiter: &Arc<Limiter>| limiter.join(placement.device.id(), group);
            self.limiter.as_ref().map_or(Ok(None), join)
        };
        placements.iter().map(stake).collect()
    }

    fn backend(&self, policy: &ModelPolicy) -> Arc<dyn Backend> {
        match policy.backend {
            BackendPolicy::OnnxRuntime(_) => Arc::clone(&self.backends.onnx_runtime) as _,
            BackendPolicy::Simulated(_) => Arc::clone(&self.backends.simulated) as _,
        }
    }
}

/// What a version took before on just these devices, and at least what is expected now; none if it was
/// on others.
fn measured(expected: &[(SharedDevice, u64)], past: &Entry) -> Option<Vec<(SharedDevice, u64)>> {
    let known = expected.iter().map(|(device, least)| {
        let before = past.memory.get(&device.id().to_string())?;
        Some((Arc::clone(device), *before.max(least)))
    });
    let known: Option<Vec<_>> = known.collect();
    known.filter(|known| known.len() == past.memory.len())
}
