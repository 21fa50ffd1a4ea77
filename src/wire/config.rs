//! A version's policy in the protocol's `ModelConfig`, as Triton's tools read it.

mod ensemble;
mod ragged;
mod runtime;
mod scheduling;
mod sequence;
mod warm_up;

use crate::model::{
    BackendPolicy, InstanceGroup, ModelPolicy, TensorFormat, TensorSpec, VersionPolicy, declared,
};
use crate::proto::model_input::Format;
use crate::proto::model_instance_group::Kind;
use crate::proto::model_rate_limiter::Resource;
use crate::proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
use crate::proto::{
    DataType, ModelConfig, ModelInput, ModelInstanceGroup, ModelOutput, ModelRateLimiter,
    ModelResponseCache, ModelTensorReshape, ModelTransactionPolicy, ModelVersionPolicy,
};
use crate::serving::Version;
use crate::tensor::Dtype;

/// The protocol's name for what runs the model.
pub(super) fn platform(policy: &ModelPolicy) -> &'static str {
    if policy.ensemble.is_some() {
        return "ensemble";
    }
    match policy.backend {
        BackendPolicy::OnnxRuntime(_) => "onnxruntime_onnx",
        BackendPolicy::Simulated(_) => "simulated",
    }
}

/// The protocol's name for the backend; an ensemble has none.
fn backend(policy: &ModelPolicy) -> &'static str {
    if policy.ensemble.is_some() {
        return "";
    }
    match policy.backend {
        BackendPolicy::OnnxRuntime(_) => "onnxruntime",
        BackendPolicy::Simulated(_) => "simulated",
    }
}

/// How a version is served.
pub fn model_config(version: &Version) -> ModelConfig {
    let policy = &version.policy;
    let batched = version.batching.is_rows();
    // The protocol counts from 1, and says 0 where there is no batch dimension.
    let rows = if batched {
        policy.batch.max_batch_size
    } else {
        0
    };
    let inputs = version.signature.inputs.iter();
    let inputs = inputs.map(|spec| input(spec, policy, batched));
    let outputs = version.signature.outputs.iter();
    let outputs = outputs.map(|spec| output(spec, policy, batched));
    ModelConfig {
        name: version.id.model.to_string(),
        platform: platform(policy).to_owned(),
        backend: backend(policy).to_owned(),
        version_policy: Some(version_policy(&policy.versions)),
        max_batch_size: i32::try_from(rows).unwrap_or(i32::MAX),
        input: inputs.collect(),
        output: outputs.collect(),
        batch_input: policy
            .ragged
            .as_ref()
            .map_or_else(Vec::new, ragged::batch_inputs),
        batch_output: policy
            .ragged
            .as_ref()
            .map_or_else(Vec::new, ragged::batch_outputs),
        instance_group: instance_groups(version),
        default_model_filename: match policy.ensemble {
            Some(_) => String::new(),
            None => policy.file.as_deref().unwrap_or("model.onnx").to_owned(),
        },
        scheduling_choice: scheduling::scheduling(version),
        response_cache: Some(ModelResponseCache {
            enable: policy.response_cache,
        }),
        optimization: match policy.ensemble {
            Some(_) => None,
            None => Some(runtime::optimization(policy)),
        },
        parameters: runtime::parameters(policy),
        metric_tags: policy.notes.metric_tags.iter().cloned().collect(),
        model_warmup: policy
            .warm_up
            .requests
            .iter()
            .map(warm_up::warm_up)
            .collect(),
        model_transaction_policy: Some(ModelTransactionPolicy { decoupled: false }),
        ..ModelConfig::default()
    }
}

fn label_file(policy: &ModelPolicy, output: &str) -> String {
    let mut labels = policy.labels.0.iter();
    let found = labels.find(|labels| labels.output == output);
    found.map_or(String::new(), |labels| {
        labels.file.to_string_lossy().into_owned()
    })
}

fn input(spec: &TensorSpec, policy: &ModelPolicy, batched: bool) -> ModelInput {
    let said = declared(&policy.tensors.inputs, &spec.name);
    let format = match said.and_then(|said| said.format) {
        None => Format::None,
        Some(TensorFormat::Nhwc) => Format::Nhwc,
        Some(TensorFormat::Nchw) => Format::Nchw,
    };
    ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.dtype).into(),
        format: format.into(),
        dims: dims(spec, batched),
        reshape: said.and_then(|said| reshape(said.reshape.as_ref())),
        optional: said.is_some_and(|said| said.optional),
        allow_ragged_batch: is_ragged(spec, policy),
        ..ModelInput::default()
    }
}

