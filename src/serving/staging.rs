//! Buffers into which batches are stacked, and the stacking.

mod ragged;

use super::padding::Element;
use super::stacking::Stacking;
use super::ticket::Job;
use crate::backend::Input;
use crate::device::{Device, HostMemory};
use crate::scheduler::Load;
use crate::status::Status;
use crate::tensor::{Shape, Slicer, Tensor, pad_into, padded_bytes};

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
    /// that needs no padding and whose bytes are aligned is left where it is.
    pub(super) fn stack(
        &mut self,
        jobs: &[Job],
        load: Load,
        device: &dyn Device,
        stacking: &Stacking,
    ) -> Result<Vec<Shape>, Status> {
        self.lengths.clear();
        let Some(first) = jobs.first() else {
            return Ok(Vec::new());
        };
        if let Some(ragged) = &stacking.ragged {
            return self.stack_ragged(jobs, device, ragged);
        }
        let mut shapes = Vec::with_capacity(first.inputs.len());
        for (index, tensor) in first.inputs.iter().enumerate() {
            let shape = stacking.shape(index, tensor, load);
            let as_it_is = jobs.len() == 1 && shape == tensor.shape && is_aligned(tensor);
            let length = match as_it_is {
                true => None,
                false => Some(self.fill(index, jobs, &shape, device, stacking)?),
            };
            self.lengths.push(length);
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// The inputs as the backend takes them.
    pub(super) fn inputs<'a>(
        &'a self,
        jobs: &'a [Job],
        shapes: &'a [Shape],
        stacking: &Stacking,
    ) -> Vec<Input<'a>> {
        if let Some(ragged) = &stacking.ragged {
            return self.ragged_inputs(jobs, shapes, ragged);
        }
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
        stacking: &Stacking,
    ) -> Result<usize, Status> {
        let parts = || jobs.iter().filter_map(|job| job.inputs.get(index));
        let padding = stacking.padding.as_ref();
        let padding = padding.and_then(|padding| padding.inputs.get(index)?.as_ref());
        let pad = padding.map(|input| (input.axis, &input.element));
        check_stack(parts(), shape, pad.map(|(axis, _)| axis))?;
        let filler = filler(parts(), shape)?;
        let fillers = || std::iter::repeat_n(&filler.0, filler.1);
        let all = parts().chain(fillers());
        let length: Option<usize> = all.map(|part| bytes(part, shape, pad)).sum();
        let length = length.ok_or_else(no_fit)?;
        let buffer = self.buffer(index, length, device)?;
        let mut rest = buffer.as_mut_slice();
        for part in parts().chain(fillers()) {
            let own = bytes(part, shape, pad).ok_or_else(no_fit)?;
            let (head, tail) = rest.split_at_mut_checked(own).ok_or_else(no_fit)?;
            write(head, part, pad)?;
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

fn no_fit() -> Status {
    Status::internal("a staging buffer is too small")
}

/// What a tensor takes in the buffer.
fn bytes(tensor: &Tensor, shape: &Shape, pad: Option<(usize, &Element)>) -> Option<usize> {
    let Some((axis, _)) = pad else {
        return Some(tensor.data.len());
    };
    padded_bytes(tensor, axis, usize::try_from(*shape.get(axis)?).ok()?)
}

fn write(target: &mut [u8], tensor: &Tensor, pad: Option<(usize, &Element)>) -> Result<(), Status> {
    match pad {
        Some((axis, element)) if target.len() != tensor.data.len() => {
            let fits = pad_into(target, tensor, axis, element);
            fits.then_some(()).ok_or_else(no_fit)
        }
        _ => {
            target.copy_from_slice(&tensor.data);
            Ok(())
        }
    }
}

/// A row to fill up with, and how often: the first row once more, because whatever the model takes it
/// takes twice.
fn filler<'a>(
    mut parts: impl Iterator<Item = &'a Tensor> + Clone,
    shape: &Shape,
) -> Result<(Tensor, usize), Status> {
    let rows = |shape: &Shape| {
        let first = shape.first().copied().unwrap_or(0);
        usize::try_from(first).unwrap_or(0)
    };
    let own: usize = parts.clone().map(|part| rows(&part.shape)).sum();
    let missing = rows(shape).saturating_sub(own);
    let lost = || Status::internal("a batch without rows");
    let first = parts.next().ok_or_else(lost)?.clone();
    if missing == 0 {
        return Ok((first, 0));
    }
    let own = rows(&first.shape);
    let row = Slicer::new(first, own).and_then(|mut slicer| slicer.take(1));
    let row = row.map_err(|error| Status::internal(error.to_string()))?;
    Ok((row, missing))
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
    padded: Option<usize>,
) -> Result<(), Status> {
    let same = |tensor: &Tensor| {
        let dimensions = tensor.shape.iter().zip(shape.iter()).enumerate();
        let mut inner = dimensions.skip(1);
        tensor.shape.len() == shape.len()
            && inner.all(|(axis, (own, whole))| own == whole || Some(axis) == padded)
    };
    if parts.all(same) {
        Ok(())
    } else {
        Err(Status::internal("a batch of different shapes"))
    }
}
