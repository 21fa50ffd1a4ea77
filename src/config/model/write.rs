//! A policy as the `model.toml` that means it: what `jitney check` shows.

use std::time::Duration;

use toml::{Table, Value};

use super::MOST_ROWS;
use crate::config::{ragged, sequence};
use crate::model::{
    BackendPolicy, BatchAxis, DeviceChoice, EnsemblePolicy, EnsembleStep, InstanceGroup,
    LabelPolicy, ModelPolicy, NeededResource, OnnxRuntimePolicy, OptimizationLevel, PaddingPolicy,
    PriorityPolicy, QueuePolicy, QueueTimeout, SimulatedPolicy, TensorFormat, TensorPolicy,
    TensorSpec, TimeoutAction, VersionPolicy, WarmUpData, WarmUpInput, WarmUpRequest,
};

/// The `model.toml` that means `policy`, with every default written out.
pub fn write_model_policy(policy: &ModelPolicy) -> String {
    let mut table = Table::new();
    let mut put = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
    let size = policy.batch.max_batch_size;
    // What an ensemble leaves to its models is not said.
    if policy.ensemble.is_none() || size != MOST_ROWS {
        put("max_batch_size", whole(size));
    }
    put("batch_axis", axis(policy.batch.axis).into());
    put(
        "default_priority",
        whole(policy.queue.default_priority as usize),
    );
    if let Some(deadline) = policy.queue.default_deadline {
        put("default_deadline_ms", milliseconds(deadline));
    }
    if let Some(objective) = policy.queue.latency_objective {
        put("latency_objective_ms", milliseconds(objective));
    }
    put("versions", versions(&policy.versions));
    if !policy.labels.0.is_empty() {
        put("labels", labels(&policy.labels));
    }
    let notes = [
        ("parameters", &policy.notes.parameters),
        ("metric_tags", &policy.notes.metric_tags),
    ];
    for (key, notes) in notes.into_iter().filter(|(_, notes)| !notes.is_empty()) {
        put(key, options(notes));
    }
    match &policy.ensemble {
        Some(policy) => put("ensemble", ensemble(policy)),
        None => write_lane(policy, put),
    }
    table.to_string()
}

/// What only a model has that is run by itself: its queue, and what runs it.
fn write_lane(policy: &ModelPolicy, mut put: impl FnMut(&str, Value)) {
    put(
        "max_queue_delay_ms",
        milliseconds(policy.batch.max_queue_delay),
    );
    if !policy.batch.preferred_sizes.is_empty() {
        put(
            "preferred_batch_sizes",
            sizes(&policy.batch.preferred_sizes),
        );
    }
    if !policy.batch.sizes.is_empty() {
        put("batch_sizes", sizes(&policy.batch.sizes));
    }
    if let Some(policy) = &policy.padding {
        put("padding", padding(policy));
    }
    if let Some(policy) = &policy.ragged {
        put("ragged", ragged::write(policy));
    }
    if let Some(policy) = &policy.sequence {
        put("sequence", sequence::write(policy));
    }
    put("weight", whole(policy.queue.weight as usize));
    put("max_queue_size", whole(policy.queue.max_queue_size));
    put("response_cache", policy.response_cache.into());
    if let Some(timeout) = policy.executor_timeout {
        put("executor_timeout_ms", milliseconds(timeout));
    }
    if !policy.instances.is_empty() {
        put("instances", list(policy.instances.iter().map(instance)));
    }
    queue(&policy.queue, &mut put);
    let tensors = [
        ("inputs", &policy.tensors.inputs),
        ("outputs", &policy.tensors.outputs),
    ];
    for (key, tensors) in tensors
        .into_iter()
        .filter(|(_, tensors)| !tensors.is_empty())
    {
        put(key, list(tensors.iter().map(declared)));
    }
    if let Some(file) = &policy.file {
        put("model_file", file.as_str().into());
    }
    let shapes = policy.warm_up.shapes.iter().map(|shape| {
        let dimensions = shape.dimensions.iter().map(|size| Value::Integer(*size));
        (shape.input.clone(), list(dimensions))
    });
    let mut warm_up = Table::from_iter([("runs".to_owned(), whole(policy.warm_up.runs))]);
    if !policy.warm_up.shapes.is_empty() {
        warm_up.insert("shapes".to_owned(), Value::Table(shapes.collect()));
    }
    if !policy.warm_up.requests.is_empty() {
        warm_up.insert(
            "requests".to_owned(),
            list(policy.warm_up.requests.iter().map(request)),
        );
    }
    put("warm_up", Value::Table(warm_up));
    match &policy.backend {
        BackendPolicy::OnnxRuntime(options) => put("onnxruntime", onnxruntime(options)),
        BackendPolicy::Simulated(simulated) => put("simulated", self::simulated(simulated)),
    }
}

