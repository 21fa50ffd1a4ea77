//! An output as classes: the largest elements of each row, with their positions and names
//! (classification extension of the V2 protocol).

use std::cmp::Ordering;

use half::{bf16, f16};

use super::catalog::Version;
use super::request::InferResponse;
use crate::status::Status;
use crate::tensor::{Dtype, Shape, Tensor, append_element};

/// Puts classes in the place of outputs: as many as are wanted, by the output's place in the response.
pub(super) fn classify(
    version: &Version,
    wanted: &[(usize, usize)],
    response: &mut InferResponse,
) -> Result<(), Status> {
    for (position, count) in wanted {
        let Some(output) = response.outputs.get_mut(*position) else {
            continue;
        };
        let rows = version.batching.is_rows();
        let labels = version.policy.labels.of(&output.name);
        output.tensor = classes(&output.tensor, *count, rows, labels).ok_or_else(|| {
            Status::invalid(format!(
                "{}: output {:?} is {}; only numbers can be classified",
                version.id, output.name, output.tensor.dtype
            ))
        })?;
    }
    Ok(())
}

/// The `count` largest elements of each row, or all if there are fewer, as `BYTES`:
/// `value:index` or `value:index:label`. Shape `[rows, classes]`, without rows `[classes]`. Equal
/// elements come by their index, what is not a number last. None for `BYTES`.
fn classes(tensor: &Tensor, count: usize, rows: bool, labels: &[String]) -> Option<Tensor> {
    let (whole, real) = (
        i128::to_string as fn(&i128) -> String,
        shown as fn(&f64) -> String,
    );
    let task = Task {
        tensor,
        count,
        rows,
        labels,
    };
    Some(match tensor.dtype {
        Dtype::Bool | Dtype::Uint8 => {
            task.run(|b| i128::from(u8::from_le_bytes(b)), Ord::cmp, whole)
        }
        Dtype::Uint16 => task.run(|b| i128::from(u16::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Uint32 => task.run(|b| i128::from(u32::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Uint64 => task.run(|b| i128::from(u64::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Int8 => task.run(|b| i128::from(i8::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Int16 => task.run(|b| i128::from(i16::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Int32 => task.run(|b| i128::from(i32::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Int64 => task.run(|b| i128::from(i64::from_le_bytes(b)), Ord::cmp, whole),
        Dtype::Fp16 => task.run(|b| f64::from(f16::from_le_bytes(b)), real_order, real),
        Dtype::Bf16 => task.run(|b| f64::from(bf16::from_le_bytes(b)), real_order, real),
        Dtype::Fp32 => task.run(|b| f64::from(f32::from_le_bytes(b)), real_order, real),
        Dtype::Fp64 => task.run(f64::from_le_bytes, real_order, real),
        Dtype::Bytes => return None,
    })
}

struct Task<'a> {
    tensor: &'a Tensor,
    count: usize,
    rows: bool,
    labels: &'a [String],
}

impl Task<'_> {
    fn run<T, const N: usize>(
        &self,
        read: fn([u8; N]) -> T,
        order: fn(&T, &T) -> Ordering,
        show: fn(&T) -> String,
    ) -> Tensor {
        let (elements, _) = self.tensor.data.as_chunks::<N>();
        let first = self.tensor.shape.first().filter(|_| self.rows);
        let rows = first.map_or(1, |rows| usize::try_from(*rows).unwrap_or(0));
        let each = elements.len().checked_div(rows).unwrap_or(0);
        let count = self.count.min(each);
        let mut data = Vec::new();
        for row in elements.chunks(each.max(1)) {
            let value = |index: &usize| row.get(*index).map(|bytes| read(*bytes));
            let larger_first = |a: &usize, b: &usize| match (value(a), value(b)) {
                (Some(left), Some(right)) => order(&right, &left).then(a.cmp(b)),
                _ => a.cmp(b),
            };
            for index in largest(row.len(), count, larger_first) {
                let shown = value(&index).map_or(String::new(), |value| show(&value));
                let class = match self.labels.get(index).filter(|label| !label.is_empty()) {
                    Some(label) => format!("{shown}:{index}:{label}"),
                    None => format!("{shown}:{index}"),
                };
                append_element(&mut data, class.as_bytes());
            }
        }
        let size = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
        Tensor {
            dtype: Dtype::Bytes,
            shape: match self.rows {
                true => Shape::new(&[size(rows), size(count)]),
                false => Shape::new(&[size(count)]),
            },
            data: data.into(),
        }
    }
}

/// The first `count` of the numbers below `length` in an order, without sorting the others.
fn largest(
    length: usize,
    count: usize,
    mut order: impl FnMut(&usize, &usize) -> Ordering,
) -> Vec<usize> {
    let mut indices: Vec<usize> = (0..length).collect();
    if count < length {
        indices.select_nth_unstable_by(count, &mut order);
        indices.truncate(count);
    }
    indices.sort_unstable_by(order);
    indices
}

/// What is not a number is smaller than everything.
fn real_order(a: &f64, b: &f64) -> Ordering {
    let both = a.partial_cmp(b);
    both.unwrap_or_else(|| b.is_nan().cmp(&a.is_nan()))
}

/// As C's `%f` has it, which clients of the protocol expect.
fn shown(value: &f64) -> String {
    match value.is_nan() {
        true => "nan".to_owned(),
        false => format!("{value:.6}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::BytesElements;

    fn tensor(dtype: Dtype, shape: &[i64], data: Vec<u8>) -> Tensor {
        Tensor {
            dtype,
            shape: Shape::new(shape),
            data: data.into(),
        }
    }

    fn texts(tensor: &Tensor) -> Vec<String> {
        let elements = BytesElements::new(&tensor.data);
        elements
            .map(|element| String::from_utf8(element.unwrap().to_vec()).unwrap())
            .collect()
    }

    fn reals(shape: &[i64], values: &[f32]) -> Tensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes());
        tensor(Dtype::Fp32, shape, data.collect())
    }

    #[test]
    fn each_row_has_its_own() {
        let labels = ["cat".to_owned(), String::new()];
        let two = reals(&[2, 3], &[0.25, 0.9992, -1.0, 5.0, 5.0, 1e9]);
        let classes = classes(&two, 2, true, &labels).unwrap();
        assert_eq!(classes.dtype, Dtype::Bytes);
        assert_eq!(classes.shape, Shape::new(&[2, 2]));
        assert_eq!(
            texts(&classes),
            [
                "0.999200:1",
                "0.250000:0:cat",
                "1000000000.000000:2",
                "5.000000:0:cat"
            ]
        );
    }

    #[test]
    fn equals_come_in_order_and_nan_last() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        let one = reals(&[6], &[nan, 1.0, -inf, 1.0, inf, nan]);
        let all = classes(&one, 9, false, &[]).unwrap();
        assert_eq!(all.shape, Shape::new(&[6]));
        assert_eq!(
            texts(&all),
            [
                "inf:4",
                "1.000000:1",
                "1.000000:3",
                "-inf:2",
                "nan:0",
                "nan:5"
            ]
        );
    }

    #[test]
    fn whole_numbers_keep_every_digit() {
        let data = [u64::MAX - 1, u64::MAX, 0].map(u64::to_le_bytes).concat();
        let unsigned = classes(&tensor(Dtype::Uint64, &[1, 3], data), 1, true, &[]).unwrap();
        assert_eq!(texts(&unsigned), ["18446744073709551615:1"]);
        let signed = classes(&tensor(Dtype::Int8, &[2], vec![0xff, 0x80]), 2, false, &[]).unwrap();
        assert_eq!(texts(&signed), ["-1:0", "-128:1"]);
        let half = f16::from_f32(0.5).to_le_bytes().to_vec();
        let half = classes(&tensor(Dtype::Fp16, &[1], half), 1, true, &[]).unwrap();
        assert_eq!(
            (texts(&half), half.shape),
            (vec!["0.500000:0".to_owned()], Shape::new(&[1, 1]))
        );
    }

    #[test]
    fn what_cannot_be_classified_is_no_panic() {
        assert_eq!(
            classes(&tensor(Dtype::Bytes, &[1], vec![0; 4]), 1, true, &[]),
            None
        );
        for shape in [&[0, 3][..], &[3, 0], &[0]] {
            let none = classes(&reals(shape, &[]), 2, true, &[]).unwrap();
            assert_eq!((none.shape[1], none.data.len()), (0, 0));
        }
    }
}
