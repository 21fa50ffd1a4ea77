//! What runs a model, as `optimization` and `parameters`.

use std::collections::HashMap;

use crate::model::{
    BackendPolicy, InstanceGroup, ModelPolicy, OnnxRuntimePolicy, OptimizationLevel,
};
use crate::proto::model_optimization_policy::execution_accelerators::Accelerator;
use crate::proto::model_optimization_policy::{ExecutionAccelerators, Graph, PinnedMemoryBuffer};
use crate::proto::{ModelOptimizationPolicy, ModelParameter};

pub(super) fn optimization(policy: &ModelPolicy) -> ModelOptimizationPolicy {
    let pinned = Some(PinnedMemoryBuffer { enable: true });
    let section = ModelOptimizationPolicy {
        input_pinned_memory: pinned,
        output_pinned_memory: pinned,
        ..ModelOptimizationPolicy::default()
    };
    let BackendPolicy::OnnxRuntime(runtime) = &policy.backend else {
        return section;
    };
    ModelOptimizationPolicy {
        graph: level(runtime.optimization).map(|level| Graph { level }),
        execution_accelerators: accelerators(runtime),
        ..section
    }
}

/// Triton's number for a level of its ONNX backend; none for its default.
fn level(level: OptimizationLevel) -> Option<i32> {
    match level {
        OptimizationLevel::All => None,
        OptimizationLevel::Basic => Some(-1),
        OptimizationLevel::Extended => Some(1),
        OptimizationLevel::Disable => Some(2),
    }
}

fn accelerators(runtime: &OnnxRuntimePolicy) -> Option<ExecutionAccelerators> {
    let cuda = (!runtime.cuda.is_empty()).then_some(("cuda", &runtime.cuda));
    let tensorrt = runtime
        .tensorrt
        .as_ref()
        .map(|options| ("tensorrt", options));
    let gpu: Vec<Accelerator> = tensorrt
        .into_iter()
        .chain(cuda)
        .map(|(name, options)| Accelerator {
            name: name.to_owned(),
            parameters: options.iter().cloned().collect(),
        })
        .collect();
    (!gpu.is_empty()).then(|| ExecutionAccelerators {
        gpu_execution_accelerator: gpu,
        ..ExecutionAccelerators::default()
    })
}

pub(super) fn parameters(policy: &ModelPolicy) -> HashMap<String, ModelParameter> {
    let mut parameters: Vec<(String, String)> = policy.notes.parameters.clone();
    let mut put = |name: &str, value: String| parameters.push((name.to_owned(), value));
    if let Some(threads) = threads(&policy.instances) {
        put("intra_op_thread_count", threads.to_string());
    }
    if let BackendPolicy::OnnxRuntime(runtime) = &policy.backend {
        if let Some(threads) = runtime.inter_threads {
            put("inter_op_thread_count", threads.to_string());
        }
        if runtime.parallel {
            put("execution_mode", "1".to_owned());
        }
        let switches = [
            ("enable_mem_arena", runtime.arena),
            ("enable_mem_pattern", runtime.memory_pattern),
        ];
        for (name, switch) in switches {
            if let Some(switch) = switch {
                put(name, u8::from(switch).to_string());
            }
        }
        parameters.extend(runtime.session.iter().chain(&runtime.run).cloned());
    }
    let parameters = parameters.into_iter();
    parameters
        .map(|(name, string_value)| (name, ModelParameter { string_value }))
        .collect()
}

/// The threads that every group has.
fn threads(groups: &[InstanceGroup]) -> Option<usize> {
    let threads = groups.first()?.threads?;
    let mut groups = groups.iter();
    groups
        .all(|group| group.threads == Some(threads))
        .then_some(threads)
}