fn queue(policy: &QueuePolicy, put: &mut impl FnMut(&str, Value)) {
    if policy.priority_levels != QueuePolicy::LEVELS {
        put("priority_levels", whole(policy.priority_levels as usize));
    }
    if policy.preserve_ordering {
        put("preserve_ordering", true.into());
    }
    if let Some(timeout) = &policy.timeout {
        put("queue_timeout", queue_timeout(timeout));
    }
    if !policy.priorities.is_empty() {
        put("priorities", list(policy.priorities.iter().map(priority)));
    }
}

fn queue_timeout(timeout: &QueueTimeout) -> Value {
    let action = match timeout.action {
        TimeoutAction::Reject => "reject",
        TimeoutAction::Delay => "delay",
    };
    let mut table = Table::from_iter([
        ("action".to_owned(), action.into()),
        ("allow_override".to_owned(), timeout.allow_override.into()),
    ]);
    if let Some(after) = timeout.after {
        table.insert("after_ms".to_owned(), milliseconds(after));
    }
    Value::Table(table)
}

fn priority(policy: &PriorityPolicy) -> Value {
    let mut table = Table::from_iter([
        ("level".to_owned(), whole(policy.level as usize)),
        ("timeout".to_owned(), queue_timeout(&policy.timeout)),
    ]);
    if let Some(size) = policy.max_queue_size {
        table.insert("max_queue_size".to_owned(), whole(size));
    }
    Value::Table(table)
}

fn declared(tensor: &TensorPolicy) -> Value {
    let shape = |shape: &[i64]| list(shape.iter().map(|size| Value::Integer(*size)));
    let mut table = Table::from_iter([
        ("name".to_owned(), tensor.name.clone().into()),
        ("dtype".to_owned(), tensor.dtype.name().into()),
        ("shape".to_owned(), shape(&tensor.shape)),
    ]);
    if let Some(reshape) = &tensor.reshape {
        table.insert("reshape".to_owned(), shape(reshape));
    }
    if let Some(format) = tensor.format {
        let format = match format {
            TensorFormat::Nhwc => "NHWC",
            TensorFormat::Nchw => "NCHW",
        };
        table.insert("format".to_owned(), format.into());
    }
    if tensor.optional {
        table.insert("optional".to_owned(), true.into());
    }
    Value::Table(table)
}

fn request(request: &WarmUpRequest) -> Value {
    let inputs = request.inputs.iter();
    let inputs = inputs.map(|input| (input.name.clone(), warm_up_input(input)));
    let mut table = Table::from_iter([
        ("rows".to_owned(), whole(request.rows)),
        ("count".to_owned(), whole(request.count)),
        ("inputs".to_owned(), Value::Table(inputs.collect())),
    ]);
    if !request.name.is_empty() {
        table.insert("name".to_owned(), request.name.as_str().into());
    }
    Value::Table(table)
}

fn warm_up_input(input: &WarmUpInput) -> Value {
    let shape = input.shape.iter().map(|size| Value::Integer(*size));
    let mut table = Table::from_iter([
        ("dtype".to_owned(), input.dtype.name().into()),
        ("shape".to_owned(), list(shape)),
    ]);
    match &input.data {
        WarmUpData::Zero => {}
        WarmUpData::Random => drop(table.insert("random".to_owned(), true.into())),
        WarmUpData::File(file) => drop(table.insert("file".to_owned(), file.as_str().into())),
    }
    Value::Table(table)
}

