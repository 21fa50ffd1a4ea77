//! Runs before the first request: warm-up, and the trial of whether rows are independent.
//!
//! Dimensions alone cannot tell a model whose first axis counts rows from one whose first axis is
//! time. So before requests are put together, two rows are run alone and together, and must agree;
//! and before rows are padded, one is run padded and not, or more and less.

mod ragged;
mod values;

use std::time::Duration;

pub(super) use values::{aligned, values};

use super::padding::{PadInput, Padding};
use super::stacking::Stacking;
use crate::backend::{Executor, Input, RunError};
use crate::clock::Clock;
use crate::model::{
    Signature, TensorPolicy, TensorSpec, TensorsPolicy, WarmUpPolicy, declared, round_up,
};
use crate::scheduler::Load;
use crate::tensor::{Dtype, Shape, Slicer, Tensor, cut, elements, pad_into, padded_bytes};

/// What varying dimensions are tried with when `model.toml` does not say.
pub(super) const GUESS: i64 = 8;
/// The length that rows are warmed up with where they are padded to any.
const GUESSED_LENGTH: usize = 32;
/// The length of the row that is padded to see whether that changes its answer.
const OWN_LENGTH: usize = 5;
/// How far apart the same row may be alone and together, relative to its size: reordered sums.
const TOLERANCE: f64 = 1e-2;

/// The most bytes that warm-up makes up for one run: rows are left out rather than memory taken.
pub(super) const MOST_BYTES: usize = 64 << 20;

/// The same where the configuration says which batches there are: all of those are to be warm, and will
/// take their memory anyway.
const MOST_STATED_BYTES: usize = 1 << 30;
/// The most bytes that are made up for one row: a model may declare inputs of any size.
const MOST_ROW_BYTES: usize = 256 << 20;

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

/// Makes up inputs of one model, as its policy and its stacking want them.
#[derive(Clone, Copy)]
pub(super) struct Trial<'a> {
    pub(super) policy: &'a WarmUpPolicy,
    pub(super) tensors: &'a TensorsPolicy,
    pub(super) stacking: &'a Stacking,
    /// Positions of the inputs that are left out.
    pub(super) left_out: &'a [usize],
    /// What dimensions that vary are tried with where nothing says it.
    pub(super) guess: i64,
    pub(super) clock: &'a dyn Clock,
}

