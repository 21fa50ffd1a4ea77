//! Triton's `config.pbtxt`: a ModelConfig as text or JSON, and the `ModelPolicy` that it means.
//! Uses `proto` for the message, and `prost-reflect` to read it; one file for each of its sections.
//! Never passes over a field in silence: `fields` says of each what becomes of it.

mod batching;
mod cache;
mod draft;
mod ensemble;
mod fields;
mod instances;
mod optimization;
mod parameters;
mod places;
mod queue;
mod ragged;
mod rate_limiter;
mod scan;
mod sequence;
mod tensors;
mod text;
mod versions;
mod warm_up;

use std::collections::HashMap;
use std::path::Path;

use prost_reflect::{DynamicMessage, MessageDescriptor};

use crate::config::ragged::excluded;
use crate::model::{
    BackendPolicy, MOST_TAGS, ModelPolicy, Notes, OnnxRuntimePolicy, QueuePolicy, TensorsPolicy,
    wrong_tag,
};
use crate::proto::{MESSAGES, ModelConfig};
use draft::Draft;
use jitney_settings::Report;

/// What `source`, the text of the `config.pbtxt` at `file`, means for the model in the folder of this
/// name; or everything wrong with it, as far as it can be told at once.
///
/// The file is not opened: `file` is for the messages.
pub fn read_model_config(model: &str, file: &Path, source: &str) -> Result<ModelPolicy, Report> {
    let mut draft = Draft::of(Some(file));
    let message = text::read(source, &mut draft);
    let policy = policy(model, &message, &mut draft);
    draft.finish(policy)
}

/// The same of a ModelConfig in JSON, as clients send it with a load.
pub fn read_model_config_json(model: &str, json: &str) -> Result<ModelPolicy, Report> {
    let mut draft = Draft::of(None);
    let message = text::read_json(json, &mut draft);
    let policy = policy(model, &message, &mut draft);
    draft.finish(policy)
}

/// The descriptor of the message, of which a file is one.
fn descriptor() -> MessageDescriptor {
    let found = MESSAGES.get_message_by_name("inference.ModelConfig");
    found.unwrap_or_else(|| unreachable!("our own descriptors have ModelConfig"))
}

fn policy(model: &str, message: &DynamicMessage, draft: &mut Draft) -> ModelPolicy {
    fields::refuse(message, draft);
    let config: ModelConfig = message.transcode_to().unwrap_or_default();
    identity(model, &config, draft);
    let mut runtime = OnnxRuntimePolicy::default();
    optimization::read(&config, &mut runtime, draft);
    let parameters = parameters::read(&config, &mut runtime, draft);
    order(&mut runtime.cuda);
    runtime.tensorrt.iter_mut().for_each(order);
    let mut batch = batching::read(&config, draft);
    let sequence = sequence::read(&config, &mut batch, draft);
    let ensemble = ensemble::read(&config, draft);
    let tensors = tensors::read(&config, draft);
    let policy = ModelPolicy {
        batch,
        padding: None,
        ragged: ragged::read(&config, draft),
        sequence,
        queue: match ensemble {
            // Its requests wait with the models of its steps.
            Some(_) => QueuePolicy::default(),
            None => queue::read(&config, draft),
        },
        versions: versions::read(&config, draft),
        instances: instances::read(&config, parameters.threads, draft),
        warm_up: warm_up::read(&config, draft),
        backend: BackendPolicy::OnnxRuntime(runtime),
        labels: tensors::labels(&config, draft),
        response_cache: cache::read(&config, draft),
        executor_timeout: None,
        // An ensemble has no tensors but those of its graph.
        tensors: match ensemble {
            Some(_) => TensorsPolicy::default(),
            None => tensors,
        },
        ensemble,
        file: file_name(&config).map(|name| {
            draft.check_file_name("default_model_filename", name);
            name.to_owned()
        }),
        notes: Notes {
            parameters: parameters.others,
            metric_tags: metric_tags(config.metric_tags, draft),
        },
    };
    if let (Some(ragged), Some(message)) = (&policy.ragged, excluded(&policy)) {
        draft.note(ragged::field(ragged), message);
    }
    policy
}

/// Whether this is the model's own configuration, and the model one that is served.
fn identity(model: &str, config: &ModelConfig, draft: &mut Draft) {
    let name = &config.name;
    if !name.is_empty() && name != model {
        draft.note(
            "name",
            format!(
                "found {name:?}; the model is called {model:?}; leave the name out or make it that"
            ),
        );
    }
    if ensemble::is_one(config) {
        return;
    }
    let known = [
        ("platform", &config.platform, "onnxruntime_onnx"),
        ("backend", &config.backend, "onnxruntime"),
    ];
    for (field, found, allowed) in known {
        if !found.is_empty() && found != allowed {
            draft.note(
                field,
                format!("found {found:?}; allowed: {allowed:?}, for ONNX models alone are served"),
            );
        }
    }
}

fn metric_tags(tags: HashMap<String, String>, draft: &mut Draft) -> Vec<(String, String)> {
    let tags = sorted(tags);
    for (name, value) in &tags {
        if let Some(wrong) = wrong_tag(name, value) {
            draft.note("metric_tags", wrong);
        }
    }
    if tags.len() > MOST_TAGS {
        let message = format!("found {} tags; allowed: at most {MOST_TAGS}", tags.len());
        draft.note("metric_tags", message);
    }
    tags
}

/// The file that is named, if it is not the default.
fn file_name(config: &ModelConfig) -> Option<&str> {
    let name = config.default_model_filename.as_str();
    (!name.is_empty() && name != "model.onnx").then_some(name)
}

/// Puts options in the order of their names. One that is given twice counts as it was given last.
fn order(options: &mut Vec<(String, String)>) {
    options.reverse();
    options.sort_by(|one, other| one.0.cmp(&other.0));
    options.dedup_by(|one, other| one.0 == other.0);
}

/// The entries of a map in an order that is always the same.
fn sorted<V>(map: impl IntoIterator<Item = (String, V)>) -> Vec<(String, V)> {
    let mut entries: Vec<(String, V)> = map.into_iter().collect();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    entries
}

#[cfg(test)]
mod tests;
