use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::model::{
    DeviceChoice, Dimension, EnsemblePolicy, EnsembleStep, LabelPolicy, NeededResource,
    OutputLabels, PaddingPolicy, SimulatedPolicy, TensorSpec, WarmUpPolicy, WarmUpShape,
};
use crate::tensor::Dtype;

fn read(source: &str) -> Result<ModelPolicy, String> {
    read_model_policy(Path::new("m/model.toml"), source).map_err(|report| report.to_string())
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

#[test]
fn nothing_written_is_the_default() {
    assert_eq!(read(""), Ok(ModelPolicy::default()));
    assert_eq!(
        read("[onnxruntime]\n[warm_up]\n"),
        Ok(ModelPolicy::default())
    );
}

#[test]
fn every_key_of_an_onnx_model() {
    let source = r#"
max_batch_size = 64
batch_axis = "first"
max_queue_delay_ms = 0.5
preferred_batch_sizes = [16, 32]
batch_sizes = [1, 64]
max_queue_size = 10
default_deadline_ms = 500
latency_objective_ms = 80
weight = 3
default_priority = 2
response_cache = true
executor_timeout_ms = 250
versions = { latest = 2 }

[padding]
dimension = "sequence"
values = { ids = -1 }
mask = "mask"
lengths = [16, 64]
max_batch_tokens = 2048

[[instances]]
count = 2
device = "cuda:1"
threads = 4
priority = 3
resources = [{ name = "slots", count = 2, global = true }]

[[instances]]

[warm_up]
runs = 0
[warm_up.shapes]
"input ids" = [8, 0x10]
scalar = []

[labels]
scores = "labels/en.txt"

[onnxruntime]
optimization = "basic"
share_weights = false
[onnxruntime.session]
"session.intra_op.allow_spinning" = false
[onnxruntime.cuda]
gpu_mem_limit = 2_147_483_648
arena_extend_strategy = "kSameAsRequested"
[onnxruntime.tensorrt]
trt_fp16_enable = true
ratio = 0.5
"#;
    let expected = ModelPolicy {
        batch: BatchPolicy {
            axis: BatchAxis::First,
            max_batch_size: 64,
            max_queue_delay: Duration::from_micros(500),
            preferred_sizes: vec![16, 32],
            sizes: vec![1, 64],
        },
        padding: Some(PaddingPolicy {
            dimension: Some("sequence".to_owned()),
            axes: Vec::new(),
            values: vec![("ids".to_owned(), -1.0)],
            mask: Some("mask".to_owned()),
            lengths: vec![16, 64],
            max_batch_tokens: Some(2048),
        }),
        sequence: None,
        queue: QueuePolicy {
            max_queue_size: 10,
            default_deadline: Some(Duration::from_millis(500)),
            latency_objective: Some(Duration::from_millis(80)),
            default_priority: 2,
            weight: 3,
            ..QueuePolicy::default()
        },
        versions: VersionPolicy::Latest(2),
        instances: vec![
            InstanceGroup {
                count: 2,
                device: DeviceChoice::Cuda(1),
                threads: Some(4),
                resources: vec![NeededResource {
                    name: "slots".to_owned(),
                    count: 2,
                    global: true,
                }],
                priority: 3,
            },
            InstanceGroup::default(),
        ],
        warm_up: WarmUpPolicy {
            runs: 0,
            shapes: vec![
                WarmUpShape {
                    input: "input ids".to_owned(),
                    dimensions: vec![8, 16],
                },
                WarmUpShape {
                    input: "scalar".to_owned(),
                    dimensions: Vec::new(),
                },
            ],
            ..WarmUpPolicy::default()
        },
        labels: LabelPolicy(vec![OutputLabels {
            output: "scores".to_owned(),
            file: PathBuf::from("labels/en.txt"),
            labels: [].into(),
        }]),
        backend: BackendPolicy::OnnxRuntime(OnnxRuntimePolicy {
            share_weights: Some(false),
            optimization: OptimizationLevel::Basic,
            session: pairs(&[("session.intra_op.allow_spinning", "0")]),
            cuda: pairs(&[
                ("arena_extend_strategy", "kSameAsRequested"),
                ("gpu_mem_limit", "2147483648"),
            ]),
            tensorrt: Some(pairs(&[("ratio", "0.5"), ("trt_fp16_enable", "1")])),
            ..OnnxRuntimePolicy::default()
        }),
        executor_timeout: Some(Duration::from_millis(250)),
        response_cache: true,
        ..ModelPolicy::default()
    };
    assert_eq!(read(source), Ok(expected));
}

#[test]
fn every_key_of_a_simulated_model() {
    let source = r#"
[simulated]
inputs = [{ name = "x", dtype = "FP32", shape = [-1, 16] }]
outputs = []
fixed_ms = 2.0
per_row_ms = 0.1
per_element_ms = 0.01
cold_runs = 8
cold_ms = 9
slowdown = [1.0, 2.5]
load_ms = 3
memory_bytes = 4
time_sliced = true
memory_per_row_bytes = 2
batch_sizes = [2, 4]
device_memory_bytes = 0
fail_every = 5
panic_every = 6
panic_on = 7.5
abort_on = 8.5
hang_on = -9
lost_while_exists = "lost"
waits_while_exists = "closed"
"#;
    let expected = SimulatedPolicy {
        inputs: vec![TensorSpec {
            name: "x".to_owned(),
            dtype: Dtype::Fp32,
            dimensions: vec![Dimension::varying(""), Dimension::fixed(16)],
        }],
        outputs: Vec::new(),
        fixed: Duration::from_millis(2),
        per_row: Duration::from_micros(100),
        per_element: Duration::from_micros(10),
        cold_runs: 8,
        cold: Duration::from_millis(9),
        slowdown: vec![1.0, 2.5],
        load: Duration::from_millis(3),
        memory_bytes: 4,
        memory_per_row_bytes: 2,
        batch_sizes: vec![2, 4],
        device_memory_bytes: 17_179_869_184,
        time_sliced: true,
        fail_every: 5,
        panic_every: 6,
        panic_on: Some(7.5),
        abort_on: Some(8.5),
        hang_on: Some(-9.0),
        lost_while_exists: Some(PathBuf::from("lost")),
        waits_while_exists: Some(PathBuf::from("closed")),
    };
    let policy = read(source).unwrap();
    assert_eq!(policy.backend, BackendPolicy::Simulated(expected));
}

#[test]
fn versions_are_written_in_five_ways() {
    let versions = |text: &str| read(&format!("versions = {text}")).map(|policy| policy.versions);
    assert_eq!(versions("\"latest\""), Ok(VersionPolicy::Latest(1)));
    assert_eq!(versions("\"all\""), Ok(VersionPolicy::All));
    assert_eq!(versions("{ latest = 3 }"), Ok(VersionPolicy::Latest(3)));
    let specific = VersionPolicy::Specific(vec![1, 3]);
    assert_eq!(versions("{ specific = [1, 3] }"), Ok(specific.clone()));
    assert_eq!(versions("[1, 3]"), Ok(specific));
}

#[test]
fn versions_that_say_nothing_or_too_much_are_refused() {
    let versions = |text: &str| read(&format!("versions = {text}")).unwrap_err();
    assert_eq!(
        versions("{}"),
        "m/model.toml:1: versions.latest: missing; say { latest = N } or { specific = [N] }"
    );
    assert_eq!(
        versions("[]"),
        "m/model.toml:1: versions: found an empty list; allowed: at least one version, such as [1]"
    );
    assert_eq!(
        versions("{ latest = 1, specific = [1] }"),
        "m/model.toml:1: versions.specific: contradicts latest; keep one of the two"
    );
    assert_eq!(
        versions("[0]"),
        "m/model.toml:1: versions[0]: found 0; allowed: a whole number, at least 1"
    );
}

#[test]
fn every_mistake_is_told_at_once_with_its_line() {
    let source = r#"max_batch = 8
max_queue_delay_ms = -1
max_queue_size = 1.5
default_deadline_ms = 0
batch_axis = "second"
versions = 3

[[instances]]
count = 0
device = "gpu"
[[instances]]
thread = 2

[warm_up]
runs = "once"
shapes = { x = [0, 1], y = 3 }

[onnxruntime]
optimization = true
cuda = { gpu_mem_limit = [1] }

[simulated]
outputs = [{ name = "y", dtype = "float", shape = [-2] }, { name = "z" }, 7]
fixed_ms = nan
"#;
    let expected = r#"m/model.toml:1: max_batch: unknown key; did you mean max_batch_size? allowed here: max_batch_size, batch_axis, max_queue_delay_ms, preferred_batch_sizes, batch_sizes, padding, ragged, sequence, max_queue_size, default_deadline_ms, latency_objective_ms, priority_levels, default_priority, weight, preserve_ordering, queue_timeout, priorities, versions, instances, warm_up, labels, onnxruntime, simulated, inputs, outputs, model_file, parameters, metric_tags, executor_timeout_ms, response_cache, ensemble
m/model.toml:2: max_queue_delay_ms: found -1; allowed: milliseconds, 0 to 60000
m/model.toml:3: max_queue_size: found 1.5; allowed: a whole number, 1 to 1000000
m/model.toml:4: default_deadline_ms: found 0; allowed: milliseconds, 0.001 to 86400000
m/model.toml:5: batch_axis: found "second"; allowed: "auto", "first", "none"
m/model.toml:6: versions: found 3; allowed: "latest", "all", { latest = N }, { specific = [N, N] }
m/model.toml:9: instances[0].count: found 0; allowed: a whole number, 1 to 64
m/model.toml:10: instances[0].device: found "gpu"; allowed: "auto", "cpu", "cuda", "cuda:N", "simulated:N"
m/model.toml:12: instances[1].thread: unknown key; did you mean threads? allowed here: count, device, threads, resources, priority
m/model.toml:15: warm_up.runs: found "once"; allowed: a whole number, 0 to 1000
m/model.toml:16: warm_up.shapes.x[0]: found 0; allowed: a whole number, 1 to 2147483647
m/model.toml:16: warm_up.shapes.y: found 3; allowed: a list
m/model.toml:19: onnxruntime.optimization: found true; allowed: "disable", "basic", "extended", "all"
m/model.toml:20: onnxruntime.cuda.gpu_mem_limit: found a list; allowed: text, a number, true or false
m/model.toml:22: simulated.inputs: missing; list them, such as [{ name = "x", dtype = "FP32", shape = [-1, 16] }]
m/model.toml:22: simulated: contradicts onnxruntime: a model has one backend; remove one of the two
m/model.toml:23: simulated.outputs[0].dtype: found "float"; allowed: "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES"
m/model.toml:23: simulated.outputs[0].shape[0]: found -2; allowed: a whole number, at least -1
m/model.toml:23: simulated.outputs[1].dtype: missing; an element type, such as "FP32"
m/model.toml:23: simulated.outputs[1].shape: missing; dimensions, -1 where they vary, such as [-1, 16]
m/model.toml:23: simulated.outputs[2]: found 7; allowed: a table
m/model.toml:24: simulated.fixed_ms: found nan; allowed: milliseconds, 0 to 3600000"#;
    assert_eq!(read(source).unwrap_err(), expected);
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let tensor = r#"{ name = "x", dtype = "FP32", shape = [1] }"#;
    let source = format!("[simulated]\ninputs = [\n{tensor},\n{tensor},\n]\noutputs = []\n");
    let expected = "m/model.toml:4: simulated.inputs[1].name: \"x\" is given twice";
    assert_eq!(read(&source).unwrap_err(), expected);
}

#[test]
fn padding_has_to_say_where_and_sizes_ascend() {
    let refused = |text: &str| read(text).unwrap_err();
    assert_eq!(
        refused("[padding]"),
        "m/model.toml:1: padding.dimension: missing; say what the model calls the dimension that varies, or list axes"
    );
    assert!(read("[padding]\naxes = { x = 1 }").is_ok());
    let both = refused("[padding]\ndimension = \"s\"\naxes = { x = 1 }");
    assert!(
        both.contains("name the dimension or the axes, not both"),
        "{both}"
    );
    assert_eq!(
        refused("batch_sizes = [8, 4]"),
        "m/model.toml:1: batch_sizes: found [8, 4]; allowed: each larger than the one before"
    );
    assert_eq!(
        refused("batch_sizes = [4, 8]\nmax_batch_size = 9"),
        "m/model.toml:2: max_batch_size: found 9; allowed: at most the largest of batch_sizes, 8"
    );
    assert_eq!(
        read("batch_sizes = [4, 8]").unwrap().batch.max_batch_size,
        8
    );
}

#[test]
fn label_files_stay_in_the_models_folder() {
    for outside in ["/etc/passwd", "../labels.txt", "a/../../b", ".", ""] {
        let told = read(&format!("[labels]\ny = {outside:?}")).unwrap_err();
        assert!(told.contains("labels.y"), "{told}");
        assert!(told.contains("a file in the model's folder"), "{told}");
    }
}

#[test]
fn an_ensemble_names_models_and_tensors() {
    let source = r#"
[ensemble]
inputs = [{ name = "photo", dtype = "UINT8", shape = [-1, 8] }]
outputs = [{ name = "label", dtype = "INT64", shape = [-1] }]
[[ensemble.steps]]
model = "scale"
version = 2
inputs = { x = "photo" }
outputs = { y = "image" }
[[ensemble.steps]]
model = "digits"
inputs = { image = "image" }
outputs = { label = "label" }
"#;
    let spec = |name: &str, dtype, dimensions| TensorSpec {
        name: name.to_owned(),
        dtype,
        dimensions,
    };
    let rows = || Dimension::varying("");
    let step = |model: &str, version, inputs, outputs| EnsembleStep {
        model: model.to_owned(),
        version,
        inputs: pairs(&[inputs]),
        outputs: pairs(&[outputs]),
    };
    let expected = EnsemblePolicy {
        inputs: vec![spec(
            "photo",
            Dtype::Uint8,
            vec![rows(), Dimension::fixed(8)],
        )],
        outputs: vec![spec("label", Dtype::Int64, vec![rows()])],
        steps: vec![
            step("scale", Some(2), ("x", "photo"), ("y", "image")),
            step("digits", None, ("image", "image"), ("label", "label")),
        ],
        max_in_flight: 1024,
    };
    let policy = read(source).unwrap();
    assert_eq!(policy.ensemble, Some(expected));
    // As many rows as its models take.
    assert_eq!(policy.batch.max_batch_size, 65_536);
}

#[test]
fn an_ensemble_has_no_queue_of_its_own() {
    let source = r#"weight = 2
[ensemble]
inputs = []
outputs = []
max_in_flight = 0
[[ensemble.steps]]
model = "../x"
outputs = { y = 1 }
[warm_up]
runs = 1
"#;
    let expected = r#"m/model.toml:5: ensemble.max_in_flight: found 0; allowed: a whole number, 1 to 1000000
m/model.toml:7: ensemble.steps[0].model: found "../x"; allowed: a model's name: 1 to 255 letters, digits, '.', '_' or '-', not starting with '.'
m/model.toml:6: ensemble.steps[0].inputs: missing; say which tensor each input of the model takes, such as { x = "image" }
m/model.toml:8: ensemble.steps[0].outputs.y: found 1; allowed: text that is not empty
m/model.toml:9: warm_up: contradicts ensemble: this belongs to the models that it is made of
m/model.toml:1: weight: contradicts ensemble: this belongs to the models that it is made of"#;
    let mut told: Vec<String> = read(source)
        .unwrap_err()
        .lines()
        .map(str::to_owned)
        .collect();
    let mut expected: Vec<&str> = expected.lines().collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);
}

