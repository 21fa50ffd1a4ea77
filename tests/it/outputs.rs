//! Outputs whose shapes are certain before a run are put where they are wanted by ONNX Runtime itself; others
//! are not, and what comes is right in either case.

use std::path::Path;
use std::sync::Arc;

use jitney::backend::ort::{Library, OrtBackend};
use jitney::backend::{Artifact, Backend, Executor, Input, Place, Placement};
use jitney::config::read_model_policy;
use jitney::device::HostDevice;
use jitney::model::VersionId;
use jitney::tensor::{Dtype, Tensor};

use super::node::onnxruntime;
use super::repository::made_models;

fn executor(model: &str) -> Box<dyn Executor> {
    let backend = OrtBackend::new(Library::load(&onnxruntime()).unwrap(), None);
    let folder = made_models().join(model).join("1");
    let artifact = Artifact {
        id: VersionId {
            model: model.into(),
            version: 1,
        },
        file: folder.join("model.onnx"),
        folder,
        policy: read_model_policy(Path::new("model.toml"), "").unwrap(),
        lease: None,
    };
    let placement = Placement {
        device: Arc::new(HostDevice::detect()),
        threads: Some(1),
    };
    let weights = backend.load(&artifact, &placement).unwrap();
    weights.executor().unwrap()
}

/// What is in memory that nobody has written.
const NOBODY: u8 = 0xa5;

