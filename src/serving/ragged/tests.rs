use proptest::prelude::*;

use super::lay::make;
use super::padded::padded;
use super::*;
use crate::device::HostDevice;
use crate::model::PaddingPolicy;
use crate::scheduler::Load;
use crate::serving::stacking::Stacking;
use crate::serving::staging::Staging;
use crate::serving::ticket::{Job, Ticket};
use crate::tensor::{Shape, Tensor};

fn spec(name: &str, dtype: Dtype, shape: &[i64]) -> TensorSpec {
    let dimensions = shape.iter().map(|size| match usize::try_from(*size) {
        Ok(size) => Dimension::fixed(size),
        Err(_) => Dimension::varying(""),
    });
    TensorSpec {
        name: name.to_owned(),
        dtype,
        dimensions: dimensions.collect(),
    }
}

/// Takes `x` end to end, `row` by rows, and what is made of `x`; gives `y` end to end.
fn whole() -> Signature {
    Signature {
        inputs: vec![
            spec("ends", Dtype::Fp32, &[-1]),
            spec("x", Dtype::Uint16, &[-1]),
            spec("row", Dtype::Int8, &[-1, 2]),
            spec("shapes", Dtype::Int32, &[-1, 1]),
        ],
        outputs: vec![
            spec("y", Dtype::Uint16, &[-1]),
            spec("z", Dtype::Int8, &[-1, 2]),
        ],
    }
}

fn made(kind: BatchInputKind, target: &str, dtype: Dtype) -> BatchInput {
    BatchInput {
        kind,
        targets: vec![target.to_owned()],
        dtype,
        source: "x".to_owned(),
    }
}

fn policy() -> RaggedPolicy {
    RaggedPolicy {
        inputs: vec!["x".to_owned()],
        batch_inputs: vec![
            made(BatchInputKind::AccumulatedElementCount, "ends", Dtype::Fp32),
            made(BatchInputKind::ItemShape, "shapes", Dtype::Int32),
        ],
        batch_outputs: vec![crate::model::BatchOutput {
            targets: vec!["y".to_owned()],
            source: "x".to_owned(),
        }],
    }
}

fn ragged() -> Ragged {
    Ragged::resolve(&policy(), &TensorsPolicy::default(), &whole()).unwrap()
}

fn tensor(dtype: Dtype, shape: &[i64], data: Vec<u8>) -> Tensor {
    Tensor {
        dtype,
        shape: Shape::new(shape),
        data: data.into(),
    }
}

/// A request of so many rows, each of so many elements.
fn request(rows: usize, length: usize, seed: u8) -> Vec<Tensor> {
    let shape = |columns: usize| [rows as i64, columns as i64];
    let byte = |index: usize| seed.wrapping_add(index as u8);
    let bytes = |count: usize| (0..count).map(byte).collect();
    vec![
        tensor(Dtype::Uint16, &shape(length), bytes(rows * length * 2)),
        tensor(Dtype::Int8, &shape(2), bytes(rows * 2)),
    ]
}

fn shaped(shapes: &[&[i64]]) -> Vec<Tensor> {
    let shapes = shapes.iter();
    shapes
        .map(|shape| tensor(Dtype::Fp32, shape, Vec::new()))
        .collect()
}

/// What is made of inputs of these shapes.
fn numbers(kind: BatchInputKind, shapes: &[&[i64]]) -> (Vec<i64>, Vec<i32>) {
    let made = make(kind, Dtype::Int32, shaped(shapes).iter()).unwrap();
    let numbers = made.data.as_chunks::<4>().0.iter();
    let numbers = numbers.map(|bytes| i32::from_le_bytes(*bytes)).collect();
    (made.shape.to_vec(), numbers)
}

#[test]
fn a_batch_is_told_as_tritons_documentation_says() {
    use BatchInputKind::*;

    let three: &[&[i64]] = &[&[1, 3], &[1, 4], &[1, 5]];
    assert_eq!(numbers(ElementCount, three), (vec![3], vec![3, 4, 5]));
    assert_eq!(
        numbers(AccumulatedElementCount, three),
        (vec![3], vec![3, 7, 12])
    );
    assert_eq!(
        numbers(AccumulatedElementCountWithZero, three),
        (vec![4], vec![0, 3, 7, 12])
    );
    assert_eq!(
        numbers(MaxElementCountAsShape, three),
        (vec![5], vec![0; 5])
    );
    // Of shapes there is one a row, of counts one a request.
    let two: &[&[i64]] = &[&[2, 3, 1], &[1, 2, 2]];
    assert_eq!(
        numbers(ItemShape, two),
        (vec![3, 2], vec![3, 1, 3, 1, 2, 2])
    );
    assert_eq!(
        numbers(ItemShapeFlatten, two),
        (vec![6], vec![3, 1, 3, 1, 2, 2])
    );
    assert_eq!(numbers(ElementCount, two), (vec![2], vec![6, 4]));
    let none: &[&[i64]] = &[&[1, 0]];
    assert_eq!(numbers(AccumulatedElementCount, none), (vec![1], vec![0]));
    assert_eq!(numbers(MaxElementCountAsShape, none), (vec![0], vec![]));
}

