//! What becomes of each field of a ModelConfig.

use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use super::draft::Draft;

/// What becomes of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Meaning {
    /// It is honoured: what it becomes in `model.toml`.
    Is(&'static str),
    /// It may be there and changes nothing, for this reason.
    Idle(&'static str),
    /// It is refused: what to do instead.
    Refused(&'static str),
}

use Meaning::{Idle, Is, Refused};

/// Every field, by its message.
#[rustfmt::skip]
pub(super) const FIELDS: &[(&str, Meaning)] = &[
    ("ModelConfig.name", Is("has to be the folder's name, if it is given")),
    ("ModelConfig.platform", Is("`onnxruntime_onnx`, `ensemble`, or left out")),
    ("ModelConfig.backend", Is("`onnxruntime`, or left out")),
    ("ModelConfig.runtime", Refused("a model brings no library of its own; leave it out")),
    ("ModelConfig.version_policy", Is("`versions`")),
    ("ModelConfig.max_batch_size", Is("`max_batch_size`; 0 is `batch_axis = \"none\"`; left out, with neither inputs nor outputs, the model decides")),
    ("ModelConfig.input", Is("`[[inputs]]`: all of the model's, if any")),
    ("ModelConfig.output", Is("`[[outputs]]`: those that clients see")),
    ("ModelConfig.batch_input", Is("`[[ragged.batch_inputs]]`")),
    ("ModelConfig.batch_output", Is("`[[ragged.batch_outputs]]`")),
    ("ModelConfig.optimization", Is("`[onnxruntime]`")),
    ("ModelConfig.dynamic_batching", Is("`batch_axis = \"first\"`, and what is in it; without it rows are put together if a trial run agrees")),
    ("ModelConfig.sequence_batching", Is("`[sequence]`")),
    ("ModelConfig.ensemble_scheduling", Is("`[ensemble]`, whose tensors are `input` and `output`")),
    ("ModelConfig.instance_group", Is("`[[instances]]`")),
    ("ModelConfig.default_model_filename", Is("`model_file`")),
    ("ModelConfig.cc_model_filenames", Refused("every GPU loads the same file; name it in default_model_filename")),
    ("ModelConfig.metric_tags", Is("`[metric_tags]`: labels of its metrics, and told to clients")),
    ("ModelConfig.parameters", Is("`[onnxruntime]` and `threads`, [see below](#parameters-of-the-backend); others become `[parameters]` and are told to clients")),
    ("ModelConfig.model_warmup", Is("`[[warm_up.requests]]`")),
    ("ModelConfig.model_operations", Refused("libraries of operators are not loaded; use ONNX Runtime's own operators")),
    ("ModelConfig.model_transaction_policy", Is("one answer to a request")),
    ("ModelConfig.model_repository_agents", Refused("agents are not run; put the model into the repository as it is to be served")),
    ("ModelConfig.response_cache", Is("`response_cache`")),
    ("ModelConfig.model_metrics", Refused("the buckets of histograms cannot be set; take the section out")),

    ("ModelVersionPolicy.latest", Is("`versions = { latest = N }`")),
    ("ModelVersionPolicy.all", Is("`versions = \"all\"`")),
    ("ModelVersionPolicy.specific", Is("`versions = [N, N]`")),
    ("ModelVersionPolicy.Latest.num_versions", Is("0 counts as 1")),
    ("ModelVersionPolicy.Specific.versions", Is("at least one")),

    ("ModelInput.name", Is("`name`, the model's own")),
    ("ModelInput.data_type", Is("`dtype`, the model's own")),
    ("ModelInput.format", Is("`format`: told to clients; nothing is rearranged")),
    ("ModelInput.dims", Is("`shape`: has to be the model's, or narrower")),
    ("ModelInput.reshape", Is("`reshape`")),
    ("ModelInput.is_shape_tensor", Refused("TensorRT's shape tensors are not offered; leave it out")),
    ("ModelInput.allow_ragged_batch", Is("`inputs` of `[ragged]`: laid end to end where the model takes one dimension, else padded")),
    ("ModelInput.optional", Is("`optional`: of an input for which the graph has a value")),
    ("ModelInput.is_non_linear_format_io", Refused("TensorRT's formats are not offered; leave it out")),
    ("ModelTensorReshape.shape", Is("the shape that the model has")),
    ("ModelOutput.name", Is("`name`, the model's own")),
    ("ModelOutput.data_type", Is("`dtype`, the model's own")),
    ("ModelOutput.dims", Is("`shape`: has to be the model's, or narrower")),
    ("ModelOutput.reshape", Is("`reshape`")),
    ("ModelOutput.label_filename", Is("`[labels]`")),
    ("ModelOutput.is_shape_tensor", Refused("TensorRT's shape tensors are not offered; leave it out")),
    ("ModelOutput.is_non_linear_format_io", Refused("TensorRT's formats are not offered; leave it out")),

    ("BatchInput.kind", Is("`kind`")),
    ("BatchInput.target_name", Is("`targets`")),
    ("BatchInput.data_type", Is("`dtype`: TYPE_FP32 or TYPE_INT32")),
    ("BatchInput.source_input", Is("`source`: one")),
    ("BatchOutput.target_name", Is("`targets`")),
    ("BatchOutput.kind", Is("BATCH_SCATTER_WITH_INPUT_SHAPE")),
    ("BatchOutput.source_input", Is("`source`: one")),
    ("ModelOptimizationPolicy.graph", Is("`optimization`")),
    ("ModelOptimizationPolicy.priority", Idle("Triton reads it for TensorRT's own models alone; `weight` in model.toml divides a device")),
    ("ModelOptimizationPolicy.cuda", Is("see its fields")),
    ("ModelOptimizationPolicy.execution_accelerators", Is("see its fields")),
    ("ModelOptimizationPolicy.input_pinned_memory", Idle("inputs for a GPU are always stacked in pinned memory")),
    ("ModelOptimizationPolicy.output_pinned_memory", Idle("outputs of a GPU always come in pinned memory")),
    ("ModelOptimizationPolicy.gather_kernel_buffer_threshold", Idle("inputs are gathered by the host, without a kernel")),
    ("ModelOptimizationPolicy.eager_batching", Idle("the next batch always forms while one runs")),
    ("ModelOptimizationPolicy.Graph.level", Is("`optimization`: -1 is `basic`, 0 `all`, 1 `extended`, 2 `disable`")),
    ("ModelOptimizationPolicy.Cuda.graphs", Refused("CUDA graphs need one shape; a model that has one may set enable_cuda_graph in [onnxruntime.cuda] of model.toml")),
    ("ModelOptimizationPolicy.Cuda.busy_wait_events", Idle("how a thread waits for the GPU changes no answer")),
    ("ModelOptimizationPolicy.Cuda.graph_spec", Refused("CUDA graphs need one shape; leave it out")),
    ("ModelOptimizationPolicy.Cuda.output_copy_stream", Idle("outputs are copied on the stream that computes them")),
    ("ModelOptimizationPolicy.ExecutionAccelerators.gpu_execution_accelerator", Is("`tensorrt` is `[onnxruntime.tensorrt]`, `cuda` is `[onnxruntime.cuda]`")),
    ("ModelOptimizationPolicy.ExecutionAccelerators.cpu_execution_accelerator", Refused("ONNX Runtime's own provider runs on the CPU; leave it out")),
    ("ModelOptimizationPolicy.ExecutionAccelerators.Accelerator.name", Is("`tensorrt` or `cuda`")),
    ("ModelOptimizationPolicy.ExecutionAccelerators.Accelerator.parameters", Is("the provider's options; of TensorRT also `precision_mode`, `max_workspace_size_bytes`, `int8_calibration_table_name`, `int8_use_native_calibration_table`")),
    ("ModelOptimizationPolicy.PinnedMemoryBuffer.enable", Idle("it is always on where there is a GPU")),

    ("ModelDynamicBatching.preferred_batch_size", Is("`preferred_batch_sizes`")),
    ("ModelDynamicBatching.max_queue_delay_microseconds", Is("`max_queue_delay_ms`")),
    ("ModelDynamicBatching.preserve_ordering", Is("`preserve_ordering`")),
    ("ModelDynamicBatching.priority_levels", Is("`priority_levels`, at most 100; 0: requests have no priority")),
    ("ModelDynamicBatching.default_priority_level", Is("`default_priority`")),
    ("ModelDynamicBatching.default_queue_policy", Is("`[queue_timeout]` and `max_queue_size`")),
    ("ModelDynamicBatching.priority_queue_policy", Is("`[[priorities]]`")),
    ("ModelQueuePolicy.timeout_action", Is("`action`")),
    ("ModelQueuePolicy.default_timeout_microseconds", Is("`after_ms`; 0: for ever")),
    ("ModelQueuePolicy.allow_timeout_override", Is("`allow_override`")),
    ("ModelQueuePolicy.max_queue_size", Is("`max_queue_size`, of each priority; 0: up to what the server takes (`max_requests`)")),

    ("ModelInstanceGroup.name", Idle("groups are told to clients by their devices")),
    ("ModelInstanceGroup.kind", Is("`device`: KIND_AUTO is the server's, KIND_GPU `cuda`, KIND_CPU `cpu`")),
    ("ModelInstanceGroup.count", Is("`count`, on each device; 0 counts as 1")),
    ("ModelInstanceGroup.rate_limiter", Is("`resources` and `priority` of `[[instances]]`")),
    ("ModelInstanceGroup.gpus", Is("`device = \"cuda:N\"`, a table for each")),
    ("ModelInstanceGroup.secondary_devices", Refused("accelerators beside the GPU are not offered; leave it out")),
    ("ModelInstanceGroup.profile", Refused("TensorRT's profiles are not chosen by hand; set trt_profile_* in [onnxruntime.tensorrt] of model.toml")),
    ("ModelInstanceGroup.passive", Refused("every instance takes requests; leave the group out")),
    ("ModelInstanceGroup.host_policy", Refused("threads are not bound to cores or nodes; start the server with numactl")),

    ("ModelParameter.string_value", Is("the value")),
    ("ModelWarmup.name", Is("`name`")),
    ("ModelWarmup.batch_size", Is("`rows`; 0 counts as 1")),
    ("ModelWarmup.inputs", Is("`inputs`")),
    ("ModelWarmup.count", Is("`count`; 0 counts as 1")),
    ("ModelWarmup.Input.data_type", Is("`dtype`")),
    ("ModelWarmup.Input.dims", Is("`shape`")),
    ("ModelWarmup.Input.zero_data", Is("zeros")),
    ("ModelWarmup.Input.random_data", Is("`random = true`")),
    ("ModelWarmup.Input.input_data_file", Is("`file`: one row, in the folder `warmup` beside the versions")),
    ("ModelResponseCache.enable", Is("not for stateful models")),
    ("ModelRateLimiter.resources", Is("`resources`")),
    ("ModelRateLimiter.priority", Is("`priority`; 0 counts as 1")),
    ("ModelRateLimiter.Resource.name", Is("`name`")),
    ("ModelRateLimiter.Resource.global", Is("`global`")),
    ("ModelRateLimiter.Resource.count", Is("`count`; 0 counts as 1")),
    ("ModelSequenceBatching.direct", Is("`strategy = \"direct\"`")),
    ("ModelSequenceBatching.oldest", Is("`strategy = \"oldest\"`")),
    ("ModelSequenceBatching.max_sequence_idle_microseconds", Is("`max_idle_ms`; 0: a second")),
    ("ModelSequenceBatching.control_input", Is("`controls`")),
    ("ModelSequenceBatching.state", Is("`states`")),
    ("ModelSequenceBatching.iterative_sequence", Refused("a request runs once; leave it out")),
    ("ModelSequenceBatching.Control.kind", Is("`kind`")),
    ("ModelSequenceBatching.Control.int32_false_true", Is("`values`")),
    ("ModelSequenceBatching.Control.fp32_false_true", Is("`values`")),
    ("ModelSequenceBatching.Control.bool_false_true", Is("`values`")),
    ("ModelSequenceBatching.Control.data_type", Idle("the correlation id has the type of the model's input")),
    ("ModelSequenceBatching.ControlInput.name", Is("`input`")),
    ("ModelSequenceBatching.ControlInput.control", Is("one for each input")),
    ("ModelSequenceBatching.InitialState.data_type", Idle("the state has the type of the model's input")),
    ("ModelSequenceBatching.InitialState.dims", Is("`shape`")),
    ("ModelSequenceBatching.InitialState.zero_data", Is("zeros")),
    ("ModelSequenceBatching.InitialState.data_file", Is("`initial_file`, in the folder `initial_state` beside the versions")),
    ("ModelSequenceBatching.InitialState.name", Idle("nothing refers to it")),
    ("ModelSequenceBatching.State.input_name", Is("`input`")),
    ("ModelSequenceBatching.State.output_name", Is("`output`; `visible` if it is in `output` too")),
    ("ModelSequenceBatching.State.data_type", Idle("the state has the type of the model's input")),
    ("ModelSequenceBatching.State.dims", Is("`shape`, where none of them varies and initial_state has none")),
    ("ModelSequenceBatching.State.initial_state", Is("one at most")),
    ("ModelSequenceBatching.State.use_same_buffer_for_input_output", Idle("states are copied out of their batch")),
    ("ModelSequenceBatching.State.use_growable_memory", Idle("states may grow, up to `max_state_bytes`")),
    ("ModelSequenceBatching.StrategyDirect.max_queue_delay_microseconds", Is("`max_queue_delay_ms`")),
    ("ModelSequenceBatching.StrategyDirect.minimum_slot_utilization", Idle("there are no slots that could be empty")),
    ("ModelSequenceBatching.StrategyOldest.max_candidate_sequences", Is("`max_candidate_sequences`")),
    ("ModelSequenceBatching.StrategyOldest.preferred_batch_size", Is("`preferred_batch_sizes`")),
    ("ModelSequenceBatching.StrategyOldest.max_queue_delay_microseconds", Is("`max_queue_delay_ms`")),
    ("ModelSequenceBatching.StrategyOldest.preserve_ordering", Idle("the answers of a sequence are in order always")),
    ("ModelEnsembling.step", Is("`steps`")),
    ("ModelEnsembling.max_inflight_requests", Is("`max_in_flight`; 0: 1024")),
    ("ModelEnsembling.Step.model_name", Is("`model`")),
    ("ModelEnsembling.Step.model_version", Is("`version`; -1: the newest")),
    ("ModelEnsembling.Step.input_map", Is("`inputs`")),
    ("ModelEnsembling.Step.output_map", Is("`outputs`")),
    ("ModelEnsembling.Step.model_namespace", Refused("models have no namespaces; leave it out")),
    ("ModelTransactionPolicy.decoupled", Refused("a request has one answer; leave it out")),
];

/// What becomes of the field of this name.
pub(super) fn meaning(name: &str) -> Option<Meaning> {
    let found = FIELDS.iter().find(|(own, _)| *own == name);
    found.map(|(_, meaning)| *meaning)
}

/// Notes every field of `message` that is set and refused.
pub(super) fn refuse(message: &DynamicMessage, draft: &mut Draft) {
    walk(message, "", draft);
}

fn walk(message: &DynamicMessage, path: &str, draft: &mut Draft) {
    let descriptor = message.descriptor();
    let full_name = descriptor.full_name();
    let message_name = full_name.strip_prefix("inference.").unwrap_or(full_name);
    for (field, value) in message.fields() {
        let name = format!("{message_name}.{}", field.name());
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{}", field.name());
        match meaning(&name) {
            Some(Is(_)) => descend(value, &path, draft),
            Some(Idle(_)) => {}
            Some(Refused(advice)) => draft.note(&path, format!("is refused: {advice}")),
            None => draft.note(&path, "is not known to this version; leave it out"),
        }
    }
}

fn descend(value: &Value, path: &str, draft: &mut Draft) {
    match value {
        Value::Message(message) => walk(message, path, draft),
        Value::List(values) => {
            for (index, value) in values.iter().enumerate() {
                // Nothing is in a number, of which there may be hundreds of thousands.
                if matches!(value, Value::Message(_)) {
                    descend(value, &format!("{path}[{index}]"), draft);
                }
            }
        }
        Value::Map(entries) => {
            for (key, value) in entries {
                descend(value, &format!("{path}[{}].value", key_text(key)), draft);
            }
        }
        _ => {}
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::String(text) => text.clone(),
        MapKey::Bool(truth) => truth.to_string(),
        MapKey::I32(number) => number.to_string(),
        MapKey::I64(number) => number.to_string(),
        MapKey::U32(number) => number.to_string(),
        MapKey::U64(number) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost_reflect::{Kind, MessageDescriptor};

    use super::*;

    /// Every field that can be reached without passing one that is refused as a whole.
    fn reachable(message: &MessageDescriptor, names: &mut BTreeSet<String>) {
        for field in message.fields() {
            let own = message.full_name().strip_prefix("inference.").unwrap();
            let name = format!("{own}.{}", field.name());
            let seen = !names.insert(name.clone());
            if seen || matches!(meaning(&name), Some(Refused(_))) {
                continue;
            }
            let kind = match field.kind() {
                Kind::Message(entry) if entry.is_map_entry() => {
                    entry.map_entry_value_field().kind()
                }
                kind => kind,
            };
            if let Kind::Message(inner) = kind {
                reachable(&inner, names);
            }
        }
    }

    #[test]
    fn every_field_has_its_meaning_and_every_meaning_its_field() {
        let mut names = BTreeSet::new();
        reachable(&super::super::descriptor(), &mut names);
        let table: BTreeSet<String> = FIELDS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(table.len(), FIELDS.len());
        let missing: Vec<_> = names.difference(&table).collect();
        let idle: Vec<_> = table.difference(&names).collect();
        assert!(
            missing.is_empty() && idle.is_empty(),
            "{missing:?} {idle:?}"
        );
    }

    /// The table as `docs/configuration.md` has it.
    fn documented() -> String {
        let mut lines = vec![
            "| Field | What becomes of it |".to_owned(),
            "|---|---|".to_owned(),
        ];
        lines.extend(FIELDS.iter().map(|(name, meaning)| match meaning {
            Is(what) => format!("| `{name}` | {what} |"),
            Idle(why) => format!("| `{name}` | changes nothing: {why} |"),
            Refused(advice) => format!("| `{name}` | **refused**: {advice} |"),
        }));
        lines.join("\n")
    }

    #[test]
    fn the_table_is_in_the_documentation() {
        let documentation = include_str!("../../../docs/configuration.md");
        let documented = documented();
        assert!(
            documentation.contains(&documented),
            "put this there:\n{documented}"
        );
    }
}
