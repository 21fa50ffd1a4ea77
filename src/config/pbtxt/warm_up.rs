//! `model_warmup`: requests that are run before the first real one.

use super::draft::Draft;
use super::{sorted, tensors};
use crate::model::{WarmUpData, WarmUpInput, WarmUpPolicy, WarmUpRequest};
use crate::proto::model_warmup::Input;
use crate::proto::model_warmup::input::InputDataType;
use crate::proto::{ModelConfig, ModelWarmup};
use crate::tensor::Dtype;

/// What the section says.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> WarmUpPolicy {
    let mut requests = Vec::new();
    for (index, sample) in config.model_warmup.iter().enumerate() {
        requests.push(request(sample, &format!("model_warmup[{index}]"), draft));
    }
    WarmUpPolicy {
        requests,
        ..WarmUpPolicy::default()
    }
}

fn request(sample: &ModelWarmup, path: &str, draft: &mut Draft) -> WarmUpRequest {
    let rows = sample.batch_size.max(1);
    let count = sample.count.max(1);
    let mut inputs = Vec::new();
    for (name, given) in sorted(sample.inputs.clone()) {
        let path = format!("{path}.inputs[{name}]");
        inputs.push(input(name, given, &path, draft));
    }
    WarmUpRequest {
        name: sample.name.clone(),
        rows: draft.whole(&format!("{path}.batch_size"), rows, 1, 65_536),
        count: draft.whole(&format!("{path}.count"), count, 1, 1000),
        inputs,
    }
}

fn input(name: String, given: Input, path: &str, draft: &mut Draft) -> WarmUpInput {
    let dtype = tensors::dtype(given.data_type);
    if dtype.is_none() {
        let message = "missing; an element type, such as TYPE_FP32";
        draft.note(&format!("{path}.data_type"), message);
    }
    let most = i64::from(i32::MAX);
    for size in given.dims.iter().filter(|size| !(0..=most).contains(*size)) {
        let message = format!("found {size}; allowed: a whole number, 0 to {most}");
        draft.note(&format!("{path}.dims"), message);
    }
    let data = match given.input_data_type {
        Some(InputDataType::ZeroData(_)) => WarmUpData::Zero,
        Some(InputDataType::RandomData(_)) => WarmUpData::Random,
        Some(InputDataType::InputDataFile(file)) => {
            draft.check_file_name(&format!("{path}.input_data_file"), &file);
            WarmUpData::File(file)
        }
        None => {
            draft.note(
                path,
                "missing; say zero_data, random_data or input_data_file",
            );
            WarmUpData::Zero
        }
    };
    WarmUpInput {
        name,
        dtype: dtype.unwrap_or(Dtype::Fp32),
        shape: given.dims,
        data,
    }
}