#[test]
fn a_count_that_its_type_does_not_have_is_an_error() {
    let count = |dtype, size| {
        let inputs = shaped(&[&[1, size]]);
        make(BatchInputKind::ElementCount, dtype, inputs.iter()).map(|made| made.data)
    };
    let exact = ((1_u32 << 24) as f32).to_le_bytes();
    assert_eq!(count(Dtype::Fp32, 1 << 24).unwrap()[..], exact);
    assert_eq!(
        count(Dtype::Fp32, (1 << 24) + 1).unwrap_err(),
        "16777217 elements are more than FP32 can count exactly"
    );
    assert!(count(Dtype::Int32, (1 << 24) + 1).is_ok());
    assert!(count(Dtype::Int32, 1 << 31).is_err());
}

#[test]
fn clients_see_rows_and_nothing_that_is_made() {
    let client = ragged().client;
    let seen = |specs: &[TensorSpec]| specs.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        seen(&client.inputs),
        ["x UINT16 [-1,-1]", "row INT8 [-1,2]"]
    );
    assert_eq!(seen(&client.outputs), ["y UINT16 [-1,-1]", "z INT8 [-1,2]"]);
    assert!(client.batching().is_rows());
    assert!(ragged().is_laid(0) && !ragged().is_laid(1));
}

#[test]
fn outputs_that_are_not_what_they_are_cut_by_are_an_error() {
    let requests = [request(1, 3, 0), request(2, 2, 0)];
    let requests = || requests.iter().map(|request| &request[..]);
    let output = |count: i64| tensor(Dtype::Uint16, &[count], vec![0; count as usize * 2]);
    let ragged = ragged();
    let shares = ragged.cut(0, &output(7), requests()).unwrap().unwrap();
    assert_eq!(shares[1].shape, Shape::new(&[2, 2]));
    assert_eq!(shares[1].data.len(), 8);
    for count in [0, 6, 8] {
        let wrong = ragged.cut(0, &output(count), requests()).unwrap();
        assert!(wrong.unwrap_err().contains("elements came out"));
    }
    assert_eq!(ragged.cut(1, &output(7), requests()), None);
}

#[test]
fn what_cannot_be_is_said() {
    let refused = |change: fn(&mut RaggedPolicy)| {
        let mut policy = policy();
        change(&mut policy);
        let mut policy = ModelPolicy {
            ragged: Some(policy),
            ..ModelPolicy::default()
        };
        Ragged::of(&mut policy, &whole()).unwrap_err()
    };
    let unknown = refused(|policy| policy.inputs[0] = "w".to_owned());
    assert!(unknown.starts_with("there is no input \"w\"; the model has ends FP32 [-1], x"));
    let unknown = refused(|policy| policy.batch_outputs[0].targets[0] = "w".to_owned());
    assert!(unknown.starts_with("there is no output \"w\""));
    let twice = refused(|policy| policy.inputs.push("ends".to_owned()));
    assert!(
        twice.contains("\"ends\"") && twice.contains("twice"),
        "{twice}"
    );
    let dtype = refused(|policy| policy.batch_inputs[0].dtype = Dtype::Int32);
    assert_eq!(
        dtype,
        "batch input \"ends\" is made as INT32, and the model takes ends FP32 [-1]"
    );
    let form = refused(|policy| policy.batch_inputs[1].kind = BatchInputKind::ElementCount);
    assert_eq!(
        form,
        "batch input \"shapes\" is made as [-1], and the model takes shapes INT32 [-1,1]"
    );
    let source = refused(|policy| policy.batch_inputs[0].source = "shapes".to_owned());
    assert_eq!(source, "there is no input \"shapes\" that requests bring");
}

