//! Requests that are run before the first real one, as `model_warmup`.

use super::data_type;
use crate::model::{WarmUpData, WarmUpInput, WarmUpRequest};
use crate::proto::ModelWarmup;
use crate::proto::model_warmup::Input;
use crate::proto::model_warmup::input::InputDataType;

pub(super) fn warm_up(request: &WarmUpRequest) -> ModelWarmup {
    let whole = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let inputs = request.inputs.iter();
    ModelWarmup {
        name: request.name.clone(),
        batch_size: whole(request.rows),
        count: whole(request.count),
        inputs: inputs.map(|own| (own.name.clone(), input(own))).collect(),
    }
}

fn input(input: &WarmUpInput) -> Input {
    let data = match &input.data {
        WarmUpData::Zero => InputDataType::ZeroData(true),
        WarmUpData::Random => InputDataType::RandomData(true),
        WarmUpData::File(file) => InputDataType::InputDataFile(file.clone()),
    };
    Input {
        data_type: data_type(input.dtype).into(),
        dims: input.shape.clone(),
        input_data_type: Some(data),
    }
}
