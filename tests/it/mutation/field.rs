//! Sound requests, and what can be wrong with each field of them.

use bytes::Bytes;
use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use jitney::proto::{InferParameter, InferTensorContents, ModelInferRequest};

use super::dice::Dice;
use crate::request::{bytes_of, input, raw, sequence};

const TEXTS: [&str; 8] = ["", "x", "INPUT0", "OUTPUT0", "\0", "../..", "äöü", "%s%n"];
const VERSIONS: [&str; 8] = [
    "1",
    "2",
    "-1",
    "0",
    "01",
    "x",
    "99999999999999999999",
    "1\0",
];
const MODELS: [&str; 6] = [
    "add_sub",
    "identity_all",
    "gather",
    "tiny_mlp",
    "scalar_out",
    "no",
];
const DATATYPES: [&str; 18] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "BF16", "FP32", "FP64", "BYTES", "", "fp32", "STRING", "FP8",
];
const SIZES: [i64; 12] = [
    0,
    1,
    2,
    3,
    16,
    33,
    65_536,
    -1,
    -2,
    i64::MAX,
    i64::MIN,
    1 << 32,
];
const PARAMETERS: [&str; 9] = [
    "sequence_id",
    "priority",
    "timeout",
    "shared_memory_region",
    "classification",
    "binary_data",
    "binary_data_output",
    "triton_enable_empty_final_response",
    "unheard_of",
];

/// A request that is answered, for one of several models.
pub(crate) fn sound(dice: &mut Dice) -> ModelInferRequest {
    let rows = 1 + dice.below(3);
    let mut request = match dice.below(4) {
        0 => sequence(&[1.0, 2.0, 3.0]),
        1 => add_sub(rows),
        2 => words(rows),
        _ => {
            let numbers = bytes_of((0..rows * 16).map(|number| number as f32));
            raw("tiny_mlp", input("x", "FP32", &[rows, 16]), numbers)
        }
    };
    request.id = "id".repeat(dice.below(5));
    request
}

/// A request with one to three things changed about it.
pub(crate) fn mutated(dice: &mut Dice) -> ModelInferRequest {
    let mut request = sound(dice);
    for _ in 0..=dice.below(3) {
        mutate(dice, &mut request);
    }
    request
}

fn add_sub(rows: usize) -> ModelInferRequest {
    let numbers = vec![7; rows * 64];
    let mut request = raw(
        "add_sub",
        input("INPUT0", "INT32", &[rows, 16]),
        numbers.clone(),
    );
    request.inputs.push(input("INPUT1", "INT32", &[rows, 16]));
    request.raw_input_contents.push(Bytes::from(numbers));
    request
}

fn words(rows: usize) -> ModelInferRequest {
    let words = b"\x03\0\0\0abc".repeat(rows);
    raw(
        "string_identity",
        input("INPUT0", "BYTES", &[rows, 1]),
        words,
    )
}

fn mutate(dice: &mut Dice, request: &mut ModelInferRequest) {
    match dice.below(12) {
        0 => request.model_name = dice.one_of(&MODELS).to_owned(),
        1 => request.model_version = dice.one_of(&VERSIONS).to_owned(),
        2 => request.id = "i".repeat(dice.below(5_000)),
        3 => mutate_parameter(dice, request),
        4 => mutate_outputs(dice, request),
        5 => mutate_raw(dice, request),
        6 => mutate_order(dice, request),
        _ => mutate_input(dice, request),
    }
}

fn parameter(dice: &mut Dice) -> (String, InferParameter) {
    let choice = match dice.below(7) {
        0 => Some(ParameterChoice::BoolParam(dice.below(2) == 0)),
        1 => Some(ParameterChoice::Int64Param(dice.one_of(&[
            0,
            -1,
            i64::MIN,
            i64::MAX,
        ]))),
        2 => Some(ParameterChoice::StringParam(dice.one_of(&TEXTS).to_owned())),
        3 => Some(ParameterChoice::DoubleParam(f64::NAN)),
        4 => Some(ParameterChoice::Uint64Param(dice.one_of(&[0, u64::MAX]))),
        5 => Some(ParameterChoice::StringParam("3600000000".to_owned())),
        _ => None,
    };
    let parameter = InferParameter {
        parameter_choice: choice,
    };
    (dice.one_of(&PARAMETERS).to_owned(), parameter)
}

