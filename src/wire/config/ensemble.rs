//! A graph of models in the protocol's terms.

use crate::model::EnsemblePolicy;
use crate::proto::{ModelEnsembling, model_ensembling};

/// A step's version that is the newest.
const NEWEST: i64 = -1;

/// The steps of a graph.
pub(super) fn ensembling(policy: &EnsemblePolicy) -> ModelEnsembling {
    let map = |names: &[(String, String)]| names.iter().cloned().collect();
    let steps = policy.steps.iter().map(|step| model_ensembling::Step {
        model_name: step.model.clone(),
        model_version: step
            .version
            .map_or(NEWEST, |version| i64::try_from(version).unwrap_or(i64::MAX)),
        input_map: map(&step.inputs),
        output_map: map(&step.outputs),
        ..model_ensembling::Step::default()
    });
    ModelEnsembling {
        step: steps.collect(),
        max_inflight_requests: u32::try_from(policy.max_in_flight).unwrap_or(u32::MAX),
    }
}
