//! `response_cache`: answers that are kept.

use super::draft::Draft;
use crate::proto::ModelConfig;
use crate::proto::model_config::SchedulingChoice;

/// Whether answers are kept.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> bool {
    let cache = config.response_cache.as_ref();
    let enabled = cache.is_some_and(|cache| cache.enable);
    if let (true, Some(SchedulingChoice::SequenceBatching(_))) =
        (enabled, &config.scheduling_choice)
    {
        let message = "contradicts sequence_batching: an answer depends on what came before it";
        draft.note("response_cache.enable", message);
    }
    enabled
}
