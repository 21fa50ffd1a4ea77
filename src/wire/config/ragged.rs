//! What is laid end to end, as `batch_input` and `batch_output`.

use super::data_type;
use crate::model::{BatchInputKind, RaggedPolicy};
use crate::proto::batch_input::Kind;
use crate::proto::batch_output::Kind as OutputKind;
use crate::proto::{BatchInput, BatchOutput};

pub(super) fn batch_inputs(policy: &RaggedPolicy) -> Vec<BatchInput> {
    let made = policy.batch_inputs.iter().map(|made| BatchInput {
        kind: kind(made.kind).into(),
        target_name: made.targets.clone(),
        data_type: data_type(made.dtype).into(),
        source_input: vec![made.source.clone()],
    });
    made.collect()
}

pub(super) fn batch_outputs(policy: &RaggedPolicy) -> Vec<BatchOutput> {
    let cut = policy.batch_outputs.iter().map(|cut| BatchOutput {
        kind: OutputKind::BatchScatterWithInputShape.into(),
        target_name: cut.targets.clone(),
        source_input: vec![cut.source.clone()],
    });
    cut.collect()
}

fn kind(kind: BatchInputKind) -> Kind {
    match kind {
        BatchInputKind::ElementCount => Kind::BatchElementCount,
        BatchInputKind::AccumulatedElementCount => Kind::BatchAccumulatedElementCount,
        BatchInputKind::AccumulatedElementCountWithZero => {
            Kind::BatchAccumulatedElementCountWithZero
        }
        BatchInputKind::MaxElementCountAsShape => Kind::BatchMaxElementCountAsShape,
        BatchInputKind::ItemShape => Kind::BatchItemShape,
        BatchInputKind::ItemShapeFlatten => Kind::BatchItemShapeFlatten,
    }
}
