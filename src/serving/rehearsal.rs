//! Requests of the configuration that are run before the first real one.

use std::fs;
use std::path::Path;

use bytes::Bytes;

use super::inputs::InputCheck;
use super::ragged::Ragged;
use super::request::{InferRequest, NamedTensor};
use super::stateful::Stateful;
use super::trial::{MOST_BYTES, aligned, run, values};
use crate::backend::Executor;
use crate::model::{Signature, WarmUpData, WarmUpInput, WarmUpRequest, round_up};
use crate::tensor::{Dtype, Shape, Tensor, append_element, elements};

/// The folder beside the versions that inputs are read from.
const FOLDER: &str = "warmup";

/// What requests are made for.
pub(super) struct Rehearsal<'a> {
    /// The model's folder.
    pub(super) folder: &'a Path,
    pub(super) check: &'a InputCheck,
    pub(super) signature: &'a Signature,
    /// What the model takes beside what clients send, if it is stateful.
    pub(super) stateful: Option<&'a Stateful>,
    /// How requests are laid end to end, if they are.
    pub(super) ragged: Option<&'a Ragged>,
    /// Whether the first dimension counts rows.
    pub(super) batched: bool,
    /// The only numbers of rows that run; empty: any.
    pub(super) sizes: &'a [usize],
    pub(super) max_batch_size: usize,
}

impl Rehearsal<'_> {
    /// Runs one request as often as it says, or says why it cannot be.
    pub(super) fn run(
        &self,
        executor: &mut dyn Executor,
        request: &WarmUpRequest,
    ) -> Result<(), String> {
        let about = |reason: String| format!("request {:?}: {reason}", request.name);
        let rows = round_up(self.sizes, request.rows);
        let tensors = self.tensors(request, rows).map_err(about)?;
        for _ in 0..request.count {
            run(executor, &tensors).map_err(|error| about(error.to_string()))?;
        }
        Ok(())
    }

    fn tensors(&self, request: &WarmUpRequest, rows: usize) -> Result<Vec<Tensor>, String> {
        if rows > 1 && !self.batched {
            return Err(format!(
                "it has {rows} rows, and the model takes one request at a time"
            ));
        }
        let mut made = InferRequest::default();
        for input in &request.inputs {
            made.inputs.push(NamedTensor {
                name: input.name.clone(),
                tensor: self.tensor(input, rows)?,
            });
        }
        let checked = self.check.check(&mut made, self.max_batch_size);
        let sent = checked.map_err(|status| status.message)?.inputs;
        match (self.stateful, self.ragged) {
            (Some(_), _) if rows > 1 => Err(format!("it has {rows} rows, and a sequence has one")),
            (Some(stateful), _) => stateful.first_inputs(sent),
            (None, Some(ragged)) => ragged.whole(&[&sent]),
            (None, None) => Ok(sent),
        }
    }

    fn tensor(&self, input: &WarmUpInput, rows: usize) -> Result<Tensor, String> {
        let about = |reason: &str| format!("input {:?}: {reason}", input.name);
        let count =
            elements(&input.shape).ok_or_else(|| about("more elements than can be counted"))?;
        let bytes = input.dtype.size().unwrap_or(4).saturating_mul(count);
        if bytes.saturating_mul(rows) > MOST_BYTES {
            return Err(about(&format!(
                "more than the {MOST_BYTES} bytes that are made up"
            )));
        }
        let row = self.row(input, count).map_err(|reason| about(&reason))?;
        if row.len().saturating_mul(rows) > MOST_BYTES {
            return Err(about(&format!("more than {MOST_BYTES} bytes")));
        }
        let mut shape = Vec::with_capacity(input.shape.len() + 1);
        let counts_rows = self.batched && self.signature.input(&input.name).is_some();
        shape.extend(counts_rows.then(|| i64::try_from(rows).unwrap_or(i64::MAX)));
        shape.extend(&input.shape);
        Ok(Tensor {
            dtype: input.dtype,
            shape: Shape::new(&shape),
            data: aligned(&row.repeat(rows)),
        })
    }

    fn row(&self, input: &WarmUpInput, count: usize) -> Result<Bytes, String> {
        Ok(match &input.data {
            WarmUpData::Zero => zeros(input.dtype, count),
            WarmUpData::Random => values(input.dtype, count, 0),
            WarmUpData::File(name) => {
                let path = self.folder.join(FOLDER).join(name);
                let size = fs::metadata(&path).map(|about| about.len());
                let failed = |error: std::io::Error| format!("{}: {error}", path.display());
                if size.map_err(failed)? > MOST_BYTES as u64 {
                    return Err(format!("{}: more than {MOST_BYTES} bytes", path.display()));
                }
                fs::read(&path).map_err(failed)?.into()
            }
        })
    }
}

fn zeros(dtype: Dtype, count: usize) -> Bytes {
    let Some(size) = dtype.size() else {
        let mut data = Vec::new();
        (0..count).for_each(|_| append_element(&mut data, b""));
        return data.into();
    };
    vec![0; size.saturating_mul(count)].into()
}
