//! The part of `dynamic_batching` that says how requests wait.

use std::time::Duration;

use super::batching::dynamic;
use super::draft::Draft;
use crate::model::{PriorityPolicy, QueuePolicy, QueueTimeout, TimeoutAction};
use crate::proto::model_queue_policy::TimeoutAction as Action;
use crate::proto::{ModelConfig, ModelDynamicBatching, ModelQueuePolicy};

/// As many as there may be: what stands for no bound. The server's own bounds hold.
const MOST_QUEUED: usize = 1_000_000;
/// The longest timeout, a day.
const LONGEST_TIMEOUT: usize = 86_400_000_000;

/// What the section says.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> QueuePolicy {
    let unbounded = QueuePolicy {
        max_queue_size: MOST_QUEUED,
        ..QueuePolicy::default()
    };
    let Some(dynamic) = dynamic(config) else {
        return unbounded;
    };
    let (levels, default) = levels(dynamic, draft);
    let mut policy = QueuePolicy {
        priority_levels: levels,
        default_priority: default,
        preserve_ordering: dynamic.preserve_ordering,
        ..unbounded
    };
    let path = "dynamic_batching.default_queue_policy";
    let general = dynamic.default_queue_policy.as_ref();
    let (size, timeout) = bounds(general.unwrap_or(&ModelQueuePolicy::default()), path, draft);
    if general.is_some() || !dynamic.priority_queue_policy.is_empty() {
        policy.timeout = Some(timeout.clone());
    }
    policy.priorities = priorities(dynamic, levels, size, draft);
    match size {
        // Triton has a queue for each priority, with a bound of its own.
        Some(size) if levels > 1 => each(&mut policy, size, &timeout),
        Some(size) => policy.max_queue_size = size,
        None => {}
    }
    policy
}

/// How many priorities there are, and which one a request has that brings none.
fn levels(dynamic: &ModelDynamicBatching, draft: &mut Draft) -> (u32, u32) {
    let most = QueuePolicy::MOST_LEVELS as usize;
    let path = "dynamic_batching.priority_levels";
    let levels = draft.whole(path, dynamic.priority_levels, 0, most).max(1);
    let default = match dynamic.priority_levels {
        // Without levels there is nothing to choose.
        0 => 1,
        _ => {
            let path = "dynamic_batching.default_priority_level";
            draft.whole(path, dynamic.default_priority_level, 1, levels)
        }
    };
    let number = |size: usize| u32::try_from(size).unwrap_or(QueuePolicy::MOST_LEVELS);
    (number(levels), number(default))
}

fn priorities(
    dynamic: &ModelDynamicBatching,
    levels: u32,
    size: Option<usize>,
    draft: &mut Draft,
) -> Vec<PriorityPolicy> {
    let mut keys: Vec<&u64> = dynamic.priority_queue_policy.keys().collect();
    keys.sort_unstable();
    let mut priorities = Vec::new();
    for key in keys {
        let path = format!("dynamic_batching.priority_queue_policy[{key}]");
        let level = draft.whole(&path, *key, 1, levels as usize);
        let Some(queue) = dynamic.priority_queue_policy.get(key) else {
            continue;
        };
        let (own, timeout) = bounds(queue, &format!("{path}.value"), draft);
        // It takes the place of the general one, so its 0 is no bound for this priority.
        let unbounded = size.map(|_| MOST_QUEUED);
        priorities.push(PriorityPolicy {
            level: u32::try_from(level).unwrap_or(1),
            max_queue_size: own.or(unbounded),
            timeout,
        });
    }
    priorities
}

/// Gives each priority that has none its own bound.
fn each(policy: &mut QueuePolicy, size: usize, timeout: &QueueTimeout) {
    for level in 1..=policy.priority_levels {
        if policy.priorities.iter().all(|own| own.level != level) {
            policy.priorities.push(PriorityPolicy {
                level,
                max_queue_size: Some(size),
                timeout: timeout.clone(),
            });
        }
    }
    policy.priorities.sort_by_key(|own| own.level);
}

/// How many may wait, if there is a bound, and how long.
fn bounds(
    queue: &ModelQueuePolicy,
    path: &str,
    draft: &mut Draft,
) -> (Option<usize>, QueueTimeout) {
    let sizes = format!("{path}.max_queue_size");
    let size = draft.whole(&sizes, queue.max_queue_size, 0, MOST_QUEUED);
    let times = format!("{path}.default_timeout_microseconds");
    let after = queue.default_timeout_microseconds;
    let after = draft.whole(&times, after, 0, LONGEST_TIMEOUT);
    let after = Duration::from_micros(u64::try_from(after).unwrap_or(0));
    let timeout = QueueTimeout {
        after: Some(after).filter(|after| !after.is_zero()),
        action: match queue.timeout_action() {
            Action::Reject => TimeoutAction::Reject,
            Action::Delay => TimeoutAction::Delay,
        },
        allow_override: queue.allow_timeout_override,
    };
    (Some(size).filter(|size| *size > 0), timeout)
}
