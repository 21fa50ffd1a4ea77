//! From an artifact to a version that serves: placed, loaded, tried, warmed.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::breaker::{Breaker, BreakerPolicy};
use super::budget::{Budget, Claim, OverBudget, Room};
use super::cache::{Cached, ResponseCache};
use super::catalog::Version;
use super::changes::Changes;
use super::executor;
use super::facade::Facade;
use super::graph::Interface;
use super::inputs::InputCheck;
use super::instance::Instance;
use super::lane::{Lane, Levels};
use super::limiter::{Limiter, Stake, TooMany};
use super::logbook::{Entry, Logbook};
use super::optional;
use super::padding::Padding;
use super::placing::{Berth, Placer, expected};
use super::progress::{Phase, Progress};
use super::ragged::Ragged;
use super::rehearsal::Rehearsal;
use super::runner::Runner;
use super::sequences::Sequences;
use super::site::{Made, Site};
use super::stacking::Stacking;
use super::stateful::{self, Stateful};
use super::statistics::Ledger;
use super::trial::{GUESS, Trial, Verdict};
use super::watchdog::Watchdog;
use crate::backend::{Artifact, Backend, Executor, LoadError, Placement};
use crate::clock::{Clock, Moment, wall_nanoseconds};
use crate::device::{Inventory, SharedDevice, Unavailable};
use crate::model::{
    BackendPolicy, BatchAxis, Batching, DeviceChoice, InstanceGroup, ModelPolicy, Signature,
    WarmUpPolicy,
};
use crate::repository::Fingerprint;
use crate::scheduler::{Load, Policy};

/// Why a version does not serve.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoadFailure {
    #[error(transparent)]
    Device(#[from] Unavailable),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Memory(#[from] OverBudget),
    #[error(transparent)]
    Resource(#[from] TooMany),
    #[error("the configuration says that the first dimension counts rows (batch_axis), but {0}")]
    Axis(String),
    #[error(
        "rows of different lengths are to be padded ([padding], or allow_ragged_batch where inputs have \
         a batch dimension), but {0}"
    )]
    Padding(String),
    #[error("the configuration says that it is stateful ([sequence]), but {0}")]
    Sequence(String),
    #[error("the configuration names label files ([labels]), but {0}")]
    Labels(String),
    #[error("warm-up with what the configuration says failed: {0}")]
    WarmUp(String),
    #[error("{0}")]
    Tensors(String),
    #[error("requests are to be laid end to end ([ragged], allow_ragged_batch), but {0}")]
    Ragged(String),
    #[error("the configuration says that requests may leave inputs out (optional), but {0}")]
    Optional(String),
    #[error("no thread could be started: {0}")]
    Thread(#[from] std::io::Error),
}

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

/// How a version is served, once its model has been looked at and tried.
#[derive(Clone)]
struct Plan {
    /// With the policy's gaps filled in from the model.
    artifact: Artifact,
    /// What the model takes and gives.
    signature: Signature,
    /// How inputs are made up.
    warm_up: WarmUpPolicy,
    /// What of it is not the clients', if the model is stateful.
    stateful: Option<Arc<Stateful>>,
    batching: Batching,
    stacking: Arc<Stacking>,
    /// The model's own names of the outputs that answers are made of.
    output_names: Vec<Arc<str>>,
    /// What clients send and see.
    client: Signature,
    /// Between that and the model's own, where the configuration says other shapes.
    facade: Option<Facade>,
}

impl Plan {
    fn check(&self) -> InputCheck {
        let stacking = Arc::clone(&self.stacking);
        let check = InputCheck::new(&self.artifact.id.model, self.client.clone(), stacking);
        let check = check.leaving_out(&self.artifact.policy.tensors);
        check.behind(self.facade.clone())
    }

    fn trial<'a>(&'a self, clock: &'a dyn Clock) -> Trial<'a> {
        Trial {
            policy: &self.warm_up,
            tensors: &self.artifact.policy.tensors,
            stacking: &self.stacking,
            left_out: &[],
            guess: GUESS,
            clock,
        }
    }