fn mutate_parameter(dice: &mut Dice, request: &mut ModelInferRequest) {
    let (name, parameter) = parameter(dice);
    request.parameters.insert(name, parameter);
}

fn mutate_outputs(dice: &mut Dice, request: &mut ModelInferRequest) {
    for _ in 0..=dice.below(3) {
        let mut output = InferRequestedOutputTensor {
            name: dice
                .one_of(&["y", "sum", "OUTPUT0", "OUTPUT1", "x", ""])
                .to_owned(),
            ..InferRequestedOutputTensor::default()
        };
        if dice.below(4) == 0 {
            output.parameters.extend([parameter(dice)]);
        }
        request.outputs.push(output);
    }
}

fn mutate_raw(dice: &mut Dice, request: &mut ModelInferRequest) {
    let contents = &mut request.raw_input_contents;
    let length = dice.below(200);
    let place = dice.below(contents.len() + 1);
    match dice.below(4) {
        0 => contents.clear(),
        1 => contents.insert(place, dice.bytes(length).into()),
        2 if place < contents.len() => {
            let mut data = contents[place].to_vec();
            dice.spoil(&mut data);
            contents[place] = data.into();
        }
        _ if place < contents.len() => contents[place] = dice.bytes(length).into(),
        _ => {}
    }
}

fn mutate_order(dice: &mut Dice, request: &mut ModelInferRequest) {
    let inputs = &mut request.inputs;
    if inputs.is_empty() {
        return;
    }
    let place = dice.below(inputs.len());
    match dice.below(3) {
        0 => drop(inputs.remove(place)),
        1 => inputs.push(inputs[place].clone()),
        _ => inputs.reverse(),
    }
}

fn mutate_input(dice: &mut Dice, request: &mut ModelInferRequest) {
    let count = request.inputs.len().max(1);
    let place = dice.below(count);
    let Some(input) = request.inputs.get_mut(place) else {
        return;
    };
    match dice.below(6) {
        0 => input.name = dice.one_of(&TEXTS).to_owned(),
        1 => input.datatype = dice.one_of(&DATATYPES).to_owned(),
        2 => input.parameters.extend([parameter(dice)]),
        3 => {
            input.contents = Some(typed_contents(dice));
            request.raw_input_contents.clear();
        }
        _ => mutate_shape(dice, input),
    }
}

fn mutate_shape(dice: &mut Dice, input: &mut InferInputTensor) {
    let size = dice.one_of(&SIZES);
    let place = dice.below(input.shape.len() + 1);
    match dice.below(4) {
        0 => input.shape.insert(place, size),
        1 => drop(input.shape.pop()),
        2 => input.shape = vec![size; dice.below(70)],
        _ if place < input.shape.len() => input.shape[place] = size,
        _ => {}
    }
}

fn typed_contents(dice: &mut Dice) -> InferTensorContents {
    let count = dice.one_of(&[0, 1, 3, 16, 32, 48]);
    let mut contents = InferTensorContents::default();
    for _ in 0..=dice.below(2) {
        match dice.below(8) {
            0 => contents.bool_contents = vec![true; count],
            1 => contents.int_contents = vec![i32::MIN; count],
            2 => contents.int64_contents = vec![i64::MAX; count],
            3 => contents.uint_contents = vec![u32::MAX; count],
            4 => contents.uint64_contents = vec![u64::MAX; count],
            5 => contents.fp32_contents = vec![f32::NAN; count],
            6 => contents.fp64_contents = vec![f64::MAX; count],
            _ => contents.bytes_contents = vec![Bytes::from_static(b"\xff\0"); count],
        }
    }
    contents
}
