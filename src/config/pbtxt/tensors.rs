//! `input` and `output`: what clients see of the model's tensors.

use std::path::PathBuf;
use std::sync::Arc;

use super::draft::Draft;
use super::ensemble::is_one as is_ensemble;
use crate::config::tensors::{check_reshape, twice};
use crate::model::{LabelPolicy, OutputLabels, TensorFormat, TensorPolicy, TensorsPolicy};
use crate::proto::model_input::Format;
use crate::proto::{DataType, ModelConfig, ModelTensorReshape};
use crate::tensor::Dtype;

/// What the two sections say.
pub(super) fn read(config: &ModelConfig, draft: &mut Draft) -> TensorsPolicy {
    let mut inputs = Vec::new();
    for (index, input) in config.input.iter().enumerate() {
        let path = format!("input[{index}]");
        let tensor = (input.name.as_str(), input.data_type, &input.dims[..]);
        let mut tensor = read_tensor(tensor, input.reshape.as_ref(), &path, draft);
        tensor.format = format(input.format());
        tensor.optional = input.optional;
        if input.optional && is_ensemble(config) {
            let message =
                "contradicts ensemble_scheduling: a step that takes it could not run without";
            draft.note(&format!("{path}.optional"), message);
        }
        inputs.push(tensor);
    }
    let mut outputs = Vec::new();
    for (index, output) in config.output.iter().enumerate() {
        let path = format!("output[{index}]");
        let tensor = (output.name.as_str(), output.data_type, &output.dims[..]);
        outputs.push(read_tensor(tensor, output.reshape.as_ref(), &path, draft));
    }
    for (field, tensors) in [("input", &inputs), ("output", &outputs)] {
        if let Some(name) = twice(tensors) {
            draft.note(field, format!("{name:?} is given twice"));
        }
    }
    TensorsPolicy { inputs, outputs }
}

fn read_tensor(
    (name, data_type, dims): (&str, i32, &[i64]),
    reshape: Option<&ModelTensorReshape>,
    path: &str,
    draft: &mut Draft,
) -> TensorPolicy {
    let name = draft.tensor_name(&format!("{path}.name"), name);
    let dtype = dtype(data_type);
    if dtype.is_none() {
        let message = "missing; an element type, such as TYPE_FP32";
        draft.note(&format!("{path}.data_type"), message);
    }
    check_dims(dims, &format!("{path}.dims"), draft);
    let reshape = reshape.map(|reshape| reshape.shape.clone());
    if let Some(reshape) = &reshape {
        let path = format!("{path}.reshape.shape");
        check_dims(reshape, &path, draft);
        if let Err(message) = check_reshape(dims, reshape) {
            draft.note(&path, message);
        }
    }
    TensorPolicy {
        name,
        dtype: dtype.unwrap_or(Dtype::Fp32),
        shape: dims.to_vec(),
        reshape,
        format: None,
        optional: false,
    }
}

fn format(format: Format) -> Option<TensorFormat> {
    match format {
        Format::None => None,
        Format::Nhwc => Some(TensorFormat::Nhwc),
        Format::Nchw => Some(TensorFormat::Nchw),
    }
}

/// The files that name the classes of outputs.
pub(super) fn labels(config: &ModelConfig, draft: &mut Draft) -> LabelPolicy {
    let mut labels = Vec::new();
    for (index, output) in config.output.iter().enumerate() {
        let file = &output.label_filename;
        if file.is_empty() {
            continue;
        }
        draft.check_file_name(&format!("output[{index}].label_filename"), file);
        labels.push(OutputLabels {
            output: output.name.clone(),
            file: PathBuf::from(file),
            labels: Arc::default(),
        });
    }
    labels.sort_by(|one, other| one.output.cmp(&other.output));
    LabelPolicy(labels)
}

fn check_dims(dims: &[i64], path: &str, draft: &mut Draft) {
    for (index, size) in dims.iter().enumerate().filter(|(_, size)| **size < -1) {
        let message = format!("found {size}; allowed: a whole number, at least -1");
        draft.note(&format!("{path}[{index}]"), message);
    }
}

/// The element type that the protocol's number stands for.
pub(super) fn dtype(number: i32) -> Option<Dtype> {
    Some(match DataType::try_from(number).ok()? {
        DataType::TypeInvalid => return None,
        DataType::TypeBool => Dtype::Bool,
        DataType::TypeUint8 => Dtype::Uint8,
        DataType::TypeUint16 => Dtype::Uint16,
        DataType::TypeUint32 => Dtype::Uint32,
        DataType::TypeUint64 => Dtype::Uint64,
        DataType::TypeInt8 => Dtype::Int8,
        DataType::TypeInt16 => Dtype::Int16,
        DataType::TypeInt32 => Dtype::Int32,
        DataType::TypeInt64 => Dtype::Int64,
        DataType::TypeFp16 => Dtype::Fp16,
        DataType::TypeFp32 => Dtype::Fp32,
        DataType::TypeFp64 => Dtype::Fp64,
        DataType::TypeString => Dtype::Bytes,
        DataType::TypeBf16 => Dtype::Bf16,
    })
}