#[test]
fn what_keeps_its_batch_dimension_is_padded() {
    let mut model = whole();
    model.inputs[1] = spec("x", Dtype::Uint16, &[-1, 4, -1]);
    let laid_too = padded(&policy(), None, &model).unwrap_err();
    assert!(laid_too.contains("has a batch dimension"), "{laid_too}");
    let alone = RaggedPolicy {
        inputs: vec!["x".to_owned()],
        ..RaggedPolicy::default()
    };
    let padding = padded(&alone, None, &model).unwrap().unwrap();
    assert_eq!(padding.axes, [("x".to_owned(), 2)]);
    model.inputs[1].dimensions[2] = Dimension::varying("sequence");
    let padding = padded(&alone, None, &model).unwrap().unwrap();
    assert_eq!(padding.dimension.as_deref(), Some("sequence"));
    let other = PaddingPolicy {
        axes: vec![("row".to_owned(), 1)],
        ..PaddingPolicy::default()
    };
    let missed = padded(&alone, Some(&other), &model).unwrap_err();
    assert!(missed.ends_with("is not in [padding]; name its axis there"));
    model.inputs[1].dimensions[1] = Dimension::varying("");
    assert!(padded(&alone, None, &model).is_err());
    assert!(padded(&policy(), Some(&other), &whole()).is_err());
}

fn job(inputs: Vec<Tensor>) -> Job {
    let rows = inputs[0].shape[0] as usize;
    Job {
        inputs,
        item: crate::scheduler::Item {
            rows,
            length: 1,
            class: crate::scheduler::ShapeClass(0),
            deadline: None,
            level: 0,
        },
        arrived: crate::clock::Moment::ORIGIN,
        context: None,
        retried: false,
        ticket: Ticket::new(tokio::sync::oneshot::channel().0, None),
    }
}

proptest! {
    /// Whatever is put together comes apart again, whose it was, and staging does what is described.
    #[test]
    fn everybody_gets_his_own_back(
        sizes in prop::collection::vec((1_usize..4, 0_usize..6, any::<u8>()), 1..6),
    ) {
        let ragged = ragged();
        let requests: Vec<Vec<Tensor>> = sizes
            .iter()
            .map(|(rows, length, seed)| request(*rows, *length, *seed))
            .collect();
        let sent: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
        let whole = ragged.whole(&sent).unwrap();
        let elements: usize = sizes.iter().map(|(rows, length, _)| rows * length).sum();
        prop_assert_eq!(&whole[1].shape[..], &[elements as i64][..]);
        let ends = whole[0].data.as_chunks::<4>().0.iter();
        let ends: Vec<usize> = ends.map(|end| f32::from_le_bytes(*end) as usize).collect();
        for (number, (request, end)) in requests.iter().zip(&ends).enumerate() {
            let start = number.checked_sub(1).map_or(0, |before| ends[before]);
            prop_assert_eq!(&whole[1].data[start * 2..end * 2], &request[0].data[..]);
        }
        let shares = ragged.cut(0, &whole[1], sent.iter().copied()).unwrap().unwrap();
        for (share, request) in shares.iter().zip(&requests) {
            prop_assert_eq!(share, &request[0]);
        }
        prop_assert_eq!(shares.len(), requests.len());
        let stacking = Stacking {
            batched: true,
            ragged: Some(ragged),
            ..Stacking::default()
        };
        let jobs: Vec<Job> = requests.iter().cloned().map(job).collect();
        let rows = sizes.iter().map(|(rows, ..)| rows).sum();
        let mut staging = Staging::default();
        let shapes = staging.stack(&jobs, Load::of(rows), &HostDevice::detect(), &stacking).unwrap();
        let inputs = staging.inputs(&jobs, &shapes, &stacking);
        prop_assert_eq!(inputs.len(), whole.len());
        for (input, expected) in inputs.iter().zip(&whole) {
            prop_assert_eq!(input.dtype, expected.dtype);
            prop_assert_eq!(input.shape, &expected.shape[..]);
            prop_assert_eq!(input.data, &expected.data[..]);
        }
    }
}

#[test]
fn strings_are_laid_and_cut_too() {
    let signature = Signature {
        inputs: vec![spec("x", Dtype::Bytes, &[-1])],
        outputs: vec![spec("y", Dtype::Bytes, &[-1])],
    };
    let mut policy = policy();
    policy.batch_inputs.clear();
    let ragged = Ragged::resolve(&policy, &TensorsPolicy::default(), &signature).unwrap();
    let words = |words: &[&str]| {
        let mut raw = Vec::new();
        for word in words {
            crate::tensor::append_element(&mut raw, word.as_bytes());
        }
        tensor(Dtype::Bytes, &[1, words.len() as i64], raw)
    };
    let requests = [vec![words(&["a", "bc"])], vec![words(&["", "d", "efg"])]];
    let sent: Vec<&[Tensor]> = requests.iter().map(Vec::as_slice).collect();
    let whole = ragged.whole(&sent).unwrap();
    assert_eq!(whole[0].shape, Shape::new(&[5]));
    let shares = ragged.cut(0, &whole[0], sent.iter().copied());
    let shares = shares.unwrap().unwrap();
    assert_eq!(shares, [requests[0][0].clone(), requests[1][0].clone()]);
}
