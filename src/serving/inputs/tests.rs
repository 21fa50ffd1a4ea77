use bytes::Bytes;

use super::*;
use crate::model::{Dimension, PaddingPolicy, TensorPolicy};
use crate::serving::padding::Padding;
use crate::serving::request::NamedTensor;
use crate::status::Code;
use crate::tensor::{Dtype, append_element};

fn spec(name: &str, dtype: Dtype, dimensions: Vec<Dimension>) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        dtype,
        dimensions,
    }
}

fn check() -> InputCheck {
    let batch = || Dimension::varying("batch");
    let sequence = || Dimension::varying("sequence");
    let signature = Signature {
        inputs: vec![
            spec("ids", Dtype::Int16, vec![batch(), sequence()]),
            spec("mask", Dtype::Bool, vec![batch(), sequence()]),
            spec("text", Dtype::Bytes, vec![batch(), Dimension::fixed(1)]),
        ],
        outputs: vec![
            spec("y", Dtype::Fp32, vec![batch()]),
            spec("z", Dtype::Fp32, vec![batch()]),
        ],
    };
    assert!(signature.batching().is_rows());
    InputCheck::new("m", signature, stacking(None))
}

fn stacking(padding: Option<Padding>) -> Arc<Stacking> {
    Arc::new(Stacking {
        batched: true,
        padding,
        ..Stacking::default()
    })
}

/// The same model, with sequences padded.
fn padded() -> InputCheck {
    let signature = check().signature;
    let policy = PaddingPolicy {
        dimension: Some("sequence".to_owned()),
        mask: Some("mask".to_owned()),
        lengths: vec![4, 8],
        max_batch_tokens: Some(16),
        ..PaddingPolicy::default()
    };
    let padding = Padding::resolve(&policy, &signature).unwrap();
    InputCheck::new("m", signature, stacking(Some(padding)))
}

#[test]
fn rows_of_different_lengths_are_of_one_class() {
    let check = padded();
    let short = check.check(&mut sound(1, 3), 4).unwrap();
    let long = check.check(&mut sound(2, 8), 4).unwrap();
    assert_eq!(short.class, long.class);
    assert_eq!((short.length, long.length), (3, 8));
}

#[test]
fn a_mask_is_made_where_none_comes() {
    let mut request = sound(2, 3);
    request.inputs.remove(1);
    let checked = padded().check(&mut request, 4).unwrap();
    assert_eq!(checked.inputs[1].shape, Shape::new(&[2, 3]));
    assert_eq!(checked.inputs[1].data[..], [1; 6]);
    // Not on the word of a shape alone.
    let mut request = sound(2, 3);
    request.inputs.remove(1);
    request.inputs[1].tensor.shape = Shape::new(&[1 << 20, 1 << 40]);
    assert!(padded().check(&mut request, 4).is_err());
}

#[test]
fn what_is_too_long_is_refused() {
    let message = |rows, length| {
        padded()
            .check(&mut sound(rows, length), 4)
            .unwrap_err()
            .message
    };
    assert_eq!(
        message(1, 9),
        r#"model "m": the request is 9 long where at most 8 (padding.lengths) is taken"#
    );
    assert_eq!(
        message(3, 5),
        r#"model "m": the request has 3 rows of 5, 24 tokens, where at most 16 (padding.max_batch_tokens) are taken"#
    );
    assert!(message(1, 0).contains("no length"));
}

#[test]
fn a_length_that_costs_nothing_to_say_is_bounded() {
    let varying = Dimension::varying;
    let dimensions = vec![varying("batch"), varying("sequence"), varying("width")];
    let signature = Signature {
        inputs: vec![spec("x", Dtype::Fp32, dimensions)],
        outputs: vec![spec("y", Dtype::Fp32, vec![varying("batch")])],
    };
    let policy = PaddingPolicy {
        dimension: Some("sequence".to_owned()),
        ..PaddingPolicy::default()
    };
    let padding = Padding::resolve(&policy, &signature).unwrap();
    let check = InputCheck::new("m", signature, stacking(Some(padding)));
    let long = |rows: i64, length: i64| {
        let mut request = InferRequest {
            inputs: vec![named("x", Dtype::Fp32, &[rows, length, 0], Vec::new())],
            ..InferRequest::default()
        };
        check.check(&mut request, 65_536)
    };
    assert_eq!(long(1, 1 << 30).unwrap().length, 1 << 30);
    assert_eq!(
        long(1, 1 << 62).unwrap_err().message,
        r#"model "m": the request is 4611686018427387904 long where at most 1073741824 is taken"#
    );
    // So is what all rows together are, as a configuration could bound it.
    let refused = long(2_048, 1 << 30).unwrap_err().message;
    assert!(refused.contains("at most 1099511627776"), "{refused}");
}

