//! `sequence_batching`: requests that belong together.

use std::path::Path;
use std::time::Duration;

use super::draft::Draft;
use crate::model::{
    BatchPolicy, Choice, ControlKind, SequenceControl, SequencePolicy, SequenceState,
    SequenceStrategy,
};
use crate::proto::model_config::SchedulingChoice;
use crate::proto::model_sequence_batching::control::Kind;
use crate::proto::model_sequence_batching::initial_state::StateData;
use crate::proto::model_sequence_batching::{Control, ControlInput, State, StrategyChoice};
use crate::proto::{ModelConfig, ModelSequenceBatching};

/// The longest that a sequence may be idle, and a batch wait for company.
const LONGEST_IDLE: usize = 86_400_000_000;
const LONGEST_DELAY: usize = 60_000_000;
const MOST_SEQUENCES: usize = 1_000_000;
/// The folder beside the versions in which states lie as they begin.
const FOLDER: &str = "initial_state";

/// How sequences are served, if the model has any; what the section says of batches goes into `batch`.
pub(super) fn read(
    config: &ModelConfig,
    batch: &mut BatchPolicy,
    draft: &mut Draft,
) -> Option<SequencePolicy> {
    let Some(SchedulingChoice::SequenceBatching(batching)) = &config.scheduling_choice else {
        return None;
    };
    let mut controls = Vec::new();
    for (index, input) in batching.control_input.iter().enumerate() {
        let path = format!("sequence_batching.control_input[{index}]");
        controls.extend(control(input, &path, draft));
    }
    let mut states = Vec::new();
    for (index, kept) in batching.state.iter().enumerate() {
        let path = format!("sequence_batching.state[{index}]");
        states.push(state(kept, config, &path, draft));
    }
    Some(SequencePolicy {
        strategy: strategy(batching, batch, draft),
        max_idle: idle(batching, draft),
        controls,
        states,
        ..SequencePolicy::default()
    })
}

fn idle(batching: &ModelSequenceBatching, draft: &mut Draft) -> Duration {
    match batching.max_sequence_idle_microseconds {
        0 => SequencePolicy::default().max_idle,
        idle => {
            let path = "sequence_batching.max_sequence_idle_microseconds";
            microseconds(draft.whole(path, idle, 1_000, LONGEST_IDLE))
        }
    }
}

fn strategy(
    batching: &ModelSequenceBatching,
    batch: &mut BatchPolicy,
    draft: &mut Draft,
) -> SequenceStrategy {
    let (name, delay) = match &batching.strategy_choice {
        None => return SequenceStrategy::Direct,
        Some(StrategyChoice::Direct(direct)) => ("direct", direct.max_queue_delay_microseconds),
        Some(StrategyChoice::Oldest(oldest)) => ("oldest", oldest.max_queue_delay_microseconds),
    };
    let path = format!("sequence_batching.{name}.max_queue_delay_microseconds");
    batch.max_queue_delay = microseconds(draft.whole(&path, delay, 0, LONGEST_DELAY));
    let Some(StrategyChoice::Oldest(oldest)) = &batching.strategy_choice else {
        return SequenceStrategy::Direct;
    };
    for (index, size) in oldest.preferred_batch_size.iter().enumerate() {
        let path = format!("sequence_batching.oldest.preferred_batch_size[{index}]");
        let size = draft.whole(&path, *size, 1, batch.max_batch_size);
        batch.preferred_sizes.push(size);
    }
    let path = "sequence_batching.oldest.max_candidate_sequences";
    let candidates = draft.whole(path, oldest.max_candidate_sequences, 0, MOST_SEQUENCES);
    SequenceStrategy::Oldest {
        max_candidate_sequences: (candidates > 0).then_some(candidates),
    }
}

fn control(input: &ControlInput, path: &str, draft: &mut Draft) -> Option<SequenceControl> {
    let [control] = &input.control[..] else {
        draft.note(
            &format!("{path}.control"),
            "allowed: one control for each input",
        );
        return None;
    };
    let input = draft.tensor_name(&format!("{path}.name"), &input.name);
    let path = format!("{path}.control[0]");
    let kind = match control.kind() {
        Kind::ControlSequenceStart => ControlKind::Start(choice(control, &path, draft)),
        Kind::ControlSequenceReady => ControlKind::Ready(choice(control, &path, draft)),
        Kind::ControlSequenceEnd => ControlKind::End(choice(control, &path, draft)),
        Kind::ControlSequenceCorrid => ControlKind::CorrelationId,
    };
    Some(SequenceControl { input, kind })
}

/// The numbers for no and yes, in whichever of the three fields they are.
fn choice(control: &Control, path: &str, draft: &mut Draft) -> Choice {
    let whole = control
        .int32_false_true
        .iter()
        .map(|number| f64::from(*number));
    let real = control
        .fp32_false_true
        .iter()
        .map(|number| f64::from(*number));
    let truth = control
        .bool_false_true
        .iter()
        .map(|truth| f64::from(u8::from(*truth)));
    let values: Vec<f64> = whole.chain(real).chain(truth).collect();
    match values[..] {
        [no, yes] => Choice { no, yes },
        _ => {
            let message = "allowed: one of int32_false_true, fp32_false_true and bool_false_true, \
                           with two values";
            draft.note(path, message);
            Choice::default()
        }
    }
}

fn state(kept: &State, config: &ModelConfig, path: &str, draft: &mut Draft) -> SequenceState {
    let initial = match &kept.initial_state[..] {
        [] => None,
        [initial] => Some(initial),
        _ => {
            draft.note(
                &format!("{path}.initial_state"),
                "allowed: one beginning for each state",
            );
            None
        }
    };
    let file = initial.and_then(|initial| match &initial.state_data {
        Some(StateData::DataFile(name)) => Some(name),
        _ => None,
    });
    if let Some(name) = file {
        draft.check_file_name(&format!("{path}.initial_state[0].data_file"), name);
    }
    let (dims, field) = match initial {
        Some(initial) => (&initial.dims, "initial_state[0].dims"),
        None => (&kept.dims, "dims"),
    };
    let most = i64::from(i32::MAX);
    for size in dims.iter().filter(|size| !(-1..=most).contains(*size)) {
        let message = format!("found {size}; allowed: a whole number, -1 to {most}");
        draft.note(&format!("{path}.{field}"), message);
    }
    let is_fixed = !dims.is_empty() && dims.iter().all(|size| *size >= 0);
    SequenceState {
        input: draft.tensor_name(&format!("{path}.input_name"), &kept.input_name),
        output: draft.tensor_name(&format!("{path}.output_name"), &kept.output_name),
        visible: config
            .output
            .iter()
            .any(|output| output.name == kept.output_name),
        shape: is_fixed.then(|| dims.clone()),
        initial_file: file.map(|name| Path::new(FOLDER).join(name)),
    }
}

fn microseconds(count: usize) -> Duration {
    Duration::from_micros(u64::try_from(count).unwrap_or(u64::MAX))
}