fn whole(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn bytes(number: u64) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn milliseconds(duration: Duration) -> Value {
    Value::Float(duration.as_secs_f64() * 1e3)
}

fn list(values: impl Iterator<Item = Value>) -> Value {
    Value::Array(values.collect())
}

fn sizes(sizes: &[usize]) -> Value {
    list(sizes.iter().map(|size| whole(*size)))
}

fn labels(policy: &LabelPolicy) -> Value {
    let files = policy.0.iter();
    let files = files.map(|labels| {
        let file = labels.file.to_string_lossy().into_owned();
        (labels.output.clone(), Value::String(file))
    });
    Value::Table(files.collect())
}

fn padding(policy: &PaddingPolicy) -> Value {
    let mut table = Table::new();
    let mut put = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
    if let Some(dimension) = &policy.dimension {
        put("dimension", dimension.as_str().into());
    }
    if !policy.axes.is_empty() {
        let axes = policy.axes.iter();
        let axes = axes.map(|(name, axis)| (name.clone(), whole(*axis)));
        put("axes", Value::Table(axes.collect()));
    }
    if !policy.values.is_empty() {
        let values = policy.values.iter();
        let values = values.map(|(name, value)| (name.clone(), Value::Float(*value)));
        put("values", Value::Table(values.collect()));
    }
    if let Some(mask) = &policy.mask {
        put("mask", mask.as_str().into());
    }
    if !policy.lengths.is_empty() {
        put("lengths", sizes(&policy.lengths));
    }
    if let Some(tokens) = policy.max_batch_tokens {
        put("max_batch_tokens", whole(tokens));
    }
    Value::Table(table)
}

fn axis(axis: BatchAxis) -> &'static str {
    match axis {
        BatchAxis::Auto => "auto",
        BatchAxis::First => "first",
        BatchAxis::Unbatched => "none",
    }
}

fn versions(policy: &VersionPolicy) -> Value {
    let one = |key: &str, value| Value::Table(Table::from_iter([(key.to_owned(), value)]));
    match policy {
        VersionPolicy::All => "all".into(),
        VersionPolicy::Latest(count) => one("latest", whole(*count)),
        VersionPolicy::Specific(versions) => one(
            "specific",
            list(versions.iter().map(|version| bytes(*version))),
        ),
    }
}

fn instance(group: &InstanceGroup) -> Value {
    let mut table = Table::from_iter([("count".to_owned(), whole(group.count))]);
    if let Some(device) = device(&group.device) {
        table.insert("device".to_owned(), device.into());
    }
    if let Some(threads) = group.threads {
        table.insert("threads".to_owned(), whole(threads));
    }
    if !group.resources.is_empty() {
        let resources = group.resources.iter().map(resource);
        table.insert("resources".to_owned(), list(resources));
    }
    table.insert("priority".to_owned(), whole(group.priority as usize));
    Value::Table(table)
}

fn resource(needed: &NeededResource) -> Value {
    Value::Table(Table::from_iter([
        ("name".to_owned(), needed.name.clone().into()),
        ("count".to_owned(), whole(needed.count as usize)),
        ("global".to_owned(), needed.global.into()),
    ]))
}

fn device(choice: &DeviceChoice) -> Option<String> {
    Some(match choice {
        DeviceChoice::Default => return None,
        DeviceChoice::Auto => "auto".to_owned(),
        DeviceChoice::Cpu => "cpu".to_owned(),
        DeviceChoice::CudaAll => "cuda".to_owned(),
        DeviceChoice::Cuda(number) => format!("cuda:{number}"),
        DeviceChoice::Simulated(number) => format!("simulated:{number}"),
    })
}

fn onnxruntime(policy: &OnnxRuntimePolicy) -> Value {
    let level = match policy.optimization {
        OptimizationLevel::Disable => "disable",
        OptimizationLevel::Basic => "basic",
        OptimizationLevel::Extended => "extended",
        OptimizationLevel::All => "all",
    };
    let mut table = Table::from_iter([("optimization".to_owned(), level.into())]);
    if let Some(share) = policy.share_weights {
        table.insert("share_weights".to_owned(), share.into());
    }
    if let Some(threads) = policy.inter_threads {
        table.insert("inter_threads".to_owned(), whole(threads));
    }
    if policy.parallel {
        table.insert("parallel".to_owned(), true.into());
    }
    let switches = [
        ("memory_pattern", policy.memory_pattern),
        ("arena", policy.arena),
    ];
    for (key, switch) in switches {
        table.extend(switch.map(|switch| (key.to_owned(), switch.into())));
    }
    let free_form = [
        ("session", &policy.session),
        ("cuda", &policy.cuda),
        ("run", &policy.run),
    ];
    for (key, entries) in free_form
        .into_iter()
        .filter(|(_, entries)| !entries.is_empty())
    {
        table.insert(key.to_owned(), options(entries));
    }
    if let Some(entries) = &policy.tensorrt {
        table.insert("tensorrt".to_owned(), options(entries));
    }
    Value::Table(table)
}

