//! The thread of an executor: pulls batches from its lane and runs them, and mends what breaks.

use std::sync::Arc;
use std::time::Duration;

use super::instance::{Broken, Instance};
use super::lane::{Lane, Next};

/// First pause before an instance that broke is made again; doubles up to [`MOST_BACKOFF`].
const LEAST_BACKOFF: Duration = Duration::from_millis(50);
const MOST_BACKOFF: Duration = Duration::from_secs(5);

/// Runs the lane's batches until it is closed and empty. There are as many of these threads as
/// instances, but an instance belongs to none of them.
pub(super) fn run(lane: &Arc<Lane>) {
    let mut held = None;
    loop {
        held = match lane.next(held) {
            Next::Run(instance) => serve(lane, instance),
            Next::Mend(instance, broken) => mend(lane, instance, &broken),
            Next::End(instance) => {
                drop(instance);
                None
            }
        };
        // Each instance takes one thread along.
        if held.is_none() {
            return;
        }
    }
}

fn serve(lane: &Lane, mut instance: Box<Instance>) -> Option<Box<Instance>> {
    let health = instance.serve();
    lane.welcome(&mut instance);
    match health {
        Ok(()) => Some(instance),
        Err(broken) => mend(lane, instance, &broken),
    }
}

/// Tries until the instance is whole again; none if the lane closed first.
fn mend(lane: &Lane, mut instance: Box<Instance>, broken: &Broken) -> Option<Box<Instance>> {
    let reason = &broken.status.message;
    if lane.mend_at_once(&mut instance, broken) {
        tracing::error!(executor = instance.name(), reason, "executor made again");
        return Some(instance);
    }
    tracing::error!(executor = instance.name(), reason, "executor down");
    lane.executor_down(&mut instance, broken);
    let mut pause = LEAST_BACKOFF;
    let mut awaited = broken.death.is_some();
    loop {
        if lane.closed_while_resting() {
            break;
        }
        match instance.mend(broken) {
            Ok(()) => {
                lane.executor_up(instance.berth.group, broken);
                tracing::info!(executor = instance.name(), "executor is back");
                return Some(instance);
            }
            Err(failed) => {
                let error = &failed.reason;
                tracing::warn!(executor = instance.name(), error, "not back yet");
                lane.not_back(&instance, broken, &failed);
                awaited = false;
            }
        }
        if lane.closed_within(pause) {
            break;
        }
        pause = (pause * 2).min(MOST_BACKOFF);
    }
    lane.executor_given_up(instance.berth.group, awaited);
    None
}
