//! `optimization`: how the graph is prepared, and with which execution providers it runs.

use super::draft::Draft;
use super::sorted;
use crate::model::{OnnxRuntimePolicy, OptimizationLevel};
use crate::proto::ModelConfig;
use crate::proto::model_optimization_policy::execution_accelerators::Accelerator;

/// Puts what the section says into `runtime`.
pub(super) fn read(config: &ModelConfig, runtime: &mut OnnxRuntimePolicy, draft: &mut Draft) {
    let Some(section) = &config.optimization else {
        return;
    };
    if let Some(graph) = &section.graph {
        runtime.optimization = level(graph.level, draft);
    }
    let accelerators = section.execution_accelerators.as_ref();
    let gpu = accelerators.map(|accelerators| &accelerators.gpu_execution_accelerator[..]);
    for (index, accelerator) in gpu.unwrap_or_default().iter().enumerate() {
        let path =
            format!("optimization.execution_accelerators.gpu_execution_accelerator[{index}]");
        match accelerator.name.as_str() {
            "tensorrt" => runtime.tensorrt = Some(tensorrt(accelerator, &path, draft)),
            "cuda" => runtime.cuda.extend(sorted(accelerator.parameters.clone())),
            other => draft.note(
                &format!("{path}.name"),
                format!("found {other:?}; allowed: \"tensorrt\", \"cuda\""),
            ),
        }
    }
}

/// The level by Triton's number for its ONNX backend.
fn level(number: i32, draft: &mut Draft) -> OptimizationLevel {
    match number {
        -1 => OptimizationLevel::Basic,
        0 => OptimizationLevel::All,
        1 => OptimizationLevel::Extended,
        2 => OptimizationLevel::Disable,
        other => {
            let message =
                format!("found {other}; allowed: -1 (basic), 0 (all), 1 (extended), 2 (none)");
            draft.note("optimization.graph.level", message);
            OptimizationLevel::All
        }
    }
}

/// Triton's names for options of ONNX Runtime's TensorRT provider.
const TENSORRT: [(&str, &str); 3] = [
    ("max_workspace_size_bytes", "trt_max_workspace_size"),
    (
        "int8_calibration_table_name",
        "trt_int8_calibration_table_name",
    ),
    (
        "int8_use_native_calibration_table",
        "trt_int8_use_native_calibration_table",
    ),
];

fn tensorrt(accelerator: &Accelerator, path: &str, draft: &mut Draft) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for (name, value) in sorted(accelerator.parameters.clone()) {
        let path = format!("{path}.parameters[{name}]");
        let known = TENSORRT.iter().find(|(own, _)| *own == name);
        match (known, name.as_str()) {
            (Some((_, option)), _) => options.push(((*option).to_owned(), value)),
            (None, "precision_mode") => options.extend(precision(&value, &path, draft)),
            (None, name) if name.starts_with("trt_") => options.push((name.to_owned(), value)),
            (None, _) => {
                let known: Vec<&str> = TENSORRT.iter().map(|(own, _)| *own).collect();
                let message = format!(
                    "unknown parameter; allowed: precision_mode, {}, and ONNX Runtime's own options, trt_*",
                    known.join(", ")
                );
                draft.note(&path, message);
            }
        }
    }
    options
}

fn precision(value: &str, path: &str, draft: &mut Draft) -> Option<(String, String)> {
    let option = match value {
        "FP16" => "trt_fp16_enable",
        "INT8" => "trt_int8_enable",
        "FP32" => return None,
        other => {
            let message = format!("found {other:?}; allowed: \"FP32\", \"FP16\", \"INT8\"");
            draft.note(path, message);
            return None;
        }
    };
    Some((option.to_owned(), "1".to_owned()))
}
