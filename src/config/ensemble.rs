//! The `[ensemble]` table of `model.toml`.

use jitney_settings::Table;
use jitney_settings::rule::{Text, whole, whole_from};

use super::rule::MODEL_NAME;
use super::simulated::tensors;
use crate::model::{EnsemblePolicy, EnsembleStep};

/// Settings of a queue and of what runs it, of which an ensemble has neither.
const OF_ITS_MODELS: [&str; 18] = [
    "batch_sizes",
    "inputs",
    "instances",
    "max_queue_delay_ms",
    "max_queue_size",
    "model_file",
    "onnxruntime",
    "outputs",
    "padding",
    "preferred_batch_sizes",
    "preserve_ordering",
    "priorities",
    "queue_timeout",
    "response_cache",
    "sequence",
    "simulated",
    "warm_up",
    "weight",
];

/// What the table says, if `model` has it.
pub(super) fn read(model: &mut Table<'_, '_>) -> Option<EnsemblePolicy> {
    let policy = model.section("ensemble", ensemble)?;
    for key in OF_ITS_MODELS {
        if model.written(key).is_some() {
            let message = "contradicts ensemble: this belongs to the models that it is made of";
            model.contradict(key, message.to_owned());
        }
    }
    Some(policy)
}

fn ensemble(table: &mut Table<'_, '_>) -> EnsemblePolicy {
    let steps = table.sections("steps", step);
    let why = "list the models, each with [[ensemble.steps]]";
    let steps = table.required("steps", steps, why);
    EnsemblePolicy {
        inputs: tensors(table, "inputs"),
        outputs: tensors(table, "outputs"),
        steps: steps.unwrap_or_default().into_iter().flatten().collect(),
        max_in_flight: table
            .value("max_in_flight", whole(1..=1_000_000))
            .unwrap_or(EnsemblePolicy::MAX_IN_FLIGHT),
    }
}

fn step(table: &mut Table<'_, '_>) -> Option<EnsembleStep> {
    let model = table.value("model", MODEL_NAME);
    let model = table.required("model", model, "every step runs a model");
    let version = table.value("version", whole_from(1_u64));
    let inputs = table.section("inputs", names);
    let why = "say which tensor each input of the model takes, such as { x = \"image\" }";
    let inputs = table.required("inputs", inputs, why);
    let outputs = table.section("outputs", names);
    let why = "say which tensor each output of the model becomes, such as { y = \"features\" }";
    let outputs = table.required("outputs", outputs, why);
    Some(EnsembleStep {
        model: model?,
        version,
        inputs: inputs?,
        outputs: outputs?,
    })
}

/// A name of the model, and the tensor that it goes with.
fn names(table: &mut Table<'_, '_>) -> Vec<(String, String)> {
    let mut names = Vec::new();
    for own in table.keys() {
        let tensor = table.value(own, Text);
        names.extend(tensor.map(|tensor| (own.to_owned(), tensor)));
    }
    names
}