/// Whether requests share a batch in which this input is of different lengths.
fn is_ragged(spec: &TensorSpec, policy: &ModelPolicy) -> bool {
    let ragged = policy.ragged.as_ref();
    let padding = policy.padding.as_ref();
    ragged.is_some_and(|ragged| ragged.inputs.contains(&spec.name))
        || padding.is_some_and(|padding| padding.pads(spec))
}

fn output(spec: &TensorSpec, policy: &ModelPolicy, batched: bool) -> ModelOutput {
    let said = declared(&policy.tensors.outputs, &spec.name);
    ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec, batched),
        reshape: said.and_then(|said| reshape(said.reshape.as_ref())),
        label_filename: label_file(policy, &spec.name),
        ..ModelOutput::default()
    }
}

fn reshape(shape: Option<&Vec<i64>>) -> Option<ModelTensorReshape> {
    let shape = shape?.clone();
    Some(ModelTensorReshape { shape })
}

pub(super) fn dims(spec: &TensorSpec, batched: bool) -> Vec<i64> {
    let shape = spec.protocol_shape();
    shape.into_iter().skip(usize::from(batched)).collect()
}

fn version_policy(policy: &VersionPolicy) -> ModelVersionPolicy {
    let choice = match policy {
        VersionPolicy::All => PolicyChoice::All(All {}),
        VersionPolicy::Latest(count) => PolicyChoice::Latest(Latest {
            num_versions: u32::try_from(*count).unwrap_or(u32::MAX),
        }),
        VersionPolicy::Specific(versions) => PolicyChoice::Specific(Specific {
            versions: versions
                .iter()
                .filter_map(|version| i64::try_from(*version).ok())
                .collect(),
        }),
    };
    ModelVersionPolicy {
        policy_choice: Some(choice),
    }
}

/// One group for each device, with as many instances as are on it.
fn instance_groups(version: &Version) -> Vec<ModelInstanceGroup> {
    let mut groups: Vec<ModelInstanceGroup> = Vec::new();
    for device in &version.devices {
        match groups.iter_mut().find(|group| group.name == *device) {
            Some(group) => group.count += 1,
            None => groups.push(instance_group(device)),
        }
    }
    // Where there are several, which of them is on which device is not known any more.
    if let [group] = &version.policy.instances[..] {
        let limiter = rate_limiter(group);
        groups
            .iter_mut()
            .for_each(|told| told.rate_limiter.clone_from(&limiter));
    }
    groups
}

fn rate_limiter(group: &InstanceGroup) -> Option<ModelRateLimiter> {
    if group.resources.is_empty() && group.priority == 1 {
        return None;
    }
    let resources = group.resources.iter().map(|needed| Resource {
        name: needed.name.clone(),
        global: needed.global,
        count: needed.count,
    });
    Some(ModelRateLimiter {
        resources: resources.collect(),
        priority: group.priority,
    })
}

fn instance_group(device: &str) -> ModelInstanceGroup {
    let number = device
        .strip_prefix("cuda:")
        .and_then(|number| number.parse().ok());
    ModelInstanceGroup {
        name: device.to_owned(),
        kind: match number {
            Some(_) => Kind::Gpu.into(),
            None => Kind::Cpu.into(),
        },
        count: 1,
        gpus: number.into_iter().collect(),
        ..ModelInstanceGroup::default()
    }
}

pub(super) fn data_type(dtype: Dtype) -> DataType {
    match dtype {
        Dtype::Bool => DataType::TypeBool,
        Dtype::Uint8 => DataType::TypeUint8,
        Dtype::Uint16 => DataType::TypeUint16,
        Dtype::Uint32 => DataType::TypeUint32,
        Dtype::Uint64 => DataType::TypeUint64,
        Dtype::Int8 => DataType::TypeInt8,
        Dtype::Int16 => DataType::TypeInt16,
        Dtype::Int32 => DataType::TypeInt32,
        Dtype::Int64 => DataType::TypeInt64,
        Dtype::Fp16 => DataType::TypeFp16,
        Dtype::Bf16 => DataType::TypeBf16,
        Dtype::Fp32 => DataType::TypeFp32,
        Dtype::Fp64 => DataType::TypeFp64,
        Dtype::Bytes => DataType::TypeString,
    }
}
