//! A version put together: its lane, its instances with what they share, and their threads.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::failure::LoadFailure;
use super::plan::Plan;
use super::warming::warm;
use super::{Loaded, Loader};
use crate::backend::Artifact;
use crate::clock::wall_nanoseconds;
use crate::model::ModelPolicy;
use crate::scheduler::{Load, Policy};
use crate::serving::breaker::Breaker;
use crate::serving::budget::Claim;
use crate::serving::cache::Cached;
use crate::serving::catalog::Version;
use crate::serving::executor;
use crate::serving::instance::Instance;
use crate::serving::lane::{Lane, Levels};
use crate::serving::placing::Berth;
use crate::serving::runner::Runner;
use crate::serving::sequences::Sequences;
use crate::serving::stacking::Stacking;
use crate::serving::statistics::Ledger;

/// Kept between the end of a batch and a deadline, for slicing, waking and sending.
const MARGIN: Duration = Duration::from_micros(200);

impl Loader {
    pub(super) fn start(
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
        if queue.preserve_ordering {
            lane.preserve_order();
        }
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