fn options(entries: &[(String, String)]) -> Value {
    let entries = entries.iter().cloned();
    Value::Table(entries.map(|(key, value)| (key, value.into())).collect())
}

fn ensemble(policy: &EnsemblePolicy) -> Value {
    Value::Table(Table::from_iter([
        ("max_in_flight".to_owned(), whole(policy.max_in_flight)),
        ("inputs".to_owned(), list(policy.inputs.iter().map(tensor))),
        (
            "outputs".to_owned(),
            list(policy.outputs.iter().map(tensor)),
        ),
        ("steps".to_owned(), list(policy.steps.iter().map(step))),
    ]))
}

fn step(step: &EnsembleStep) -> Value {
    let mut table = Table::from_iter([
        ("model".to_owned(), step.model.as_str().into()),
        ("inputs".to_owned(), options(&step.inputs)),
        ("outputs".to_owned(), options(&step.outputs)),
    ]);
    if let Some(version) = step.version {
        table.insert("version".to_owned(), bytes(version));
    }
    Value::Table(table)
}

fn simulated(policy: &SimulatedPolicy) -> Value {
    let mut table = Table::from_iter([
        ("inputs".to_owned(), list(policy.inputs.iter().map(tensor))),
        (
            "outputs".to_owned(),
            list(policy.outputs.iter().map(tensor)),
        ),
        ("fixed_ms".to_owned(), milliseconds(policy.fixed)),
        ("per_row_ms".to_owned(), milliseconds(policy.per_row)),
        (
            "per_element_ms".to_owned(),
            milliseconds(policy.per_element),
        ),
        ("cold_runs".to_owned(), bytes(policy.cold_runs)),
        ("cold_ms".to_owned(), milliseconds(policy.cold)),
        (
            "slowdown".to_owned(),
            list(policy.slowdown.iter().copied().map(Value::Float)),
        ),
        (
            "memory_per_row_bytes".to_owned(),
            bytes(policy.memory_per_row_bytes),
        ),
        ("batch_sizes".to_owned(), sizes(&policy.batch_sizes)),
        ("load_ms".to_owned(), milliseconds(policy.load)),
        ("memory_bytes".to_owned(), bytes(policy.memory_bytes)),
        (
            "device_memory_bytes".to_owned(),
            bytes(policy.device_memory_bytes),
        ),
        ("time_sliced".to_owned(), policy.time_sliced.into()),
        ("fail_every".to_owned(), bytes(policy.fail_every)),
        ("panic_every".to_owned(), bytes(policy.panic_every)),
    ]);
    let poisons = [
        ("panic_on", policy.panic_on),
        ("abort_on", policy.abort_on),
        ("hang_on", policy.hang_on),
    ];
    for (key, number) in poisons {
        table.extend(number.map(|number| (key.to_owned(), Value::Float(number.into()))));
    }
    for (key, file) in [
        ("lost_while_exists", &policy.lost_while_exists),
        ("waits_while_exists", &policy.waits_while_exists),
    ] {
        if let Some(file) = file {
            let path = file.to_string_lossy().into_owned();
            table.insert(key.to_owned(), path.into());
        }
    }
    Value::Table(table)
}

