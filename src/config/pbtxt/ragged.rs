//! `allow_ragged_batch`, `batch_input` and `batch_output`: requests laid end to end.

use super::draft::Draft;
use super::tensors::dtype;
use crate::config::ragged::DTYPES;
use crate::model::{BatchInput, BatchInputKind, BatchOutput, RaggedPolicy};
use crate::proto::batch_input::Kind;
use crate::proto::{self, ModelConfig};
use crate::tensor::Dtype;

/// What the fields say; none if they say nothing.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> Option<RaggedPolicy> {
    let ragged = config.input.iter().filter(|input| input.allow_ragged_batch);
    let mut policy = RaggedPolicy {
        inputs: ragged.map(|input| input.name.clone()).collect(),
        ..RaggedPolicy::default()
    };
    for (index, made) in config.batch_input.iter().enumerate() {
        let path = format!("batch_input[{index}]");
        policy.batch_inputs.push(batch_input(made, &path, draft));
    }
    for (index, cut) in config.batch_output.iter().enumerate() {
        let path = format!("batch_output[{index}]");
        policy.batch_outputs.push(BatchOutput {
            targets: targets(&cut.target_name, &path, draft),
            source: source(&cut.source_input, &path, draft),
        });
    }
    (!policy.is_empty()).then_some(policy)
}

/// The field that is blamed for what is wrong with all of it.
pub(super) fn field(policy: &RaggedPolicy) -> &'static str {
    match policy {
        policy if !policy.batch_inputs.is_empty() => "batch_input",
        policy if !policy.batch_outputs.is_empty() => "batch_output",
        _ => "input",
    }
}

fn batch_input(made: &proto::BatchInput, path: &str, draft: &mut Draft) -> BatchInput {
    let known = |found: &Dtype| DTYPES.iter().any(|(_, dtype)| dtype == found);
    let dtype = dtype(made.data_type).filter(known);
    if dtype.is_none() {
        let found = made.data_type().as_str_name();
        let message = format!("found {found}; allowed: TYPE_FP32, TYPE_INT32");
        draft.note(&format!("{path}.data_type"), message);
    }
    BatchInput {
        kind: match made.kind() {
            Kind::BatchElementCount => BatchInputKind::ElementCount,
            Kind::BatchAccumulatedElementCount => BatchInputKind::AccumulatedElementCount,
            Kind::BatchAccumulatedElementCountWithZero => {
                BatchInputKind::AccumulatedElementCountWithZero
            }
            Kind::BatchMaxElementCountAsShape => BatchInputKind::MaxElementCountAsShape,
            Kind::BatchItemShape => BatchInputKind::ItemShape,
            Kind::BatchItemShapeFlatten => BatchInputKind::ItemShapeFlatten,
        },
        targets: targets(&made.target_name, path, draft),
        dtype: dtype.unwrap_or(Dtype::Int32),
        source: source(&made.source_input, path, draft),
    }
}

fn targets(names: &[String], path: &str, draft: &mut Draft) -> Vec<String> {
    if names.is_empty() {
        let message = "missing; the model's name for it";
        draft.note(&format!("{path}.target_name"), message);
    }
    let path = |index| format!("{path}.target_name[{index}]");
    let names = names.iter().enumerate();
    names
        .map(|(index, name)| draft.tensor_name(&path(index), name))
        .collect()
}

/// Every kind is said of one input.
fn source(names: &[String], path: &str, draft: &mut Draft) -> String {
    let [name] = names else {
        let message = format!("found {}; allowed: one input", names.len());
        draft.note(&format!("{path}.source_input"), message);
        return String::new();
    };
    draft.tensor_name(&format!("{path}.source_input[0]"), name)
}