/// Runs it into memory of the test's own, with what that holds then; none of it if nothing is foreseen.
fn placed(executor: &mut dyn Executor, inputs: &[Input<'_>]) -> Option<(Vec<Vec<u8>>, bool)> {
    let outlines = executor.foresee(inputs)?;
    let room = outlines
        .iter()
        .map(|one| vec![NOBODY; one.bytes().unwrap()]);
    let mut room: Vec<Vec<u8>> = room.collect();
    let pairs = outlines.iter().zip(&mut room);
    let mut places: Vec<Place<'_>> = pairs
        .map(|(outline, data)| Place { outline, data })
        .collect();
    let elsewhere = executor.run_into(inputs, &mut places).unwrap();
    match elsewhere {
        None => Some((room, true)),
        Some(tensors) => Some((contents(&tensors), false)),
    }
}

fn contents(tensors: &[Tensor]) -> Vec<Vec<u8>> {
    tensors.iter().map(|tensor| tensor.data.to_vec()).collect()
}

fn numbers(numbers: impl IntoIterator<Item = f32>) -> Vec<u8> {
    numbers.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn fp32<'a>(shape: &'a [i64], data: &'a [u8]) -> Input<'a> {
    Input {
        dtype: Dtype::Fp32,
        shape,
        data,
    }
}

#[test]
fn outputs_of_known_shapes_are_written_where_they_are_wanted() {
    let counted = numbers((0..60_000).map(|number| number as f32));
    let cases: [(&str, &[&[i64]]); 4] = [
        ("fixed_shape", &[&[2, 3]]),
        ("scalar_out", &[&[3]]),
        ("identity_fp32", &[&[1, 60_000], &[7, 11], &[0, 4]]),
        ("variable_shape", &[&[3, 20_000], &[300, 2]]),
    ];
    for (model, shapes) in cases {
        let mut executor = executor(model);
        for shape in shapes {
            let bytes = 4 * shape.iter().product::<i64>() as usize;
            let inputs = [fp32(shape, &counted[..bytes])];
            let foreseen = executor.foresee(&inputs).unwrap();
            let tensors = executor.run(&inputs).unwrap();
            let came = tensors.iter().map(|one| (one.dtype, one.shape.clone()));
            let foreseen = foreseen.into_iter().map(|one| (one.dtype, one.shape));
            assert_eq!(foreseen.collect::<Vec<_>>(), came.collect::<Vec<_>>());
            let placed = placed(executor.as_mut(), &inputs).unwrap();
            assert!(placed == (contents(&tensors), true), "{model} {shape:?}");
        }
    }
}

#[test]
fn nothing_is_foreseen_of_what_a_run_decides_or_nobody_writes() {
    let four = numbers([1.0, 2.0, 3.0, 4.0]);
    let strings = Input {
        dtype: Dtype::Bytes,
        shape: &[1, 1],
        data: b"\x01\x00\x00\x00a",
    };
    assert!(executor("string_identity").foresee(&[strings]).is_none());
    let mut handed_through = executor("handed_through");
    let inputs = [fp32(&[1, 4], &four)];
    assert!(handed_through.foresee(&inputs).is_none());
    assert_eq!(contents(&handed_through.run(&inputs).unwrap())[0], four);
    let history = executor("history");
    let inputs = [
        fp32(&[1, 1], &four[..4]),
        Input {
            shape: &[1],
            ..strings
        },
        fp32(&[1, 4], &four),
    ];
    assert!(history.foresee(&inputs).is_none());
}

#[test]
fn a_constant_is_put_there_too() {
    let four = numbers([1.0, 2.0, 3.0, 4.0]);
    let inputs = [fp32(&[1, 4], &four)];
    let constant = placed(executor("constant_out").as_mut(), &inputs);
    let expected = vec![
        numbers([-1.0, -2.0, -3.0, -4.0]),
        numbers([0.0, 1.0, 2.0, 3.0, 4.0, 5.0]),
    ];
    assert_eq!(constant, Some((expected, true)));
}

#[test]
fn branches_put_their_outputs_there_too() {
    let mut executor = executor("branches");
    for (sent, expected) in [(1.0, [1.0; 4]), (-1.0, [9.0, 8.0, 7.0, 6.0])] {
        let data = numbers([sent; 4]);
        let placed = placed(executor.as_mut(), &[fp32(&[1, 4], &data)]);
        assert_eq!(placed, Some((vec![numbers(expected)], true)));
    }
    // As many rows as the constant has, whatever comes.
    let data = numbers([-1.0; 8]);
    let placed = placed(executor.as_mut(), &[fp32(&[2, 4], &data)]);
    let constant = numbers([9.0, 8.0, 7.0, 6.0]);
    assert_eq!(placed, Some((vec![constant], false)));
}

#[test]
fn a_model_that_lies_is_answered_for_and_not_believed_again() {
    let mut executor = executor("misdeclared");
    let honest = numbers([4.0, 3.0, 2.0, 1.0]);
    let honest = [fp32(&[1, 4], &honest)];
    let four = vec![numbers([4.0, 3.0, 2.0, 1.0])];
    assert_eq!(
        placed(executor.as_mut(), &honest),
        Some((four.clone(), true))
    );
    let lie = numbers([2.0, 1.0, 2.0, 1.0]);
    let two = vec![numbers([2.0, 1.0])];
    let lie = [fp32(&[1, 4], &lie)];
    assert_eq!(placed(executor.as_mut(), &lie), Some((two.clone(), false)));
    for (inputs, expected) in [(honest, four), (lie, two)] {
        assert!(executor.foresee(&inputs).is_none());
        assert_eq!(contents(&executor.run(&inputs).unwrap()), expected);
    }
}

#[test]
fn a_failed_run_is_an_error_and_no_lie() {
    let mut executor = executor("gather");
    let beyond = 9_i64.to_le_bytes();
    let index = |data| {
        [Input {
            dtype: Dtype::Int64,
            shape: &[1, 1],
            data,
        }]
    };
    let outlines = executor.foresee(&index(&beyond)).unwrap();
    let mut data = vec![NOBODY; 8];
    let place = Place {
        outline: &outlines[0],
        data: &mut data,
    };
    assert!(executor.run_into(&index(&beyond), &mut [place]).is_err());
    let second = 1_i64.to_le_bytes();
    let row = vec![numbers([2.0, 3.0])];
    let placed = placed(executor.as_mut(), &index(&second));
    assert_eq!(placed, Some((row, true)));
}
