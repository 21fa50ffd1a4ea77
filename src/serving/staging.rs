//! Buffers into which batches are stacked, and the stacking.

use super::lane::Job;
use crate::backend::Input;
use crate::device::{Device, HostMemory};
use crate::status::Status;
use crate::tensor::{Shape, Tensor};

/// The largest staging buffer that is kept for the next batch.
const MOST_KEPT: usize = 64 << 20;

/// Buffers into which batches are stacked, one for each input, used again for every batch.
#[derive(Default)]
pub(super) struct Staging {
    buffers: Vec<Option<Box<dyn HostMemory>>>,
    /// Where the input's bytes are: its length in the buffer, or none if the one job's own will do.
    lengths: Vec<Option<usize>>,
}

impl Staging {
    /// Puts the jobs' rows behind each other and gives the shape of each whole input. A single job
    /// whose bytes are aligned is left where it is.
    pub(super) fn stack(
        &mut self,
        jobs: &[Job],
        device: &dyn Device,
        batched: bool,
    ) -> Result<Vec<Shape>, Status> {
        self.lengths.clear();
        let Some(first) = jobs.first() else {
            return Ok(Vec::new());
        };
        let rows: usize = jobs.iter().map(|job| job.rows).sum();
        let mut shapes = Vec::with_capacity(first.inputs.len());
        for (index, tensor) in first.inputs.iter().enumerate() {
            let shape = if batched {
                tensor
                    .shape
                    .with_rows(i64::try_from(rows).unwrap_or(i64::MAX))
            } else {
                tensor.shape.clone()
            };
            let length = if jobs.len() == 1 && is_aligned(tensor) {
                None
            } else {
                Some(self.fill(index, jobs, &shape, device)?)
            };
            self.lengths.push(length);
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// The inputs as the backend takes them.
    pub(super) fn inputs<'a>(&'a self, jobs: &'a [Job], shapes: &'a [Shape]) -> Vec<Input<'a>> {
        let Some(first) = jobs.first() else {
            return Vec::new();
        };
        let tensors = first.inputs.iter().zip(shapes).zip(&self.lengths);
        tensors
            .enumerate()
            .map(|(index, ((tensor, shape), length))| Input {
                dtype: tensor.dtype,
                shape,
                data: match length {
                    None => &tensor.data,
                    Some(length) => self.staged(index, *length),
                },
            })
            .collect()
    }

    /// Gives back buffers that one very large batch has left behind.
    pub(super) fn trim(&mut self) {
        for buffer in &mut self.buffers {
            if buffer
                .as_ref()
                .is_some_and(|buffer| buffer.as_slice().len() > MOST_KEPT)
            {
                *buffer = None;
            }
        }
    }

    fn staged(&self, index: usize, length: usize) -> &[u8] {
        let buffer = self.buffers.get(index).and_then(Option::as_ref);
        buffer
            .and_then(|buffer| buffer.as_slice().get(..length))
            .unwrap_or(&[])
    }

    fn fill(
        &mut self,
        index: usize,
        jobs: &[Job],
        shape: &Shape,
        device: &dyn Device,
    ) -> Result<usize, Status> {
        let parts = || jobs.iter().filter_map(|job| job.inputs.get(index));
        let length: usize = parts().map(|tensor| tensor.data.len()).sum();
        check_stack(parts(), shape)?;
        let buffer = self.buffer(index, length, device)?;
        let mut rest = buffer.as_mut_slice();
        for tensor in parts() {
            let Some((head, tail)) = rest.split_at_mut_checked(tensor.data.len()) else {
                return Err(Status::internal("a staging buffer is too small"));
            };
            head.copy_from_slice(&tensor.data);
            rest = tail;
        }
        Ok(length)
    }

    fn buffer(
        &mut self,
        index: usize,
        length: usize,
        device: &dyn Device,
    ) -> Result<&mut Box<dyn HostMemory>, Status> {
        if self.buffers.len() <= index {
            self.buffers.resize_with(index + 1, || None);
        }
        let lost = || Status::internal("a staging buffer is missing");
        let place = self.buffers.get_mut(index).ok_or_else(lost)?;
        if place
            .as_ref()
            .is_none_or(|buffer| buffer.as_slice().len() < length)
        {
            let memory = device.staging(length.next_power_of_two());
            *place = Some(memory.map_err(|error| Status::internal(error.to_string()))?);
        }
        place.as_mut().ok_or_else(lost)
    }
}

/// Whether the backend can read the elements where they are.
fn is_aligned(tensor: &Tensor) -> bool {
    match tensor.dtype.size() {
        Some(size) => (tensor.data.as_ptr() as usize).is_multiple_of(size),
        // Strings are read byte by byte.
        None => true,
    }
}

/// Guards against two shapes in one batch, which the scheduler's classes rule out.
fn check_stack<'a>(
    mut parts: impl Iterator<Item = &'a Tensor>,
    shape: &Shape,
) -> Result<(), Status> {
    if parts.all(|tensor| tensor.shape.get(1..) == shape.get(1..)) {
        Ok(())
    } else {
        Err(Status::internal("a batch of different shapes"))
    }
}