    /// How many kinds of batches each instance is warmed up with.
    fn buckets(&self, clock: &dyn Clock) -> usize {
        let most = self.artifact.policy.batch.max_batch_size;
        let buckets = self.trial(clock).buckets(&self.signature, most);
        // One that cannot be made up says so when it is.
        let buckets = buckets.map_or(0, |buckets| buckets.len());
        buckets * optional::rounds(&self.artifact.policy, &self.signature)
    }

    /// What clients and ensembles see of it.
    fn interface(self) -> Interface {
        let policy = self.artifact.policy;
        Interface {
            signature: self.client,
            max_batch_size: match self.batching {
                Batching::Rows => policy.batch.max_batch_size,
                Batching::Alone(_) => 1,
            },
            batching: self.batching,
            spare: policy.spare().map(str::to_owned).collect(),
            together: self.stacking.together(),
            runs: 1,
        }
    }
}

/// Kept between the end of a batch and a deadline, for slicing, waking and sending.
const MARGIN: Duration = Duration::from_micros(200);

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

    /// Looks at the model and tries what its policy and its dimensions say.
    fn plan(&self, executor: &mut dyn Executor, artifact: &Artifact) -> Result<Plan, LoadFailure> {
        let mut artifact = artifact.clone();
        let mut signature = executor.signature().clone();
        let batch = &mut artifact.policy.batch;
        let batch_axis = batch.axis;
        // A model whose first dimension is fixed takes just that many rows.
        if let (BatchAxis::First, Some(rows), None) =
            (batch.axis, signature.fixed_rows(), &artifact.policy.ragged)
        {
            signature.vary_rows();
            batch.sizes = vec![rows];
            batch.max_batch_size = batch.max_batch_size.min(rows);
        }
        let mut stacking = Stacking {
            batched: true,
            sizes: artifact.policy.batch.sizes.clone(),
            padding: None,
            ragged: Ragged::of(&mut artifact.policy, &signature).map_err(LoadFailure::Ragged)?,
        };
        if let Some(policy) = &artifact.policy.padding {
            let padding = Padding::resolve(policy, &signature).map_err(LoadFailure::Padding)?;
            optional::check_padding(&artifact.policy, &signature, &padding)?;
            stacking.padding = Some(padding);
        }
        let warm_up = made_up(&artifact.policy, &signature, true);
        let trial = Trial {
            policy: &warm_up,
            tensors: &artifact.policy.tensors,
            stacking: &stacking,
            left_out: &[],
            guess: GUESS,
            clock: self.clock.as_ref(),
        };
        let batching = match &stacking.ragged {
            Some(ragged) => ragged.batching(executor, &artifact.policy, &trial)?,
            None => batching(&signature, executor, &artifact, &trial)?,
        };
        let batching = optional::batching(batching, executor, &artifact.policy, &trial)?;
        if let Some(padding) = &stacking.padding {
            check_padding(executor, &artifact, &batching, &trial, padding)?;
        }
        stacking.batched = batching.is_rows();
        let stateful = stateful(&artifact, &signature, stacking.batched)?;
        let laid = stacking.ragged.as_ref();
        let sent = laid.map_or(&signature, |ragged| &ragged.client);
        let sent = stateful.as_ref().map_or(sent, |it| &it.client);
        let names = sent.outputs.iter().map(|spec| spec.name.as_str().into());
        let output_names = names.collect();
        let seen = Facade::resolve(&artifact.policy.tensors, batch_axis, sent)
            .map_err(LoadFailure::Tensors)?;
        let (client, facade) = match seen {
            Some((seen, facade)) => (seen, Some(facade)),
            None => (sent.clone(), None),
        };
        if stacking.padding.is_some() && facade.as_ref().is_some_and(Facade::reshapes) {
            let message = "inputs or outputs have a reshape; take one of the two out";
            return Err(LoadFailure::Padding(message.to_owned()));
        }
        check_labels(&artifact, &client)?;
        Ok(Plan {
            warm_up: made_up(&artifact.policy, &signature, stacking.batched),
            artifact,
            signature,
            stateful,
            batching,
            stacking: Arc::new(stacking),
            output_names,
            client,
            facade,
        })
    }

    fn backend(&self, policy: &ModelPolicy) -> Arc<dyn Backend> {
        match policy.backend {
            BackendPolicy::OnnxRuntime(_) => Arc::clone(&self.backends.onnx_runtime) as _,
            BackendPolicy::Simulated(_) => Arc::clone(&self.backends.simulated) as _,
        }
    }

    fn start(
        &self,
        plan: &Plan,
        instances: Vec<Loaded>,
        claim: Arc<Claim>,
    ) -> Result<Version, LoadFailure> {
        let Plan {
            artifact,
            signature,
            client,
            batching,
            stacking,
            stateful,
            output_names,
            ..
        } = plan;
        let ledger: Arc<Ledger> = Arc::default();
        let site = instances.first().map(|one| Arc::clone(&one.site));
        let devices = instances.iter().map(|one| one.site.device());
        let weight = artifact.policy.queue.weight;
        let berths = self.placer.berths(devices, weight, &claim);
        let devices = berths.iter().map(|berth| berth.device.id().to_string());
        let devices: Vec<String> = devices.collect();
        let times = instances.iter().zip(&berths).flat_map(|(one, berth)| {
            let times = one.times.iter();
            times.map(|(load, took)| (berth.group, *load, *took))
        });
        let times: Vec<(usize, Load, Duration)> = times.collect();
        let numbered = instances.into_iter().zip(berths).enumerate();
        let instances: Vec<Box<Instance>> = numbered
            .map(|(number, (loaded, mut berth))| {
                berth.stake.clone_from(&loaded.stake);
                let name = format!("{} #{number} on {}", artifact.id, berth.device.id());
                self.instance(name, plan, loaded, berth, &ledger)
            })
            .collect();
        let memory = claim.bytes().iter();
        let memory = memory
            .map(|(device, bytes)| (device.to_string(), *bytes))
            .collect();
        let threads = instances.len();
        let lane = Lane::new(
            scheduling(&artifact.policy, stacking),
            instances,
            Arc::clone(&self.clock),
            self.changes.clone(),
            Breaker::new(self.containment.breaker),
        );
        self.containment.watchdog.add(&lane);
        let queue = &artifact.policy.queue;
        lane.bound(Levels::new(queue));
        for (group, load, took) in times {
            lane.seed(group, load, took);
        }
        let sequences = stateful.as_ref().zip(artifact.policy.sequence.as_ref());
        let sequences = sequences.map(|(stateful, policy)| {
            Arc::new(Sequences::new(
                artifact.id.clone(),
                Arc::clone(stateful),
                policy,
                threads,
                artifact.policy.queue.max_queue_size,
                Arc::clone(&self.clock),
            ))
        });
        let version = Version {
            id: artifact.id.clone(),
            output_names: output_names.clone(),
            check: plan.check(),
            order: queue.preserve_ordering.then(Arc::default),
            sequences,
            site,
            policy: artifact.policy.clone(),
            devices,
            loaded_wall_nanoseconds: wall_nanoseconds(),
            memory,
            ledger,
            cached: self.cached(artifact),
            signature: client.clone(),
            whole: signature.clone(),
            batching: batching.clone(),
            runs: 1,
            runner: Runner::Lane(Arc::clone(&lane)),
        };
        // If a thread cannot be started, dropping the version closes the lane, which ends the rest.
        for number in 0..threads {
            let lane = Arc::clone(&lane);
            thread::Builder::new()
                .name(format!("executor-{number}"))
                .spawn(move || executor::run(&lane))?;
        }
        Ok(version)
    }

    fn cached(&self, artifact: &Artifact) -> Option<Cached> {
        let wanted = artifact.policy.response_cache;
        if wanted && self.responses.is_none() {
            tracing::warn!(
                model = %artifact.id,
                "its answers are not cached, though it says response_cache = true: \
                 --response-cache-bytes is 0"
            );
        }
        let responses = self.responses.as_ref().filter(|_| wanted);
        responses.map(Cached::new)
    }

    fn instance(
        &self,
        name: String,
        plan: &Plan,
        Loaded { site, made, .. }: Loaded,
        berth: Berth,
        ledger: &Arc<Ledger>,
    ) -> Box<Instance> {
        let (again, clock) = (plan.clone(), Arc::clone(&self.clock));
        let mut generation = made.generation;
        let remake = move |lost: bool| {
            let mut made = site.executor(lost.then_some(generation))?;
            generation = made.generation;
            // Whatever warm-up says, the executor has served before.
            let _ = warm(made.executor.as_mut(), &again, clock.as_ref(), &|| ());
            Ok(made.executor)
        };
        let mut instance = Instance::new(
            name,
            berth,
            made.executor,
            Box::new(remake),
            Arc::clone(&plan.stacking),
            Arc::clone(ledger),
            Arc::clone(&self.clock),
        );
        let own = plan.artifact.policy.executor_timeout;
        let longest = own.or(self.containment.executor_timeout);
        instance.bound(longest.filter(|longest| !longest.is_zero()));
        instance
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

/// How inputs are made up: states as they begin.
fn made_up(policy: &ModelPolicy, signature: &Signature, batched: bool) -> WarmUpPolicy {
    match &policy.sequence {
        Some(sequence) => stateful::made_up(&policy.warm_up, sequence, signature, batched),
        None => policy.warm_up.clone(),
    }
}

fn stateful(
    artifact: &Artifact,
    signature: &Signature,
    batched: bool,
) -> Result<Option<Arc<Stateful>>, LoadFailure> {
    let Some(policy) = &artifact.policy.sequence else {
        return Ok(None);
    };
    let folder = artifact.folder.parent().unwrap_or(&artifact.folder);
    let stateful = Stateful::resolve(policy, signature, batched, folder);
    stateful
        .map(|stateful| Some(Arc::new(stateful)))
        .map_err(LoadFailure::Sequence)
}

fn scheduling(policy: &ModelPolicy, stacking: &Stacking) -> Policy {
    let padding = stacking.padding.as_ref();
    Policy {
        max_batch_size: match stacking.batched {
            true => policy.batch.max_batch_size,
            false => 1,
        },
        max_batch_tokens: padding.map_or(usize::MAX, |padding| padding.max_batch_tokens),
        batch_sizes: stacking.sizes.clone(),
        lengths: padding.map_or_else(Vec::new, |padding| padding.lengths.clone()),
        max_queue_size: policy.queue.max_queue_size,
        max_queue_delay: policy.batch.max_queue_delay,
        preferred_sizes: policy.batch.preferred_sizes.clone(),
        margin: MARGIN,
        ..Policy::default()
    }
}

fn check_labels(artifact: &Artifact, signature: &Signature) -> Result<(), LoadFailure> {
    let mut labels = artifact.policy.labels.0.iter();
    let unknown = labels.find(|labels| signature.output(&labels.output).is_none());
    let Some(unknown) = unknown else {
        return Ok(());
    };
    let outputs: Vec<String> = signature.outputs.iter().map(ToString::to_string).collect();
    Err(LoadFailure::Labels(format!(
        "there is no output {:?}; the model has {}",
        unknown.output,
        outputs.join(", ")
    )))
}

/// Whether requests share runs: what `model.toml` says, else what the dimensions say and a trial
/// confirms.
fn batching(
    signature: &Signature,
    executor: &mut dyn Executor,
    artifact: &Artifact,
    trial: &Trial<'_>,
) -> Result<Batching, LoadFailure> {
    let by_dimensions = signature.batching();
    match (artifact.policy.batch.axis, by_dimensions) {
        (BatchAxis::Unbatched, _) => Ok(Batching::Alone(
            "the configuration says so (batch_axis = \"none\", max_batch_size: 0)".to_owned(),
        )),
        (BatchAxis::First, Batching::Alone(reason)) => Err(LoadFailure::Axis(reason)),
        (BatchAxis::First, Batching::Rows) => Ok(Batching::Rows),
        (BatchAxis::Auto, Batching::Alone(reason)) => Ok(Batching::Alone(reason)),
        (BatchAxis::Auto, Batching::Rows) => Ok(tried(executor, artifact, trial)),
    }
}

fn tried(executor: &mut dyn Executor, artifact: &Artifact, trial: &Trial<'_>) -> Batching {
    match trial.rows_are_independent(executor) {
        Verdict::Independent => Batching::Rows,
        Verdict::Dependent(output) => Batching::Alone(format!(
            "output {output} of two rows together differs from each alone"
        )),
        Verdict::Unknown(error) => {
            tracing::warn!(
                model = %artifact.id, error,
                "rows were not tried: the model does not run on made-up inputs; \
                 warm_up.shapes in model.toml names shapes that it takes"
            );
            Batching::Rows
        }
    }
}

/// Padding was asked for: refuses it where it would change answers.
fn check_padding(
    executor: &mut dyn Executor,
    artifact: &Artifact,
    batching: &Batching,
    trial: &Trial<'_>,
    padding: &Padding,
) -> Result<(), LoadFailure> {
    if let Batching::Alone(reason) = batching {
        let message = format!("requests run alone: {reason}");
        return Err(LoadFailure::Padding(message));
    }
    match trial.padding_changes_nothing(executor, padding) {
        Verdict::Independent => Ok(()),
        Verdict::Dependent(output) => Err(LoadFailure::Padding(format!(
            "output {output} of a row changes when the row is padded; the model may need a mask, \
             another value, or an axis named for this output"
        ))),
        Verdict::Unknown(error) => {
            tracing::warn!(
                model = %artifact.id, error,
                "padding was not tried: the model does not run on made-up inputs"
            );
            Ok(())
        }
    }
}

/// Runs every instance at once, as they will be later: what they take of a device then is more than
/// one after the other.
fn run_together(instances: &mut [Loaded], plan: &Plan, clock: &dyn Clock) {
    if instances.len() < 2 {
        return;
    }
    thread::scope(|scope| {
        for instance in instances {
            // That each runs by itself is known.
            scope.spawn(|| warm(instance.made.executor.as_mut(), plan, clock, &|| ()));
        }
    });
}

fn warm(
    executor: &mut dyn Executor,
    plan: &Plan,
    clock: &dyn Clock,
    warmed: &dyn Fn(),
) -> Result<Vec<(Load, Duration)>, LoadFailure> {
    let policy = &plan.artifact.policy;
    match optional::warm_up(&plan.trial(clock), executor, policy, warmed) {
        Err(error) if !policy.warm_up.shapes.is_empty() => {
            Err(LoadFailure::WarmUp(error.to_string()))
        }
        Err(error) => {
            tracing::warn!(model = %plan.artifact.id, %error, "not warmed: made-up inputs failed");
            Ok(Vec::new())
        }
        Ok(times) => Ok(times),
    }
}

/// Runs the requests of the configuration, each of which has to succeed.
fn rehearse(executor: &mut dyn Executor, plan: &Plan) -> Result<(), LoadFailure> {
    let Artifact { policy, folder, .. } = &plan.artifact;
    if policy.warm_up.requests.is_empty() {
        return Ok(());
    }
    let rehearsal = Rehearsal {
        folder: folder.parent().unwrap_or(folder),
        check: &plan.check(),
        signature: &plan.client,
        stateful: plan.stateful.as_deref(),
        ragged: plan.stacking.ragged.as_ref(),
        batched: plan.stacking.batched,
        sizes: &plan.stacking.sizes,
        max_batch_size: policy.batch.max_batch_size,
    };
    let mut requests = policy.warm_up.requests.iter();
    requests
        .try_for_each(|request| rehearsal.run(executor, request))
        .map_err(LoadFailure::WarmUp)
}
