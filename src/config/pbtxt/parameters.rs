//! `parameters`: the settings of ONNX Runtime among them, and what only readers understand.

use super::draft::Draft;
use super::ensemble::{BELONGS_TO_STEPS, is_one as is_ensemble};
use super::sorted;
use crate::model::OnnxRuntimePolicy;
use crate::proto::ModelConfig;

/// What is left once ONNX Runtime's settings are taken out.
pub(super) struct Parameters {
    /// Threads of each instance for work inside one operator.
    pub(super) threads: Option<usize>,
    /// What is handed on as it is written.
    pub(super) others: Vec<(String, String)>,
}

/// Options of the CUDA provider, and what Triton's numbers for their values stand for.
const CUDA: [(&str, &[&str]); 6] = [
    (
        "cudnn_conv_algo_search",
        &["EXHAUSTIVE", "HEURISTIC", "DEFAULT"],
    ),
    (
        "arena_extend_strategy",
        &["kNextPowerOfTwo", "kSameAsRequested"],
    ),
    ("gpu_mem_limit", &[]),
    ("do_copy_in_default_stream", &[]),
    ("cudnn_conv_use_max_workspace", &[]),
    ("use_tf32", &[]),
];

/// How the names of session configuration entries begin.
const SESSION: [&str; 4] = ["session.", "optimization.", "ep.", "mlas."];

/// How the names of a run's configuration entries begin.
const RUN: &str = "memory.";

/// Puts ONNX Runtime's settings into `runtime`, and gives the others.
pub(super) fn read(
    config: &ModelConfig,
    runtime: &mut OnnxRuntimePolicy,
    draft: &mut Draft,
) -> Parameters {
    let mut found = Parameters {
        threads: None,
        others: Vec::new(),
    };
    for (name, parameter) in sorted(config.parameters.clone()) {
        let (path, value) = (format!("parameters[{name}]"), parameter.string_value);
        let text = value.as_str();
        let handed_on = found.others.len();
        match name.as_str() {
            "intra_op_thread_count" => found.threads = threads(text, &path, draft),
            "inter_op_thread_count" => runtime.inter_threads = threads(text, &path, draft),
            "execution_mode" => runtime.parallel = truth(text, &path, draft),
            "enable_mem_arena" => runtime.arena = Some(truth(text, &path, draft)),
            "enable_mem_pattern" => runtime.memory_pattern = Some(truth(text, &path, draft)),
            name if SESSION.iter().any(|start| name.starts_with(start)) => {
                runtime.session.push((name.to_owned(), value));
            }
            name if name.starts_with(RUN) => runtime.run.push((name.to_owned(), value)),
            _ => match CUDA.iter().find(|(option, _)| *option == name) {
                Some((_, values)) => runtime.cuda.push((name, named(value, values))),
                None => found.others.push((name, value)),
            },
        }
        if is_ensemble(config) && found.others.len() == handed_on {
            draft.note(&path, BELONGS_TO_STEPS);
        }
    }
    found
}

/// The value that ONNX Runtime takes, for a number by which Triton means it.
fn named(value: String, values: &[&str]) -> String {
    let number = value.parse::<usize>().ok();
    let name = number.and_then(|number| values.get(number));
    name.map_or(value, |name| (*name).to_owned())
}

/// A number of threads; 0 stands for ONNX Runtime's own.
fn threads(text: &str, path: &str, draft: &mut Draft) -> Option<usize> {
    match text.parse::<usize>() {
        Ok(0) => None,
        Ok(threads @ 1..=1024) => Some(threads),
        _ => {
            let message = format!("found {text:?}; allowed: a whole number, 0 to 1024");
            draft.note(path, message);
            None
        }
    }
}

fn truth(text: &str, path: &str, draft: &mut Draft) -> bool {
    match text {
        "1" | "true" => true,
        "0" | "false" => false,
        other => {
            draft.note(path, format!("found {other:?}; allowed: \"0\", \"1\""));
            false
        }
    }
}
