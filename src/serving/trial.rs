//! Runs before the first request: warm-up, and the trial of whether rows are independent.
//!
//! Dimensions alone cannot tell a model whose first axis counts rows from one whose first axis is
//! time. So before requests are put together, two rows are run alone and together, and must agree.

use bytes::Bytes;

use std::time::Duration;

use crate::backend::{Executor, Input, RunError};
use crate::clock::Clock;
use crate::model::{Signature, TensorSpec, WarmUpPolicy};
use crate::tensor::{Dtype, Shape, Tensor, append_element, elements};

/// What varying dimensions are tried with when `model.toml` does not say.
const GUESS: i64 = 8;
/// How far apart the same row may be alone and together, relative to its size: reordered sums.
const TOLERANCE: f64 = 1e-2;

/// The most bytes that warm-up makes up for one run: rows are left out rather than memory taken.
const MOST_BYTES: usize = 64 << 20;

/// What the trial found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Rows alone and together agree.
    Independent,
    /// They do not, for this output.
    Dependent(String),
    /// The model does not run on made-up inputs, so nothing is known.
    Unknown(String),
}

/// Runs the model as often as its policy asks, with full batches last.
pub(super) fn warm_up(
    executor: &mut dyn Executor,
    policy: &WarmUpPolicy,
    batched: bool,
    max_batch_size: usize,
    clock: &dyn Clock,
) -> Result<Vec<(usize, Duration)>, RunError> {
    let signature = executor.signature().clone();
    let one = made_up(&signature, policy, 1, batched, 0);
    let bytes: usize = one.iter().map(|tensor| tensor.data.len()).sum();
    let most = (MOST_BYTES / bytes.max(1)).clamp(1, max_batch_size);
    let sizes = if batched { vec![1, most] } else { vec![1] };
    let mut times = Vec::new();
    for rows in sizes {
        let inputs = made_up(&signature, policy, rows, batched, 0);
        for _ in 0..policy.runs {
            run(executor, &inputs)?;
        }
        if policy.runs > 0 {
            // The first ones did what is done once; this is what a batch costs.
            let start = clock.now();
            run(executor, &inputs)?;
            times.push((rows, clock.now() - start));
        }
    }
    Ok(times)
}

/// Tries whether rows are independent.
pub(super) fn rows_are_independent(executor: &mut dyn Executor, policy: &WarmUpPolicy) -> Verdict {
    match compare(executor, policy) {
        Ok(None) => Verdict::Independent,
        Ok(Some(output)) => Verdict::Dependent(output),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}

fn compare(executor: &mut dyn Executor, policy: &WarmUpPolicy) -> Result<Option<String>, RunError> {
    let signature = executor.signature().clone();
    let first = made_up(&signature, policy, 1, true, 0);
    let second = made_up(&signature, policy, 1, true, 1);
    let both: Vec<Tensor> = first.iter().zip(&second).map(|(a, b)| join(a, b)).collect();
    let apart = (run(executor, &first)?, run(executor, &second)?);
    let together = run(executor, &both)?;
    for (index, spec) in signature.outputs.iter().enumerate() {
        let (Some(a), Some(b)) = (apart.0.get(index), apart.1.get(index)) else {
            return Ok(Some(spec.name.clone()));
        };
        let expected = join(a, b);
        let same = together
            .get(index)
            .is_some_and(|found| agree(found, &expected));
        if !same {
            return Ok(Some(spec.name.clone()));
        }
    }
    Ok(None)
}

fn run(executor: &mut dyn Executor, tensors: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
    let inputs: Vec<Input<'_>> = tensors
        .iter()
        .map(|tensor| Input {
            dtype: tensor.dtype,
            shape: &tensor.shape,
            data: &tensor.data,
        })
        .collect();
    executor.run(&inputs)
}

fn join(a: &Tensor, b: &Tensor) -> Tensor {
    let rows = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
    Tensor {
        dtype: a.dtype,
        shape: a.shape.with_rows(rows(a) + rows(b)),
        data: aligned(&[&a.data[..], &b.data[..]].concat()),
    }
}

fn agree(found: &Tensor, expected: &Tensor) -> bool {
    if found.shape != expected.shape || found.data.len() != expected.data.len() {
        return false;
    }
    match found.dtype {
        Dtype::Fp32 => close(
            found
                .data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b))),
            expected
                .data
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f64::from(f32::from_le_bytes(*b))),
        ),
        Dtype::Fp64 => close(
            found
                .data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b)),
            expected
                .data
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b)),
        ),
        // Half precision rounds too coarsely to judge, and its shape has been compared.
        Dtype::Fp16 | Dtype::Bf16 => true,
        _ => found.data == expected.data,
    }
}

