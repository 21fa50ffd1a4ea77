//! Requests whose right answers are known, and the check of those answers.

use bytes::Bytes;
use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::model_infer_request::InferInputTensor;
use jitney::proto::{InferParameter, ModelInferRequest, ModelInferResponse};

/// Columns of the rows that simulated models are sent.
pub(crate) const COLUMNS: usize = 4;

pub(crate) fn input(name: &str, datatype: &str, shape: &[usize]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.iter().map(|size| *size as i64).collect(),
        ..InferInputTensor::default()
    }
}

/// A request with one input, sent raw.
pub(crate) fn raw(model: &str, input: InferInputTensor, data: Vec<u8>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![Bytes::from(data)],
        ..ModelInferRequest::default()
    }
}

/// Rows for a simulated model, no two alike: an echo tells whose they are.
pub(crate) fn rows(model: &str, seed: usize, rows: usize) -> ModelInferRequest {
    let numbers = (0..rows * COLUMNS).map(|index| (seed * 1000 + index) as f32);
    raw(
        model,
        input("x", "FP32", &[rows, COLUMNS]),
        bytes_of(numbers),
    )
}

/// One row of numbers for `variable_shape`.
pub(crate) fn sequence(numbers: &[f32]) -> ModelInferRequest {
    let input = input("x", "FP32", &[1, numbers.len()]);
    raw("variable_shape", input, bytes_of(numbers.iter().copied()))
}

pub(crate) fn with_parameter(
    mut request: ModelInferRequest,
    name: &str,
    choice: ParameterChoice,
) -> ModelInferRequest {
    let parameter = InferParameter {
        parameter_choice: Some(choice),
    };
    request.parameters.insert(name.to_owned(), parameter);
    request
}

/// Whether a simulated model gave back what it was sent.
#[track_caller]
pub(crate) fn assert_echo(response: &ModelInferResponse, sent: &ModelInferRequest) {
    assert_eq!(response.raw_output_contents, sent.raw_input_contents);
    assert_eq!(response.outputs[0].shape, sent.inputs[0].shape);
}

/// Whether `variable_shape` doubled and summed what it was sent.
#[track_caller]
pub(crate) fn assert_doubled(response: &ModelInferResponse, sent: &[f32]) {
    let doubled: Vec<f32> = sent.iter().map(|number| number * 2.0).collect();
    assert_eq!(floats(&response.raw_output_contents[0]), doubled);
    let sum: f32 = sent.iter().sum();
    assert_eq!(floats(&response.raw_output_contents[1]), [sum]);
    assert_eq!(response.outputs[0].shape, [1, sent.len() as i64]);
}

pub(crate) fn bytes_of(numbers: impl Iterator<Item = f32>) -> Vec<u8> {
    numbers.flat_map(f32::to_le_bytes).collect()
}

pub(crate) fn floats(raw: &[u8]) -> Vec<f32> {
    let (chunks, rest) = raw.as_chunks::<4>();
    assert!(rest.is_empty());
    chunks
        .iter()
        .map(|chunk| f32::from_le_bytes(*chunk))
        .collect()
}
