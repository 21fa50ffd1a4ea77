//! The requests that are sent.

use bytes::Bytes;
use jitney_load::proto::ModelInferRequest;
use jitney_load::proto::model_infer_request::InferInputTensor;

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.to_owned(),
        datatype: datatype.to_owned(),
        shape: shape.to_vec(),
        ..InferInputTensor::default()
    }
}

/// One row of the tiny model: 16 numbers.
pub(crate) fn tiny() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "tiny_mlp".to_owned(),
        inputs: vec![input("x", "FP32", &[1, 16])],
        raw_input_contents: vec![Bytes::from(vec![0; 64])],
        ..ModelInferRequest::default()
    }
}

/// One row of this many numbers.
pub(crate) fn identity(numbers: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "identity_fp32".to_owned(),
        inputs: vec![input("INPUT0", "FP32", &[1, numbers as i64])],
        raw_input_contents: vec![Bytes::from(vec![0; numbers * 4])],
        ..ModelInferRequest::default()
    }
}

/// One row of this many numbers for a simulated model.
pub(crate) fn numbers(model: &str, numbers: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.to_owned(),
        inputs: vec![input("x", "FP32", &[1, numbers as i64])],
        raw_input_contents: vec![Bytes::from(vec![0; numbers * 4])],
        ..ModelInferRequest::default()
    }
}

/// One sentence of this many tokens.
pub(crate) fn embedding(tokens: usize) -> ModelInferRequest {
    let shape = [1, tokens as i64];
    let ones = Bytes::from(1_i64.to_le_bytes().repeat(tokens));
    let ids = (0..tokens as i64).flat_map(|token| (1000 + token).to_le_bytes());
    ModelInferRequest {
        model_name: "minilm".to_owned(),
        inputs: vec![
            input("input_ids", "INT64", &shape),
            input("attention_mask", "INT64", &shape),
            input("token_type_ids", "INT64", &shape),
        ],
        raw_input_contents: vec![
            ids.collect::<Vec<u8>>().into(),
            ones,
            Bytes::from(vec![0; tokens * 8]),
        ],
        ..ModelInferRequest::default()
    }
}