fn close(found: impl Iterator<Item = f64>, expected: impl Iterator<Item = f64>) -> bool {
    found.zip(expected).all(|(found, expected)| {
        let bound = TOLERANCE * (1.0 + expected.abs());
        found == expected
            || (found.is_nan() && expected.is_nan())
            || (found - expected).abs() <= bound
    })
}

fn made_up(
    signature: &Signature,
    policy: &WarmUpPolicy,
    rows: usize,
    batched: bool,
    seed: u64,
) -> Vec<Tensor> {
    signature
        .inputs
        .iter()
        .map(|spec| {
            let shape = shape(spec, policy, rows, batched);
            let count = elements(&shape).unwrap_or(0);
            Tensor {
                dtype: spec.dtype,
                data: values(spec.dtype, count, seed),
                shape,
            }
        })
        .collect()
}

fn shape(spec: &TensorSpec, policy: &WarmUpPolicy, rows: usize, batched: bool) -> Shape {
    let stated = policy.shapes.iter().find(|shape| shape.input == spec.name);
    let inner = usize::from(batched);
    let mut dimensions: Vec<i64> = Vec::with_capacity(spec.dimensions.len());
    for (index, dimension) in spec.dimensions.iter().enumerate() {
        let stated = index
            .checked_sub(inner)
            .and_then(|index| stated?.dimensions.get(index).copied());
        dimensions.push(match dimension.size {
            _ if batched && index == 0 => i64::try_from(rows).unwrap_or(1),
            Some(size) => i64::try_from(size).unwrap_or(i64::MAX),
            None => stated.unwrap_or(GUESS),
        });
    }
    Shape::new(&dimensions)
}

/// Numbers between 0 and 1 that differ from element to element and from seed to seed; whole ones
/// are 0 or 1, which are valid tokens, indices and flags nearly everywhere.
fn values(dtype: Dtype, count: usize, seed: u64) -> Bytes {
    let mut state = seed
        .wrapping_mul(0x9E37_79B9_7F4A_7C15)
        .wrapping_add(0x1234_5678_9ABC_DEF1);
    let mut data = Vec::new();
    for _ in 0..count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        append_value(&mut data, dtype, state >> 40);
    }
    aligned(&data)
}

/// Appends one made-up element from 24 random bits.
fn append_value(data: &mut Vec<u8>, dtype: Dtype, bits: u64) {
    let share = bits as f32 / (1 << 24) as f32;
    match dtype {
        Dtype::Fp32 => data.extend(share.to_le_bytes()),
        Dtype::Fp64 => data.extend(f64::from(share).to_le_bytes()),
        Dtype::Fp16 => data.extend(half::f16::from_f32(share).to_le_bytes()),
        Dtype::Bf16 => data.extend(half::bf16::from_f32(share).to_le_bytes()),
        Dtype::Bytes => append_element(data, if bits & 1 == 0 { b"0" } else { b"1" }),
        whole => {
            data.push((bits & 1) as u8);
            data.extend(std::iter::repeat_n(0, whole.size().unwrap_or(1) - 1));
        }
    }
}

/// A copy that starts where any element type may.
fn aligned(data: &[u8]) -> Bytes {
    use crate::device::{AlignedMemory, HostMemory};

    struct Owner(AlignedMemory, usize);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            self.0.as_slice().get(..self.1).unwrap_or(&[])
        }
    }
    let mut memory = AlignedMemory::zeroed(data.len());
    if let Some(start) = memory.as_mut_slice().get_mut(..data.len()) {
        start.copy_from_slice(data);
    }
    Bytes::from_owner(Owner(memory, data.len()))
}