#[test]
fn what_is_laid_end_to_end_or_left_out_excludes_others() {
    let ragged = "[ragged]\ninputs = [\"x\"]\n";
    let told = |source: &str| read(source).unwrap_err();
    let sizes = told(&format!("batch_sizes = [4]\n{ragged}"));
    assert!(
        sizes.starts_with("m/model.toml:2: ragged: contradicts batch_sizes"),
        "{sizes}"
    );
    let alone = told(&format!("batch_axis = \"none\"\n{ragged}"));
    assert!(alone.contains("ragged: needs a batch dimension"), "{alone}");
    let states = told(&format!("{ragged}[sequence]\n"));
    assert!(states.contains("ragged: contradicts sequences"), "{states}");
    let optional = "inputs = [{ name = \"x\", dtype = \"FP32\", shape = [-1], optional = true }]\n";
    let source = told(&format!(
        "{optional}[ragged]\nbatch_outputs = [{{ targets = [\"y\"], source = \"x\" }}]\n"
    ));
    assert!(
        source.contains("ragged: contradicts optional: input \"x\" has to be there"),
        "{source}"
    );
    let made = told("[ragged]\nbatch_inputs = [{ dtype = \"INT64\" }]\n");
    assert!(
        made.contains("dtype: found \"INT64\"; allowed: \"FP32\", \"INT32\""),
        "{made}"
    );
    for key in ["kind", "targets", "source"] {
        assert!(
            made.contains(&format!("batch_inputs[0].{key}: missing")),
            "{made}"
        );
    }
    let simulated = told(&format!(
        "{optional}[simulated]\ninputs = [{{ name = \"x\", dtype = \"FP32\", shape = [-1] }}]\noutputs = []\n"
    ));
    assert!(
        simulated.contains("inputs: \"x\" is optional"),
        "{simulated}"
    );
}