fn named(name: &str, dtype: Dtype, shape: &[i64], data: Vec<u8>) -> NamedTensor {
    NamedTensor {
        name: name.to_owned(),
        tensor: Tensor {
            dtype,
            shape: Shape::new(shape),
            data: Bytes::from(data),
        },
    }
}

fn words(count: usize) -> Vec<u8> {
    let mut raw = Vec::new();
    for _ in 0..count {
        append_element(&mut raw, b"word");
    }
    raw
}

fn sound(rows: usize, length: usize) -> InferRequest {
    let shape = [rows as i64, length as i64];
    InferRequest {
        inputs: vec![
            named("text", Dtype::Bytes, &[rows as i64, 1], words(rows)),
            named("mask", Dtype::Bool, &shape, vec![1; rows * length]),
            named("ids", Dtype::Int16, &shape, vec![0; rows * length * 2]),
        ],
        ..InferRequest::default()
    }
}

fn refusal(change: impl FnOnce(&mut InferRequest)) -> String {
    let mut request = sound(2, 3);
    change(&mut request);
    let status = check().check(&mut request, 4).unwrap_err();
    assert_eq!(status.code, Code::InvalidArgument);
    status.message
}

#[test]
fn a_sound_request_is_put_in_order() {
    let check = check();
    let checked = check.check(&mut sound(2, 3), 4).unwrap();
    assert_eq!(checked.rows, 2);
    assert_eq!(checked.inputs[0].dtype, Dtype::Int16);
    assert_eq!(checked.outputs.as_slice(), [0, 1]);
    let same = check.check(&mut sound(1, 3), 4).unwrap();
    let other = check.check(&mut sound(2, 4), 4).unwrap();
    assert_eq!(checked.class, same.class);
    assert_ne!(checked.class, other.class);
}

