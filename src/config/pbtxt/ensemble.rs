//! `ensemble_scheduling`: a graph of models that answers as one.

use std::collections::HashMap;

use super::draft::Draft;
use super::tensors::dtype;
use super::{file_name, sorted};
use crate::model::{Dimension, EnsemblePolicy, EnsembleStep, TensorSpec, check_name};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_ensembling::Step;
use crate::proto::{ModelConfig, ModelEnsembling};
use crate::tensor::Dtype;

/// The most requests in flight.
const MOST: usize = 1_000_000;
/// Why a setting is refused.
pub(super) const BELONGS_TO_STEPS: &str =
    "contradicts ensemble_scheduling: this belongs to the models of its steps";
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
    refuse_its_models(config, draft);
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

/// Notes what an ensemble says of a file, of what runs it or of answers that are kept, none of which it has.
fn refuse_its_models(config: &ModelConfig, draft: &mut Draft) {
    let cache = config.response_cache.as_ref();
    let said = [
        ("instance_group", !config.instance_group.is_empty()),
        ("default_model_filename", file_name(config).is_some()),
        ("optimization", config.optimization.is_some()),
        ("model_warmup", !config.model_warmup.is_empty()),
        ("response_cache", cache.is_some_and(|cache| cache.enable)),
    ];
    for (field, _) in said.into_iter().filter(|(_, is_said)| *is_said) {
        draft.note(field, BELONGS_TO_STEPS);
    }
    let inputs = config.input.iter().map(|input| input.reshape.is_some());
    let outputs = config.output.iter().map(|output| output.reshape.is_some());
    let inputs = inputs
        .enumerate()
        .map(|(index, is_said)| ("input", index, is_said));
    let outputs = outputs
        .enumerate()
        .map(|(index, is_said)| ("output", index, is_said));
    for (field, index, _) in inputs.chain(outputs).filter(|(.., is_said)| *is_said) {
        draft.note(&format!("{field}[{index}].reshape"), BELONGS_TO_STEPS);
    }
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
    EnsembleStep {
        model: step.model_name.clone(),
        version,
        inputs: names(&step.input_map, &format!("{path}.input_map"), draft),
        outputs: names(&step.output_map, &format!("{path}.output_map"), draft),
    }
}

/// The model's names, and the graph's tensors that they go with.
fn names(map: &HashMap<String, String>, path: &str, draft: &mut Draft) -> Vec<(String, String)> {
    for (own, tensor) in map {
        if own.is_empty() || tensor.is_empty() {
            let message =
                format!("found {own:?} with {tensor:?}; allowed: names that are not empty");
            draft.note(path, message);
        }
    }
    sorted(map.clone())
}
