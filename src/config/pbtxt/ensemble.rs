//! `ensemble_scheduling`: a graph of models that answers as one.

use std::collections::HashMap;

use super::draft::Draft;
use super::sorted;
use super::tensors::dtype;
use crate::model::{Dimension, EnsemblePolicy, EnsembleStep, TensorSpec, check_name};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_ensembling::Step;
use crate::proto::{ModelConfig, ModelEnsembling};
use crate::tensor::Dtype;

/// The most requests in flight.
const MOST: usize = 1_000_000;
/// A step's version that is the newest.
const NEWEST: i64 = -1;

/// Whether the configuration is an ensemble's.
pub(super) fn is_one(config: &ModelConfig) -> bool {
    ensembling(config).is_some() || config.platform == "ensemble"
}

fn ensembling(config: &ModelConfig) -> Option<&ModelEnsembling> {
    match &config.scheduling_choice {
        Some(SchedulingChoice::EnsembleScheduling(ensembling)) => Some(ensembling),
        _ => None,
    }
}

/// The graph, if the configuration is an ensemble's.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> Option<EnsemblePolicy> {
    if !is_one(config) {
        return None;
    }
    let Some(ensembling) = ensembling(config) else {
        draft.note(
            "platform",
            "found \"ensemble\" without ensemble_scheduling; list its steps there",
        );
        return None;
    };
    if !config.instance_group.is_empty() {
        let message =
            "contradicts ensemble_scheduling: instances belong to the models of its steps";
        draft.note("instance_group", message);
    }
    let mut steps = Vec::new();
    for (index, step) in ensembling.step.iter().enumerate() {
        let path = format!("ensemble_scheduling.step[{index}]");
        steps.push(read_step(step, &path, draft));
    }
    let in_flight = match ensembling.max_inflight_requests {
        0 => EnsemblePolicy::MAX_IN_FLIGHT,
        most => draft.whole("ensemble_scheduling.max_inflight_requests", most, 1, MOST),
    };
    let spec = |name: &String, data_type: i32, dims: &[i64]| TensorSpec {
        name: name.clone(),
        dtype: dtype(data_type).unwrap_or(Dtype::Fp32),
        dimensions: dimensions(config, dims),
    };
    let inputs = config.input.iter();
    let outputs = config.output.iter();
    Some(EnsemblePolicy {
        inputs: inputs
            .map(|one| spec(&one.name, one.data_type, &one.dims))
            .collect(),
        outputs: outputs
            .map(|one| spec(&one.name, one.data_type, &one.dims))
            .collect(),
        steps,
        max_in_flight: in_flight,
    })
}

/// Every dimension: `dims` are without that of the batch.
fn dimensions(config: &ModelConfig, dims: &[i64]) -> Vec<Dimension> {
    let batch = (config.max_batch_size > 0).then(|| Dimension::varying(""));
    let own = dims.iter().map(|size| match usize::try_from(*size) {
        Ok(size) => Dimension::fixed(size),
        Err(_) => Dimension::varying(""),
    });
    batch.into_iter().chain(own).collect()
}

fn read_step(step: &Step, path: &str, draft: &mut Draft) -> EnsembleStep {
    if let Err(error) = check_name(&step.model_name) {
        draft.note(&format!("{path}.model_name"), error.to_string());
    }
    let version = u64::try_from(step.model_version)
        .ok()
        .filter(|version| *version > 0);
    if version.is_none() && step.model_version != NEWEST {
        let message = format!("found {}; allowed: -1 or at least 1", step.model_version);
        draft.note(&format!("{path}.model_version"), message);
    }
    let map = |names: &HashMap<String, String>| sorted(names.clone());
    EnsembleStep {
        model: step.model_name.clone(),
        version,
        inputs: map(&step.input_map),
        outputs: map(&step.output_map),
    }
}
