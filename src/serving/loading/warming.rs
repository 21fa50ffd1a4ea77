//! Executors run before they serve: with inputs made up, side by side, and with requests of the
//! configuration.

use std::thread;
use std::time::Duration;

use super::Loaded;
use super::failure::LoadFailure;
use super::plan::Plan;
use crate::backend::{Artifact, Executor};
use crate::clock::Clock;
use crate::scheduler::Load;
use crate::serving::optional;
use crate::serving::rehearsal::Rehearsal;

/// Runs every instance at once, as they will be later: what they take of a device then is more than
/// one after the other.
pub(super) fn run_together(instances: &mut [Loaded], plan: &Plan, clock: &dyn Clock) {
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

pub(super) fn warm(
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
pub(super) fn rehearse(executor: &mut dyn Executor, plan: &Plan) -> Result<(), LoadFailure> {
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
