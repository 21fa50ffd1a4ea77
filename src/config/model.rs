//! `model.toml`: how one model is to be served.

mod write;

use std::path::Path;

use toml::de::DeValue;

use jitney_settings::rule::{OneOf, Parsed, Truth, Whole, milliseconds, whole, whole_from};
use jitney_settings::{Report, Table, read_document};

use super::rule::{DEVICE, FILE_NAME, OptionText};
use super::{
    ensemble, labels, padding, ragged, resource, sequence, simulated, tags, tensors, waiting,
    warm_up,
};
pub use write::write_model_policy;

use crate::model::{
    BackendPolicy, BatchAxis, BatchPolicy, InstanceGroup, ModelPolicy, Notes, OnnxRuntimePolicy,
    OptimizationLevel, QueuePolicy, SequencePolicy, VersionPolicy,
};

/// Rows in one batch.
const MOST_ROWS: usize = 65_536;

const AXES: OneOf<'_, BatchAxis> = OneOf(&[
    ("auto", BatchAxis::Auto),
    ("first", BatchAxis::First),
    ("none", BatchAxis::Unbatched),
]);

const VERSIONS: Parsed<VersionPolicy> = Parsed {
    parse: |text| match text {
        "latest" => Some(VersionPolicy::Latest(1)),
        "all" => Some(VersionPolicy::All),
        _ => None,
    },
    allowed: r#""latest", "all", { latest = N }, { specific = [N, N] }"#,
};

const OPTIMIZATIONS: OneOf<'_, OptimizationLevel> = OneOf(&[
    ("disable", OptimizationLevel::Disable),
    ("basic", OptimizationLevel::Basic),
    ("extended", OptimizationLevel::Extended),
    ("all", OptimizationLevel::All),
]);

/// What `source`, the text of the `model.toml` at `file`, means; or everything wrong with it.
///
/// The file is not opened: `file` is for the messages. The empty text is the default policy.
pub fn read_model_policy(file: &Path, source: &str) -> Result<ModelPolicy, Report> {
    read_document(file, source, |table| {
        let policy = policy(table);
        if let Some(reason) = policy.keeps_state().filter(|_| policy.response_cache) {
            let message = format!("found true; allowed: false, because {reason}");
            table.contradict("response_cache", message);
        }
        if let Some(message) = ragged::excluded(&policy) {
            table.contradict("ragged", message);
        }
        if let BackendPolicy::Simulated(_) = policy.backend
            && let Some(name) = policy.tensors.optional().next()
        {
            let message = format!("{name:?} is optional; a simulated model has no value for it");
            table.contradict("inputs", message);
        }
        policy
    })
}

fn policy(table: &mut Table<'_, '_>) -> ModelPolicy {
    ModelPolicy {
        batch: batch(table),
        padding: table.section("padding", padding::read),
        ragged: table.section("ragged", ragged::read),
        sequence: sequence(table),
        queue: queue(table),
        versions: versions(table).unwrap_or_default(),
        instances: table.sections("instances", instances).unwrap_or_default(),
        warm_up: table.section("warm_up", warm_up::read).unwrap_or_default(),
        labels: table.section("labels", labels::read).unwrap_or_default(),
        backend: backend(table),
        tensors: tensors::read(table),
        file: table.value("model_file", FILE_NAME),
        notes: Notes {
            parameters: table.section("parameters", options).unwrap_or_default(),
            metric_tags: table
                .section("metric_tags", metric_tags)
                .unwrap_or_default(),
        },
        executor_timeout: table.value("executor_timeout_ms", milliseconds(0.0..=86_400_000.0)),
        response_cache: table.value("response_cache", Truth).unwrap_or_default(),
        ensemble: ensemble::read(table),
    }
}

fn batch(table: &mut Table<'_, '_>) -> BatchPolicy {
    let default = BatchPolicy::default();
    let size = table.value("max_batch_size", whole(1..=MOST_ROWS));
    let axis = table.value("batch_axis", AXES);
    let delay = table.value("max_queue_delay_ms", milliseconds(0.0..=60_000.0));
    let preferred = table.list("preferred_batch_sizes", whole(1..=MOST_ROWS));
    let sizes = padding::sizes(table, "batch_sizes", MOST_ROWS);
    let most = sizes.last().copied();
    if let (Some(size), Some(most)) = (size, most)
        && size > most
    {
        let message = format!("found {size}; allowed: at most the largest of batch_sizes, {most}");
        table.contradict("max_batch_size", message);
    }
    // An ensemble takes as many rows as its models do, if it does not say fewer.
    let unsaid = match table.written("ensemble") {
        Some(_) => MOST_ROWS,
        None => default.max_batch_size,
    };
    BatchPolicy {
        axis: axis.unwrap_or(default.axis),
        max_batch_size: size.or(most).unwrap_or(unsaid),
        max_queue_delay: delay.unwrap_or(default.max_queue_delay),
        preferred_sizes: preferred.unwrap_or(default.preferred_sizes),
        sizes,
    }
}

