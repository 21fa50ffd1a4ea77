//! How requests wait and become batches: as `dynamic_batching`, in sequences, or in a graph.

use std::collections::HashMap;
use std::time::Duration;

use super::ensemble::ensembling;
use super::sequence;
use crate::model::{Batching, PriorityPolicy, QueuePolicy, QueueTimeout, TimeoutAction};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_queue_policy::TimeoutAction as Action;
use crate::proto::{ModelDynamicBatching, ModelQueuePolicy};
use crate::serving::Version;

/// So many are no bound, which the protocol calls 0.
const UNBOUNDED: usize = 1_000_000;

pub(super) fn scheduling(version: &Version) -> Option<SchedulingChoice> {
    let policy = &version.policy;
    if let Some(ensemble) = &policy.ensemble {
        return Some(SchedulingChoice::EnsembleScheduling(ensembling(ensemble)));
    }
    if let Some(sequence) = &policy.sequence {
        let batching = sequence::batching(version, sequence);
        return Some(SchedulingChoice::SequenceBatching(batching));
    }
    let Batching::Rows = version.batching else {
        return None;
    };
    let (batch, queue) = (&policy.batch, &policy.queue);
    let preferred = batch.preferred_sizes.iter();
    let (priority_levels, default_priority_level) = match queue.priority_levels {
        // One is as good as none.
        1 => (0, 0),
        levels => (u64::from(levels), u64::from(queue.default_priority)),
    };
    Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching {
        preferred_batch_size: preferred
            .map(|size| i32::try_from(*size).unwrap_or(i32::MAX))
            .collect(),
        priority_levels,
        default_priority_level,
        preserve_ordering: queue.preserve_ordering,
        max_queue_delay_microseconds: microseconds(batch.max_queue_delay),
        default_queue_policy: Some(queue_policy(queue)),
        priority_queue_policy: priorities(queue),
    }))
}

fn queue_policy(queue: &QueuePolicy) -> ModelQueuePolicy {
    // Where the queue has no timeout of its own, a request's is its deadline.
    let own = QueueTimeout {
        after: queue.default_deadline,
        allow_override: true,
        ..QueueTimeout::default()
    };
    bounds(
        Some(queue.max_queue_size),
        queue.timeout.as_ref().unwrap_or(&own),
    )
}

fn priorities(queue: &QueuePolicy) -> HashMap<u64, ModelQueuePolicy> {
    let priorities = queue.priorities.iter();
    priorities
        .map(
            |PriorityPolicy {
                 level,
                 max_queue_size,
                 timeout,
             }| { (u64::from(*level), bounds(*max_queue_size, timeout)) },
        )
        .collect()
}

fn bounds(size: Option<usize>, timeout: &QueueTimeout) -> ModelQueuePolicy {
    let size = size.filter(|size| *size < UNBOUNDED).unwrap_or(0);
    let action = match timeout.action {
        TimeoutAction::Reject => Action::Reject,
        TimeoutAction::Delay => Action::Delay,
    };
    ModelQueuePolicy {
        timeout_action: action.into(),
        default_timeout_microseconds: timeout.after.map_or(0, microseconds),
        allow_timeout_override: timeout.allow_override,
        max_queue_size: u32::try_from(size).unwrap_or(u32::MAX),
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
