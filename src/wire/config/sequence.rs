//! How a version's sequences are served, in the protocol's terms.

use std::time::Duration;

use super::{data_type, dims};
use crate::model::{
    ControlKind, SequenceControl, SequencePolicy, SequenceState, SequenceStrategy, TensorSpec,
};
use crate::proto::model_sequence_batching::control::Kind;
use crate::proto::model_sequence_batching::initial_state::StateData;
use crate::proto::model_sequence_batching::{
    Control, ControlInput, InitialState, State, StrategyChoice, StrategyDirect, StrategyOldest,
};
use crate::proto::{DataType, ModelSequenceBatching};
use crate::serving::Version;
use crate::tensor::Dtype;

/// How a version's sequences are served.
pub(super) fn batching(version: &Version, policy: &SequencePolicy) -> ModelSequenceBatching {
    let controls = policy.controls.iter();
    let states = policy.states.iter();
    ModelSequenceBatching {
        max_sequence_idle_microseconds: microseconds(policy.max_idle),
        control_input: controls
            .filter_map(|control| control_input(version, control))
            .collect(),
        state: states.filter_map(|kept| state(version, kept)).collect(),
        strategy_choice: Some(strategy(version, policy)),
        ..ModelSequenceBatching::default()
    }
}

fn strategy(version: &Version, policy: &SequencePolicy) -> StrategyChoice {
    let max_queue_delay_microseconds = microseconds(version.policy.batch.max_queue_delay);
    match policy.strategy {
        SequenceStrategy::Direct => StrategyChoice::Direct(StrategyDirect {
            max_queue_delay_microseconds,
            ..StrategyDirect::default()
        }),
        SequenceStrategy::Oldest {
            max_candidate_sequences,
        } => StrategyChoice::Oldest(StrategyOldest {
            max_candidate_sequences: max_candidate_sequences.map_or(0, narrow),
            preferred_batch_size: version
                .policy
                .batch
                .preferred_sizes
                .iter()
                .map(|size| narrow(*size))
                .collect(),
            max_queue_delay_microseconds,
            ..StrategyOldest::default()
        }),
    }
}

fn control_input(version: &Version, control: &SequenceControl) -> Option<ControlInput> {
    let (_, spec) = version.whole.input(&control.input)?;
    let (kind, choice) = match control.kind {
        ControlKind::Start(choice) => (Kind::ControlSequenceStart, Some(choice)),
        ControlKind::Ready(choice) => (Kind::ControlSequenceReady, Some(choice)),
        ControlKind::End(choice) => (Kind::ControlSequenceEnd, Some(choice)),
        ControlKind::CorrelationId => (Kind::ControlSequenceCorrid, None),
    };
    let mut told = Control {
        kind: kind.into(),
        ..Control::default()
    };
    match (choice, spec.dtype) {
        (Some(choice), Dtype::Fp32) => {
            told.fp32_false_true = vec![choice.no as f32, choice.yes as f32];
        }
        (Some(choice), Dtype::Bool) => {
            told.bool_false_true = vec![choice.no != 0.0, choice.yes != 0.0];
        }
        (Some(choice), _) => told.int32_false_true = vec![choice.no as i32, choice.yes as i32],
        (None, dtype) => told.data_type = data_type(dtype).into(),
    }
    Some(ControlInput {
        name: control.input.clone(),
        control: vec![told],
    })
}

fn state(version: &Version, kept: &SequenceState) -> Option<State> {
    let (_, spec) = version.whole.input(&kept.input)?;
    let data_type: DataType = data_type(spec.dtype);
    Some(State {
        input_name: kept.input.clone(),
        output_name: kept.output.clone(),
        data_type: data_type.into(),
        dims: dims(spec, version.batching.is_rows()),
        initial_state: vec![initial_state(version, kept, spec, data_type)],
        ..State::default()
    })
}

fn initial_state(
    version: &Version,
    kept: &SequenceState,
    spec: &TensorSpec,
    data_type: DataType,
) -> InitialState {
    let mut dims = dims(spec, version.batching.is_rows());
    for (axis, size) in dims.iter_mut().enumerate() {
        let stated = kept.shape.as_ref().and_then(|shape| shape.get(axis));
        *size = stated.copied().unwrap_or(if *size < 0 { 1 } else { *size });
    }
    let file = kept.initial_file.as_ref();
    let file = file.map(|file| file.to_string_lossy().into_owned());
    InitialState {
        name: kept.input.clone(),
        data_type: data_type.into(),
        dims,
        state_data: Some(file.map_or(StateData::ZeroData(true), StateData::DataFile)),
    }
}

fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn narrow(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
