//! The tables `[[inputs]]` and `[[outputs]]` of `model.toml`.

use crate::model::{TensorFormat, TensorPolicy, TensorsPolicy};
use crate::tensor::Dtype;
use jitney_settings::Table;
use jitney_settings::rule::{OneOf, Text, Truth, whole_from};

const FORMATS: OneOf<'_, TensorFormat> =
    OneOf(&[("NHWC", TensorFormat::Nhwc), ("NCHW", TensorFormat::Nchw)]);

/// What the two tables say.
pub(super) fn read(table: &mut Table<'_, '_>) -> TensorsPolicy {
    let inputs = table.sections("inputs", |table| tensor(table, false));
    let outputs = table.sections("outputs", |table| tensor(table, true));
    TensorsPolicy {
        inputs: unique(table, "inputs", inputs.unwrap_or_default()),
        outputs: unique(table, "outputs", outputs.unwrap_or_default()),
    }
}

fn tensor(table: &mut Table<'_, '_>, is_output: bool) -> TensorPolicy {
    let name = table.value("name", Text);
    let dtype = dtype(table);
    let shape = table.list("shape", whole_from(-1_i64));
    let reshape = table.list("reshape", whole_from(-1_i64));
    if let (Some(shape), Some(reshape)) = (&shape, &reshape)
        && let Err(message) = check_reshape(shape, reshape)
    {
        table.contradict("reshape", message);
    }
    TensorPolicy {
        name: table
            .required("name", name, "the model's name for it")
            .unwrap_or_default(),
        dtype: dtype.unwrap_or(Dtype::Fp32),
        shape: table
            .required("shape", shape, "dimensions, without the batch dimension")
            .unwrap_or_default(),
        reshape,
        format: match is_output {
            true => None,
            false => table.value("format", FORMATS),
        },
        optional: !is_output && table.value("optional", Truth).unwrap_or_default(),
    }
}

/// The element type that the table has to name.
pub(super) fn dtype(table: &mut Table<'_, '_>) -> Option<Dtype> {
    let dtypes = Dtype::ALL.map(|dtype| (dtype.name(), dtype));
    let dtype = table.value("dtype", OneOf(&dtypes));
    table.required("dtype", dtype, "an element type, such as \"FP32\"")
}

fn unique<'d>(
    table: &mut Table<'d, '_>,
    key: &'d str,
    tensors: Vec<TensorPolicy>,
) -> Vec<TensorPolicy> {
    if let Some(name) = twice(&tensors) {
        table.contradict(key, format!("{name:?} is given twice"));
    }
    tensors
}

/// A name that is there twice.
pub(super) fn twice(tensors: &[TensorPolicy]) -> Option<&str> {
    let mut names: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    names.sort_unstable();
    let mut pairs = names.windows(2);
    pairs.find_map(|pair| match pair {
        [one, other] if one == other => Some(*one),
        _ => None,
    })
}

/// Whether both have the same elements: the dimensions that vary come in the same order, and the
/// product of those between them is the same.
pub(super) fn check_reshape(shape: &[i64], reshape: &[i64]) -> Result<(), String> {
    let products = |shape: &[i64]| -> Vec<Option<i64>> {
        let parts = shape.split(|size| *size < 0);
        let product = |part: &[i64]| {
            part.iter()
                .try_fold(1_i64, |all, one| all.checked_mul(*one))
        };
        parts.map(product).collect()
    };
    if products(shape) == products(reshape) {
        return Ok(());
    }
    Err(format!(
        "found {reshape:?}; allowed: a shape with as many elements as {shape:?}, its -1 in the same order"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reshape_keeps_the_elements() {
        for (shape, reshape) in [
            (vec![4], vec![2, 2]),
            (vec![1], vec![]),
            (vec![-1, 4], vec![-1, 2, 2]),
            (vec![2, 3, -1], vec![6, 1, -1]),
        ] {
            assert_eq!(check_reshape(&shape, &reshape), Ok(()), "{shape:?}");
        }
        for (shape, reshape) in [
            (vec![4], vec![2, 3]),
            (vec![-1, 4], vec![4, -1]),
            (vec![-1], vec![4]),
            (vec![-1, -1], vec![-1]),
        ] {
            assert!(check_reshape(&shape, &reshape).is_err(), "{shape:?}");
        }
    }
}