fn tensor(spec: &TensorSpec) -> Value {
    let shape = spec.protocol_shape().into_iter().map(Value::Integer);
    Value::Table(Table::from_iter([
        ("name".to_owned(), spec.name.clone().into()),
        ("dtype".to_owned(), spec.dtype.name().into()),
        ("shape".to_owned(), list(shape)),
    ]))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read_model_policy;

    #[test]
    fn what_is_written_means_the_same() {
        for source in [
            "",
            "max_batch_size = 9\ndefault_priority = 2\n[ensemble]\nmax_in_flight = 7\ninputs = [{ name = \"x\", dtype = \"FP32\", shape = [-1, 2] }]\noutputs = [{ name = \"z\", dtype = \"INT8\", shape = [-1] }]\n[[ensemble.steps]]\nmodel = \"m\"\nversion = 3\ninputs = { a = \"x\" }\noutputs = { b = \"y\" }\n[[ensemble.steps]]\nmodel = \"n\"\ninputs = { a = \"y\" }\noutputs = { b = \"z\" }\n",
            "batch_sizes = [2, 8]\n[padding]\ndimension = \"sequence\"\nvalues = { x = -1.5 }\nmask = \"m\"\nlengths = [8, 64]\nmax_batch_tokens = 512\n",
            "[sequence]\nmax_sequences = 7\n",
            "[sequence]\nstrategy = \"oldest\"\nmax_candidate_sequences = 3\nmax_idle_ms = 2.5\nmax_state_bytes = 9\ncontrols = [{ input = \"s\", kind = \"start\", values = [-1, 1] }, { input = \"r\", kind = \"ready\" }, { input = \"e\", kind = \"end\" }, { input = \"c\", kind = \"corrid\" }]\nstates = [{ input = \"a\", output = \"b\", visible = true }, { input = \"c\", output = \"d\", shape = [0, 2], initial_file = \"f/g\" }]\n",
            "[padding]\naxes = { x = 1, y = 2 }\n",
            "[ragged]\ninputs = [\"x\", \"y\"]\nbatch_inputs = [{ kind = \"item_shape\", targets = [\"a\", \"b\"], source = \"x\" }, { kind = \"element_count\", dtype = \"FP32\", targets = [\"c\"], source = \"y\" }]\nbatch_outputs = [{ targets = [\"z\"], source = \"x\" }]\n",
            "priority_levels = 3\npreserve_ordering = true\nmodel_file = \"m.onnx\"\nqueue_timeout = { after_ms = 1.001, action = \"delay\", allow_override = true }\n[[priorities]]\nlevel = 2\nmax_queue_size = 7\ntimeout = { after_ms = 3 }\n[[inputs]]\nname = \"x\"\ndtype = \"FP32\"\nshape = [-1, 4]\nreshape = [-1, 2, 2]\nformat = \"NCHW\"\noptional = true\n[[outputs]]\nname = \"y\"\ndtype = \"INT64\"\nshape = [1]\nreshape = []\n[parameters]\np = \"q\"\n[metric_tags]\na = \"b\"\n[[warm_up.requests]]\nname = \"w\"\nrows = 2\ncount = 3\n[warm_up.requests.inputs]\nx = { dtype = \"FP32\", shape = [4] }\ny = { dtype = \"BYTES\", shape = [1], random = true }\nz = { dtype = \"BYTES\", shape = [1], file = \"z\" }\n[onnxruntime]\ninter_threads = 2\nparallel = true\nmemory_pattern = false\narena = true\n[onnxruntime.run]\n\"memory.enable_memory_arena_shrinkage\" = \"cpu:0\"\n",
            "[labels]\ny = \"labels/en.txt\"\n",
            "response_cache = true\nexecutor_timeout_ms = 1500\nmax_batch_size = 7\nweight = 3\nbatch_axis = \"none\"\nmax_queue_delay_ms = 1.5\ndefault_deadline_ms = 20\nlatency_objective_ms = 8.5\nversions = { specific = [2, 3] }\n[[instances]]\ncount = 2\ndevice = \"cuda:1\"\nthreads = 3\npriority = 2\nresources = [{ name = \"r\", count = 3, global = true }, { name = \"s\" }]\n[[instances]]\ndevice = \"cpu\"\n[warm_up]\nruns = 2\n[warm_up.shapes]\nx = [3, 4]\n[onnxruntime]\noptimization = \"basic\"\nshare_weights = true\n[onnxruntime.session]\n\"session.x\" = \"1\"\n[onnxruntime.cuda]\nuse_tf32 = 0\n[onnxruntime.tensorrt]\ntrt_fp16_enable = 1\n",
            "versions = \"all\"\n[simulated]\ninputs = [{ name = \"x\", dtype = \"FP32\", shape = [-1, 2] }]\noutputs = [{ name = \"y\", dtype = \"BYTES\", shape = [-1] }]\nfixed_ms = 2.25\nper_row_ms = 0.1\nmemory_bytes = 5\ntime_sliced = true\ndevice_memory_bytes = 9\nfail_every = 3\nabort_on = 2.5\nhang_on = 3\nlost_while_exists = \"gone\"\nwaits_while_exists = \"closed\"\n",
        ] {
            let file = Path::new("model.toml");
            let policy = read_model_policy(file, source).unwrap();
            let written = write_model_policy(&policy);
            assert_eq!(read_model_policy(file, &written), Ok(policy), "{written}");
        }
    }
}