#[test]
fn outputs_come_as_requested() {
    let mut request = sound(1, 1);
    request.outputs = vec!["z".to_owned()];
    assert_eq!(
        check().check(&mut request, 4).unwrap().outputs.as_slice(),
        [1]
    );
    let unknown = refusal(|request| request.outputs = vec!["w".to_owned()]);
    assert_eq!(
        unknown,
        r#"model "m": there is no output "w"; the model has y FP32 [-1], z FP32 [-1]"#
    );
    let twice = refusal(|request| request.outputs = vec!["y".to_owned(), "y".to_owned()]);
    assert_eq!(twice, r#"model "m": output "y" is requested twice"#);
}

#[test]
fn every_mistake_names_itself() {
    let missing = refusal(|request| drop(request.inputs.pop()));
    assert_eq!(missing, r#"model "m": input ids INT16 [-1,-1] is missing"#);
    let twice = refusal(|request| request.inputs.push(request.inputs[0].clone()));
    assert_eq!(twice, r#"model "m": input "text" is given twice"#);
    let unknown = refusal(|request| request.inputs[0].name = "nobody".to_owned());
    assert!(unknown.starts_with(r#"model "m": there is no input "nobody"; the model has ids"#));
    let dtype = refusal(|request| request.inputs[2].tensor.dtype = Dtype::Fp16);
    assert_eq!(
        dtype,
        r#"model "m": input "ids" is FP16 where the model takes INT16"#
    );
    let rank = refusal(|request| request.inputs[2].tensor.shape = Shape::new(&[6]));
    assert_eq!(
        rank,
        r#"model "m": input "ids" has shape [6] where the model takes [-1,-1]"#
    );
    let negative = refusal(|request| request.inputs[2].tensor.shape = Shape::new(&[2, -3]));
    assert_eq!(
        negative,
        r#"model "m": input "ids" has shape [2,-3] where the model takes [-1,-1]"#
    );
    let overflow = refusal(|request| {
        request.inputs[2].tensor.shape = Shape::new(&[i64::MAX, i64::MAX]);
    });
    assert!(
        overflow.ends_with("which is more elements than can be counted"),
        "{overflow}"
    );
    let short = refusal(|request| request.inputs[2].tensor.data.truncate(11));
    assert_eq!(
        short,
        r#"model "m": input "ids" of shape [2,3] takes 12 bytes (6 elements of 2), and 11 came"#
    );
    let words = refusal(|request| request.inputs[0].tensor.data = words(3).into());
    assert_eq!(
        words,
        r#"model "m": input "text" of shape [2,1] takes 2 elements, and 3 came"#
    );
    let torn = refusal(|request| request.inputs[0].tensor.data.truncate(9));
    assert!(
        torn.contains("element 1 announces 4 bytes where 1 are left"),
        "{torn}"
    );
}

#[test]
fn rows_and_named_dimensions_must_agree() {
    let sequence = refusal(|request| {
        request.inputs[1] = named("mask", Dtype::Bool, &[2, 4], vec![1; 8]);
    });
    assert_eq!(
        sequence,
        r#"model "m": dimension sequence is 3 in input "ids" and 4 in input "mask""#
    );
    let many = check().check(&mut sound(5, 1), 4).unwrap_err();
    assert_eq!(
        many.message,
        r#"model "m": the request has 5 rows where 1 to 4 (max_batch_size) are taken"#
    );
    assert!(check().check(&mut sound(0, 1), 4).is_err());
}

#[test]
fn what_was_checked_is_given_back_as_it_came() {
    let sorted = |mut inputs: Vec<NamedTensor>| {
        inputs.sort_by(|one, other| one.name.cmp(&other.name));
        inputs
    };
    let mut without = sound(2, 3);
    without.inputs.remove(1);
    // Whoever checks it next makes the mask, or calls it missing.
    for (check, mut request) in [
        (check(), sound(2, 3)),
        (padded(), without.clone()),
        (optional(), without),
    ] {
        let came = sorted(request.inputs.clone());
        let checked = check.check(&mut request, 4).unwrap();
        assert!(request.inputs.is_empty());
        check.give_back(checked, &mut request);
        assert_eq!(sorted(request.inputs), came);
    }
}

/// The same model, of which a request may leave the mask out.
fn optional() -> InputCheck {
    check().leaving_out(&optional_mask())
}

fn optional_mask() -> TensorsPolicy {
    let mask = TensorPolicy {
        name: "mask".to_owned(),
        dtype: Dtype::Bool,
        shape: vec![-1],
        reshape: None,
        format: None,
        optional: true,
    };
    TensorsPolicy {
        inputs: vec![mask],
        outputs: Vec::new(),
    }
}

#[test]
fn what_is_optional_may_be_left_out_and_makes_another_class() {
    let check = optional();
    let mut without = sound(2, 3);
    without.inputs.remove(1);
    let without = check.check(&mut without, 4).unwrap();
    assert_eq!(without.inputs[1], Tensor::absent(Dtype::Bool));
    assert_eq!(without.rows, 2);
    let with = check.check(&mut sound(2, 3), 4).unwrap();
    assert_ne!(with.class, without.class);
    let mut again = sound(1, 3);
    again.inputs.remove(1);
    assert_eq!(
        check.check(&mut again, 4).unwrap().class,
        without.class,
        "{again:?}"
    );
}

#[test]
fn what_is_optional_is_checked_if_it_comes() {
    let refused = |change: fn(&mut InferRequest)| {
        let mut request = sound(2, 3);
        change(&mut request);
        optional().check(&mut request, 4).unwrap_err().message
    };
    let empty = refused(|request| request.inputs[1] = named("mask", Dtype::Bool, &[], vec![]));
    assert_eq!(
        empty,
        r#"model "m": input "mask" has shape [] where the model takes [-1,-1]"#
    );
    let other = refused(|request| drop(request.inputs.remove(2)));
    assert_eq!(other, r#"model "m": input ids INT16 [-1,-1] is missing"#);
}

#[test]
fn an_input_of_nothing_but_rows_makes_another_class_too() {
    let rows = |name: &str| spec(name, Dtype::Int16, vec![Dimension::varying("batch")]);
    let signature = Signature {
        inputs: vec![rows("x"), rows("mask")],
        outputs: vec![rows("y")],
    };
    let optional = optional_mask();
    let check = InputCheck::new("m", signature, stacking(None)).leaving_out(&optional);
    let class = |names: &[&str]| {
        let given = names.iter();
        let inputs = given.map(|name| named(name, Dtype::Int16, &[1], vec![0; 2]));
        let mut request = InferRequest {
            inputs: inputs.collect(),
            ..InferRequest::default()
        };
        check.check(&mut request, 4).unwrap().class
    };
    assert_ne!(class(&["x"]), class(&["x", "mask"]));
    assert_eq!(class(&["mask", "x"]), class(&["x", "mask"]));
}