fn sequence(table: &mut Table<'_, '_>) -> Option<SequencePolicy> {
    let sequence = table.section("sequence", sequence::read);
    if sequence.is_some() && table.written("padding").is_some() {
        let message = "contradicts padding: a row's padding would get into its sequence's state";
        table.contradict("sequence", message.to_owned());
    }
    sequence
}

fn queue(table: &mut Table<'_, '_>) -> QueuePolicy {
    let default = QueuePolicy::default();
    let size = table.value("max_queue_size", whole(1..=1_000_000));
    let deadline = table.value("default_deadline_ms", milliseconds(0.001..=86_400_000.0));
    let objective = table.value("latency_objective_ms", milliseconds(0.001..=86_400_000.0));
    let levels = table.value("priority_levels", whole(1..=QueuePolicy::MOST_LEVELS));
    let levels = levels.unwrap_or(default.priority_levels);
    let priority = table.value("default_priority", whole(1..=levels));
    let weight = table.value("weight", whole(1..=1000));
    QueuePolicy {
        max_queue_size: size.unwrap_or(default.max_queue_size),
        default_deadline: deadline.or(default.default_deadline),
        latency_objective: objective.or(default.latency_objective),
        default_priority: priority.unwrap_or(default.default_priority.min(levels)),
        weight: weight.unwrap_or(default.weight),
        priority_levels: levels,
        preserve_ordering: table.value("preserve_ordering", Truth).unwrap_or_default(),
        timeout: table.section("queue_timeout", waiting::timeout),
        priorities: waiting::priorities(table, levels),
    }
}

fn versions(table: &mut Table<'_, '_>) -> Option<VersionPolicy> {
    match table.written("versions") {
        Some(DeValue::Table(_)) => table.section("versions", chosen_versions).flatten(),
        Some(DeValue::Array(_)) => specific(table, "versions"),
        _ => table.value("versions", VERSIONS),
    }
}

fn chosen_versions(table: &mut Table<'_, '_>) -> Option<VersionPolicy> {
    let latest = table.value("latest", whole(1..=1_000));
    let specific = specific(table, "specific");
    if latest.is_some() && specific.is_some() {
        let message = "contradicts latest; keep one of the two";
        table.contradict("specific", message.to_owned());
    }
    if table.keys().is_empty() {
        table.required(
            "latest",
            None::<()>,
            "say { latest = N } or { specific = [N] }",
        );
    }
    latest.map(VersionPolicy::Latest).or(specific)
}

fn specific<'d>(table: &mut Table<'d, '_>, key: &'d str) -> Option<VersionPolicy> {
    let versions: Whole<u64> = whole_from(1);
    if matches!(table.written(key), Some(DeValue::Array(list)) if list.is_empty()) {
        let message = "found an empty list; allowed: at least one version, such as [1]";
        table.contradict(key, message.to_owned());
    }
    table.list(key, versions).map(VersionPolicy::Specific)
}

fn instances(table: &mut Table<'_, '_>) -> InstanceGroup {
    let default = InstanceGroup::default();
    InstanceGroup {
        count: table.value("count", whole(1..=64)).unwrap_or(default.count),
        device: table.value("device", DEVICE).unwrap_or(default.device),
        threads: table.value("threads", whole(1..=1_024)),
        resources: table
            .sections("resources", resource::needed)
            .unwrap_or_default(),
        priority: table
            .value("priority", whole(1..=1_000_000))
            .unwrap_or(default.priority),
    }
}

fn backend(table: &mut Table<'_, '_>) -> BackendPolicy {
    let onnxruntime = table.section("onnxruntime", onnxruntime);
    let simulated = table.section("simulated", simulated::read);
    if onnxruntime.is_some() && simulated.is_some() {
        let message = "contradicts onnxruntime: a model has one backend; remove one of the two";
        table.contradict("simulated", message.to_owned());
    }
    simulated.map_or_else(
        || BackendPolicy::OnnxRuntime(onnxruntime.unwrap_or_default()),
        BackendPolicy::Simulated,
    )
}

fn onnxruntime(table: &mut Table<'_, '_>) -> OnnxRuntimePolicy {
    OnnxRuntimePolicy {
        optimization: table
            .value("optimization", OPTIMIZATIONS)
            .unwrap_or_default(),
        share_weights: table.value("share_weights", Truth),
        session: table.section("session", options).unwrap_or_default(),
        cuda: table.section("cuda", options).unwrap_or_default(),
        inter_threads: table.value("inter_threads", whole(1..=1_024)),
        parallel: table.value("parallel", Truth).unwrap_or_default(),
        memory_pattern: table.value("memory_pattern", Truth),
        arena: table.value("arena", Truth),
        run: table.section("run", options).unwrap_or_default(),
        tensorrt: table.section("tensorrt", options),
    }
}

fn metric_tags(table: &mut Table<'_, '_>) -> Vec<(String, String)> {
    let read = options(table);
    tags::check(table, &read);
    read
}

fn options(table: &mut Table<'_, '_>) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for name in table.keys() {
        let value = table.value(name, OptionText);
        options.extend(value.map(|value| (name.to_owned(), value)));
    }
    options
}

#[cfg(test)]
mod tests;
