//! `instance_group`: how many instances, and where.

use super::draft::Draft;
use super::rate_limiter;
use crate::model::{DeviceChoice, InstanceGroup};
use crate::proto::model_instance_group::Kind;
use crate::proto::{ModelConfig, ModelInstanceGroup};

/// What the section says; each instance has so many threads.
pub(super) fn read(
    config: &ModelConfig,
    threads: Option<usize>,
    draft: &mut Draft,
) -> Vec<InstanceGroup> {
    let mut groups = Vec::new();
    for (index, group) in config.instance_group.iter().enumerate() {
        let path = format!("instance_group[{index}]");
        let count = draft.whole(&format!("{path}.count"), group.count.max(1), 1, 64);
        let (resources, priority) = rate_limiter::read(group, &path, draft);
        for device in devices(group, &path, draft) {
            groups.push(InstanceGroup {
                count,
                device,
                threads,
                resources: resources.clone(),
                priority,
            });
        }
    }
    if groups.is_empty() && threads.is_some() {
        groups.push(InstanceGroup {
            threads,
            ..InstanceGroup::default()
        });
    }
    groups
}

fn devices(group: &ModelInstanceGroup, path: &str, draft: &mut Draft) -> Vec<DeviceChoice> {
    let numbers = gpus(group, path, draft);
    match group.kind() {
        Kind::Auto | Kind::Gpu if !numbers.is_empty() => {
            numbers.into_iter().map(DeviceChoice::Cuda).collect()
        }
        // What the server was told, which is GPUs where there are any.
        Kind::Auto => vec![DeviceChoice::Default],
        Kind::Gpu => vec![DeviceChoice::CudaAll],
        Kind::Cpu => {
            if !group.gpus.is_empty() {
                let message = "contradicts KIND_CPU; take one of the two out";
                draft.note(&format!("{path}.gpus"), message);
            }
            vec![DeviceChoice::Cpu]
        }
        Kind::Model => {
            let message = "found KIND_MODEL; allowed: KIND_AUTO, KIND_GPU, KIND_CPU, for an ONNX \
                           model does not choose its device itself";
            draft.note(&format!("{path}.kind"), message);
            vec![DeviceChoice::Default]
        }
    }
}

fn gpus(group: &ModelInstanceGroup, path: &str, draft: &mut Draft) -> Vec<u32> {
    let mut numbers = Vec::new();
    for (index, gpu) in group.gpus.iter().enumerate() {
        let gpu = draft.whole(&format!("{path}.gpus[{index}]"), *gpu, 0, 1023);
        numbers.extend(u32::try_from(gpu));
    }
    numbers
}
