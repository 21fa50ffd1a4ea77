//! A version's policy in the protocol's `ModelConfig`, as Triton's tools read it.

mod sequence;

use std::time::Duration;

use crate::model::{
    BackendPolicy, Batching, EnsemblePolicy, ModelPolicy, QueuePolicy, TensorSpec, VersionPolicy,
};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_instance_group::Kind;
use crate::proto::model_version_policy::{All, Latest, PolicyChoice, Specific};
use crate::proto::{
    DataType, ModelConfig, ModelDynamicBatching, ModelEnsembling, ModelInput, ModelInstanceGroup,
    ModelOutput, ModelQueuePolicy, ModelResponseCache, ModelVersionPolicy, model_ensembling,
};
use crate::serving::Version;
use crate::tensor::Dtype;

/// The version of a step that names none.
const NEWEST: i64 = -1;

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
    let inputs = version.signature.inputs.iter().map(|spec| ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec, batched),
        ..ModelInput::default()
    });
    let outputs = version.signature.outputs.iter().map(|spec| ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.dtype).into(),
        dims: dims(spec, batched),
        label_filename: label_file(policy, &spec.name),
        ..ModelOutput::default()
    });
    ModelConfig {
        name: version.id.model.to_string(),
        platform: platform(policy).to_owned(),
        backend: backend(policy).to_owned(),
        version_policy: Some(version_policy(&policy.versions)),
        max_batch_size: i32::try_from(rows).unwrap_or(i32::MAX),
        input: inputs.collect(),
        output: outputs.collect(),
        instance_group: instance_groups(version),
        default_model_filename: match policy.ensemble {
            Some(_) => String::new(),
            None => "model.onnx".to_owned(),
        },
        scheduling_choice: scheduling(version),
        response_cache: Some(ModelResponseCache {
            enable: policy.response_cache,
        }),
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

pub(super) fn dims(spec: &TensorSpec, batched: bool) -> Vec<i64> {
    let shape = spec.protocol_shape();
    shape.into_iter().skip(usize::from(batched)).collect()
}

fn scheduling(version: &Version) -> Option<SchedulingChoice> {
    let policy = &version.policy;
    if let Some(ensemble) = &policy.ensemble {
        return Some(SchedulingChoice::EnsembleScheduling(ensembling(ensemble)));
    }
    if let Some(sequence) = &policy.sequence {
        let batching = sequence::batching(version, sequence);
        return Some(SchedulingChoice::SequenceBatching(batching));
    }
    let Batching::Rows = version.batching else {
        return None;
    };
    let microseconds = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    let preferred = policy.batch.preferred_sizes.iter();
    Some(SchedulingChoice::DynamicBatching(ModelDynamicBatching {
        preferred_batch_size: preferred
            .map(|size| i32::try_from(*size).unwrap_or(i32::MAX))
            .collect(),
        priority_levels: u64::from(QueuePolicy::LOWEST),
        default_priority_level: u64::from(policy.queue.default_priority),
        max_queue_delay_microseconds: microseconds(policy.batch.max_queue_delay),
        default_queue_policy: Some(ModelQueuePolicy {
            max_queue_size: u32::try_from(policy.queue.max_queue_size).unwrap_or(u32::MAX),
            default_timeout_microseconds: policy.queue.default_deadline.map_or(0, microseconds),
            ..ModelQueuePolicy::default()
        }),
        ..ModelDynamicBatching::default()
    }))
}

fn ensembling(policy: &EnsemblePolicy) -> ModelEnsembling {
    let map = |names: &[(String, String)]| names.iter().cloned().collect();
    let steps = policy.steps.iter().map(|step| model_ensembling::Step {
        model_name: step.model.clone(),
        model_version: step
            .version
            .map_or(NEWEST, |version| i64::try_from(version).unwrap_or(i64::MAX)),
        input_map: map(&step.inputs),
        output_map: map(&step.outputs),
        ..model_ensembling::Step::default()
    });
    ModelEnsembling {
        step: steps.collect(),
        max_inflight_requests: u32::try_from(policy.max_in_flight).unwrap_or(u32::MAX),
    }
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
    groups
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
