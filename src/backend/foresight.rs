//! What outputs will look like before a run, as far as the model's own words make that certain.

use super::{Input, Outline};
use crate::model::{Dimension, Signature, TensorSpec};
use crate::tensor::Shape;

/// Every output of a batch, if the model says all of them in terms of its inputs: by numbers, and by names
/// that dimensions of inputs have, too.
pub(super) fn foresee(signature: &Signature, inputs: &[Input<'_>]) -> Option<Vec<Outline>> {
    let outputs = signature.outputs.iter();
    outputs
        .map(|spec| outline(spec, signature, inputs))
        .collect()
}

fn outline(spec: &TensorSpec, signature: &Signature, inputs: &[Input<'_>]) -> Option<Outline> {
    // What is handed through is written by nobody, and strings have no size.
    if signature.input(&spec.name).is_some() || spec.dtype.size().is_none() {
        return None;
    }
    let dimensions = spec.dimensions.iter().enumerate();
    let sizes = dimensions.map(|(axis, dimension)| match dimension.size {
        Some(size) => i64::try_from(size).ok(),
        None if axis == 0 && dimension.symbol.is_empty() => rows(signature, inputs),
        None => named(dimension, signature, inputs),
    });
    Some(Outline {
        dtype: spec.dtype,
        shape: Shape::new(&sizes.collect::<Option<Vec<_>>>()?),
    })
}

/// How many rows the batch has, if it has any.
fn rows(signature: &Signature, inputs: &[Input<'_>]) -> Option<i64> {
    let rows = inputs.iter().find_map(|input| input.shape.first())?;
    signature.batching().is_rows().then_some(*rows)
}

/// The size that inputs have where they have this name; none if they do not agree on one.
fn named(dimension: &Dimension, signature: &Signature, inputs: &[Input<'_>]) -> Option<i64> {
    let pairs = signature.inputs.iter().zip(inputs);
    let dimensions = pairs.flat_map(|(spec, input)| spec.dimensions.iter().zip(input.shape));
    let same = |own: &Dimension| !own.symbol.is_empty() && own.symbol == dimension.symbol;
    let mut sizes = dimensions
        .filter(|(own, _)| same(own))
        .map(|(_, size)| *size);
    let size = sizes.next()?;
    sizes.all(|other| other == size).then_some(size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn spec(name: &str, dimensions: &[Dimension]) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::Fp32,
            dimensions: dimensions.to_vec(),
        }
    }

    /// Shapes of outputs, where the inputs are of these shapes.
    fn shapes(signature: &Signature, inputs: &[&[i64]]) -> Option<Vec<Vec<i64>>> {
        let input = |shape| Input {
            dtype: Dtype::Fp32,
            shape,
            data: &[],
        };
        let inputs: Vec<Input<'_>> = inputs.iter().copied().map(input).collect();
        let outlines = foresee(signature, &inputs)?;
        Some(outlines.iter().map(|one| one.shape.to_vec()).collect())
    }

    #[test]
    fn numbers_and_names_of_inputs_are_certain() {
        let [batch, length] = ["batch", "length"].map(Dimension::varying);
        let signature = Signature {
            inputs: vec![
                spec("x", &[batch.clone(), length.clone()]),
                spec("mask", &[batch.clone(), length.clone()]),
            ],
            outputs: vec![
                spec("all", &[batch.clone(), length, Dimension::fixed(8)]),
                spec("sum", &[batch]),
                spec("version", &[]),
            ],
        };
        let foreseen = shapes(&signature, &[&[2, 3], &[2, 3]]);
        assert_eq!(foreseen, Some(vec![vec![2, 3, 8], vec![2], vec![]]));
        // One that is left out says nothing.
        let foreseen = shapes(&signature, &[&[2, 3], &[]]);
        assert_eq!(foreseen, Some(vec![vec![2, 3, 8], vec![2], vec![]]));
        assert_eq!(shapes(&signature, &[&[2, 3], &[2, 4]]), None);
    }

    #[test]
    fn a_first_dimension_without_a_name_is_that_of_rows() {
        let unnamed = Dimension::varying("");
        let mut signature = Signature {
            inputs: vec![spec("x", &[unnamed.clone(), Dimension::fixed(4)])],
            outputs: vec![spec("y", std::slice::from_ref(&unnamed))],
        };
        assert_eq!(shapes(&signature, &[&[5, 4]]), Some(vec![vec![5]]));
        signature.outputs[0].dimensions.push(unnamed.clone());
        assert_eq!(shapes(&signature, &[&[5, 4]]), None);
        signature.outputs[0].dimensions.pop();
        signature.inputs.push(spec("z", &[Dimension::fixed(1)]));
        assert_eq!(shapes(&signature, &[&[5, 4], &[1]]), None);
    }

    #[test]
    fn what_a_run_decides_is_not_certain() {
        let [batch, boxes] = ["batch", "boxes"].map(Dimension::varying);
        let with = |output: TensorSpec| Signature {
            inputs: vec![spec("x", std::slice::from_ref(&batch))],
            outputs: vec![spec("sure", std::slice::from_ref(&batch)), output],
        };
        assert_eq!(shapes(&with(spec("y", &[boxes])), &[&[2]]), None);
        let mut strings = spec("y", std::slice::from_ref(&batch));
        strings.dtype = Dtype::Bytes;
        assert_eq!(shapes(&with(strings), &[&[2]]), None);
        let handed_through = spec("x", std::slice::from_ref(&batch));
        assert_eq!(shapes(&with(handed_through), &[&[2]]), None);
    }
}