impl Trial<'_> {
    /// Runs the model as often as its policy asks, with full batches last, and says when it is done
    /// with each kind of batch. Gives what each took.
    pub(super) fn warm_up(
        &self,
        executor: &mut dyn Executor,
        max_batch_size: usize,
        warmed: &dyn Fn(),
    ) -> Result<Vec<(Load, Duration)>, RunError> {
        let signature = executor.signature().clone();
        let mut times = Vec::new();
        for (length, rows) in self.buckets(&signature, max_batch_size)? {
            let inputs = self.batch(&signature, rows, length)?;
            for _ in 0..self.policy.runs {
                run(executor, &inputs)?;
            }
            if self.policy.runs > 0 {
                // The first ones did what is done once; this is what a batch costs.
                let start = self.clock.now();
                run(executor, &inputs)?;
                let load = Load {
                    length,
                    ..Load::of(rows)
                };
                times.push((load, self.clock.now() - start));
            }
            warmed();
        }
        Ok(times)
    }

    /// The kinds of batches that are warmed up: lengths and numbers of rows.
    pub(super) fn buckets(
        &self,
        signature: &Signature,
        max_batch_size: usize,
    ) -> Result<Vec<(usize, usize)>, RunError> {
        let mut buckets = Vec::new();
        for length in self.lengths(signature) {
            let sizes = self.sizes(signature, length, max_batch_size)?;
            buckets.extend(sizes.into_iter().map(|rows| (length, rows)));
        }
        Ok(buckets)
    }

    /// The lengths that are warmed up.
    fn lengths(&self, signature: &Signature) -> Vec<usize> {
        let Some(padding) = &self.stacking.padding else {
            return vec![1];
        };
        if !padding.lengths.is_empty() {
            return padding.lengths.clone();
        }
        let stated = signature
            .inputs
            .iter()
            .enumerate()
            .find_map(|(position, spec)| {
                let axis = padding.input_axis(position)?;
                let shape = self
                    .policy
                    .shapes
                    .iter()
                    .find(|shape| shape.input == spec.name);
                let size = *shape?.dimensions.get(axis - 1)?;
                usize::try_from(size).ok()
            });
        vec![stated.unwrap_or(GUESSED_LENGTH)]
    }

    /// The numbers of rows that are warmed up: as many as may be made up.
    fn sizes(
        &self,
        signature: &Signature,
        length: usize,
        max_batch_size: usize,
    ) -> Result<Vec<usize>, RunError> {
        if !self.stacking.batched {
            return Ok(vec![1]);
        }
        let one = self.batch(signature, 1, length)?;
        let bytes: usize = one.iter().map(|tensor| tensor.data.len()).sum();
        let tokens = self.stacking.padding.as_ref();
        let tokens = tokens.map_or(usize::MAX, |padding| padding.max_batch_tokens);
        let stated = !self.stacking.sizes.is_empty();
        let bound = if stated {
            MOST_STATED_BYTES
        } else {
            MOST_BYTES
        };
        let most = (bound / bytes.max(1))
            .min(tokens / length.max(1))
            .clamp(1, max_batch_size);
        if !stated {
            return Ok(vec![1, most]);
        }
        let sizes = self.stacking.sizes.iter().copied();
        Ok(sizes.filter(|size| *size <= most).collect())
    }

    /// A batch of so many rows.
    fn batch(
        &self,
        signature: &Signature,
        rows: usize,
        length: usize,
    ) -> Result<Vec<Tensor>, RunError> {
        match &self.stacking.ragged {
            Some(ragged) => self.laid(ragged, rows),
            None => self.inputs(signature, rows, length, 0),
        }
    }

    /// Tries whether rows are independent.
    pub(super) fn rows_are_independent(&self, executor: &mut dyn Executor) -> Verdict {
        verdict(match &self.stacking.ragged {
            Some(ragged) => self.compare_requests(executor, ragged),
            None => self.compare_rows(executor),
        })
    }

    fn compare_rows(&self, executor: &mut dyn Executor) -> Result<Option<String>, RunError> {
        let signature = executor.signature().clone();
        let length = self.lengths(&signature).first().copied().unwrap_or(1);
        let rows = |seed| self.inputs(&signature, 1, length, seed);
        let (first, second) = (rows(0)?, rows(1)?);
        let alone = round_up(&self.stacking.sizes, 1);
        let both = round_up(&self.stacking.sizes, 2);
        let a = run(executor, &repeat(&[&first], alone))?;
        let b = run(executor, &repeat(&[&second], alone))?;
        let together = run(executor, &repeat(&[&first, &second], both))?;
        for (index, spec) in signature.outputs.iter().enumerate() {
            let expected = [row(&a, index, alone, 0), row(&b, index, alone, 0)];
            let found = [0, 1].map(|position| row(&together, index, both, position));
            let same = found.iter().zip(&expected).all(|(found, expected)| {
                let rows = found.as_ref().zip(expected.as_ref());
                rows.is_some_and(|(found, expected)| agree(found, expected))
            });
            if !same {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
    }

    /// Tries whether padding changes what a row's answer is.
    pub(super) fn padding_changes_nothing(
        &self,
        executor: &mut dyn Executor,
        padding: &Padding,
    ) -> Verdict {
        verdict(self.compare_lengths(executor, padding))
    }

    fn compare_lengths(
        &self,
        executor: &mut dyn Executor,
        padding: &Padding,
    ) -> Result<Option<String>, RunError> {
        let signature = executor.signature().clone();
        let (short, long) = match padding.lengths[..] {
            [] => (OWN_LENGTH, OWN_LENGTH + 3),
            [only] => (only, only),
            [first, second, ..] => (first, second),
        };
        let own = OWN_LENGTH.min(short);
        let rows = round_up(&self.stacking.sizes, 1);
        let inputs = self.inputs(&signature, rows, own, 0)?;
        let at = |length| {
            let inputs = inputs.iter().zip(&padding.inputs);
            let padded = inputs.map(|(tensor, input)| padded(tensor, input.as_ref(), length));
            padded.collect::<Vec<Tensor>>()
        };
        let (tight, loose) = (run(executor, &at(short))?, run(executor, &at(long))?);
        for (index, spec) in signature.outputs.iter().enumerate() {
            let axis = padding.outputs.get(index).copied().flatten();
            let own = |outputs: &[Tensor]| {
                let output = outputs.get(index)?;
                axis.map_or_else(|| Some(output.clone()), |axis| cut(output, axis, own))
            };
            let (tight, loose) = (own(&tight), own(&loose));
            if !tight
                .zip(loose)
                .is_some_and(|(tight, loose)| agree(&loose, &tight))
            {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
    }

    /// The dimensions that the configuration gives an input, without the batch dimension.
    fn stated(&self, spec: &TensorSpec) -> Option<&[i64]> {
        let mut shapes = self.policy.shapes.iter();
        let shape = shapes.find(|shape| shape.input == spec.name);
        let listed = || declared(&self.tensors.inputs, &spec.name).map(TensorPolicy::model_shape);
        shape.map(|shape| &shape.dimensions[..]).or_else(listed)
    }

    /// A shape of so many rows.
    fn shape(&self, spec: &TensorSpec, rows: usize) -> Shape {
        let (stated, batched) = (self.stated(spec), self.stacking.batched);
        let inner = usize::from(batched);
        let mut dimensions: Vec<i64> = Vec::with_capacity(spec.dimensions.len());
        for (index, dimension) in spec.dimensions.iter().enumerate() {
            let stated = index
                .checked_sub(inner)
                .and_then(|index| stated?.get(index).copied())
                .filter(|size| *size >= 0);
            dimensions.push(match dimension.size {
                _ if batched && index == 0 => i64::try_from(rows).unwrap_or(1),
                Some(size) => i64::try_from(size).unwrap_or(i64::MAX),
                None => stated.unwrap_or(self.guess),
            });
        }
        Shape::new(&dimensions)
    }

    fn inputs(
        &self,
        signature: &Signature,
        rows: usize,
        length: usize,
        seed: u64,
    ) -> Result<Vec<Tensor>, RunError> {
        let mut room = MOST_ROW_BYTES.saturating_mul(rows);
        let specs = signature.inputs.iter().enumerate();
        specs
            .map(|(position, spec)| {
                if self.left_out.contains(&position) {
                    return Ok(Tensor::absent(spec.dtype));
                }
                let padding = self.stacking.padding.as_ref();
                if let Some(padding) = padding.filter(|padding| padding.is_mask(position))
                    && let Some(mask) = padding.ones(spec, rows, length)
                {
                    return Ok(Tensor {
                        data: aligned(&mask.data),
                        ..mask
                    });
                }
                let mut shape = self.shape(spec, rows);
                if let Some(axis) = self.stacking.input_axis(position) {
                    shape.set(axis, i64::try_from(length).unwrap_or(i64::MAX));
                }
                // The least that a string takes is its length.
                let size = spec.dtype.size().unwrap_or(4);
                let count = elements(&shape).filter(|count| count.saturating_mul(size) <= room);
                let count = count.ok_or_else(|| too_large(spec))?;
                room -= count * size;
                Ok(Tensor {
                    dtype: spec.dtype,
                    data: values(spec.dtype, count, seed),
                    shape,
                })
            })
            .collect()
    }
}

fn too_large(spec: &TensorSpec) -> RunError {
    RunError::Failed(format!(
        "a row with input {spec} has more than the {MOST_ROW_BYTES} bytes that are made up for one"
    ))
}

fn verdict(compared: Result<Option<String>, RunError>) -> Verdict {
    match compared {
        Ok(None) => Verdict::Independent,
        Ok(Some(output)) => Verdict::Dependent(output),
        Err(error) => Verdict::Unknown(error.to_string()),
    }
}

/// Rows of several inputs in turn, so many in all.
fn repeat(rows: &[&Vec<Tensor>], count: usize) -> Vec<Tensor> {
    let Some(first) = rows.first() else {
        return Vec::new();
    };
    let tensors = first.iter().enumerate();
    tensors
        .map(|(index, tensor)| {
            let parts = rows.iter().cycle().take(count);
            let parts = parts.filter_map(|row| row.get(index).map(|part| &part.data[..]));
            Tensor {
                dtype: tensor.dtype,
                shape: tensor
                    .shape
                    .with_rows(i64::try_from(count).unwrap_or(i64::MAX)),
                data: aligned(&parts.collect::<Vec<_>>().concat()),
            }
        })
        .collect()
}

/// One row of an output of so many.
fn row(outputs: &[Tensor], index: usize, rows: usize, position: usize) -> Option<Tensor> {
    let mut slicer = Slicer::new(outputs.get(index)?.clone(), rows).ok()?;
    slicer.take(position).ok()?;
    slicer.take(1).ok()
}

fn padded(tensor: &Tensor, input: Option<&PadInput>, length: usize) -> Tensor {
    let Some(PadInput { axis, element }) = input else {
        return tensor.clone();
    };
    let mut data = vec![0; padded_bytes(tensor, *axis, length).unwrap_or(0)];
    pad_into(&mut data, tensor, *axis, element);
    let mut shape = tensor.shape.clone();
    shape.set(*axis, i64::try_from(length).unwrap_or(i64::MAX));
    Tensor {
        dtype: tensor.dtype,
        shape,
        data: aligned(&data),
    }
}

pub(super) fn run(
    executor: &mut dyn Executor,
    tensors: &[Tensor],
) -> Result<Vec<Tensor>, RunError> {
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

#[cfg(test)]
mod tests;
