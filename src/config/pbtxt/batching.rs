//! `max_batch_size` and the part of `dynamic_batching` that forms batches.

use std::time::Duration;

use super::draft::Draft;
use crate::model::{BatchAxis, BatchPolicy};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::{ModelConfig, ModelDynamicBatching};

/// The most rows in one batch.
const MOST_ROWS: usize = 65_536;
/// The longest that a batch may wait for company.
const LONGEST_DELAY: usize = 60_000_000;

/// What the fields say.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> BatchPolicy {
    let default = BatchPolicy::default();
    let rows = draft.whole("max_batch_size", config.max_batch_size, 0, MOST_ROWS);
    let policy = BatchPolicy {
        axis: axis(config, rows, draft),
        max_batch_size: if rows > 0 {
            rows
        } else {
            default.max_batch_size
        },
        ..default
    };
    match dynamic(config) {
        Some(dynamic) => formed(policy, dynamic, draft),
        None => policy,
    }
}

/// Which dimension counts rows. Without `max_batch_size` and without tensors the model decides, as
/// Triton completes such a configuration from the model.
fn axis(config: &ModelConfig, rows: usize, draft: &Draft) -> BatchAxis {
    let listed = !config.input.is_empty() || !config.output.is_empty();
    match rows {
        0 if listed || draft.places.is_written("max_batch_size") => BatchAxis::Unbatched,
        0 => BatchAxis::Auto,
        // Nothing is ever put together; a model whose first dimension is 1 has it for this.
        1 => BatchAxis::First,
        // Who asks for batches says that rows are independent.
        _ if dynamic(config).is_some() => BatchAxis::First,
        _ => BatchAxis::Auto,
    }
}

fn formed(policy: BatchPolicy, dynamic: &ModelDynamicBatching, draft: &mut Draft) -> BatchPolicy {
    let path = "dynamic_batching.max_queue_delay_microseconds";
    let delay = draft.whole(path, dynamic.max_queue_delay_microseconds, 0, LONGEST_DELAY);
    let mut preferred = Vec::new();
    for (index, size) in dynamic.preferred_batch_size.iter().enumerate() {
        let path = format!("dynamic_batching.preferred_batch_size[{index}]");
        preferred.push(draft.whole(&path, *size, 1, policy.max_batch_size));
    }
    BatchPolicy {
        max_queue_delay: Duration::from_micros(u64::try_from(delay).unwrap_or(0)),
        preferred_sizes: preferred,
        ..policy
    }
}

/// `dynamic_batching`, if it is there.
pub(super) fn dynamic(config: &ModelConfig) -> Option<&ModelDynamicBatching> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(dynamic)) => Some(dynamic),
        _ => None,
    }
}
