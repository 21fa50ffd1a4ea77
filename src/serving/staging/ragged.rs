//! Stacking of requests that are laid end to end.

use super::{Staging, check_stack, is_aligned, no_fit};
use crate::backend::Input;
use crate::device::Device;
use crate::serving::ragged::{Origin, Part, Ragged, laid_shape, make, rows_shape};
use crate::serving::ticket::Job;
use crate::status::Status;
use crate::tensor::{Shape, Tensor};

impl Staging {
    /// Puts what the model takes of the jobs into the buffers, and gives the shape of each input. What
    /// comes from a single job and is aligned is left where it is.
    pub(super) fn stack_ragged(
        &mut self,
        jobs: &[Job],
        device: &dyn Device,
        ragged: &Ragged,
    ) -> Result<Vec<Shape>, Status> {
        let mut shapes = Vec::with_capacity(ragged.parts().len());
        for (index, Part { dtype, from }) in ragged.parts().iter().enumerate() {
            let of = |sent: usize| jobs.iter().filter_map(move |job| job.inputs.get(sent));
            let (shape, length) = match *from {
                Origin::Rows(sent) => {
                    let shape = rows_shape(of(sent));
                    check_stack(of(sent), &shape, None)?;
                    (shape, self.gather(index, of(sent), device)?)
                }
                Origin::Elements(sent) => {
                    (laid_shape(of(sent)), self.gather(index, of(sent), device)?)
                }
                Origin::Made(kind, source) => {
                    let made = make(kind, *dtype, of(source)).map_err(Status::internal)?;
                    let length = self.put(index, std::iter::once(&made), device)?;
                    (made.shape, Some(length))
                }
            };
            self.lengths.push(length);
            shapes.push(shape);
        }
        Ok(shapes)
    }

    /// The inputs as the backend takes them.
    pub(super) fn ragged_inputs<'a>(
        &'a self,
        jobs: &'a [Job],
        shapes: &'a [Shape],
        ragged: &Ragged,
    ) -> Vec<Input<'a>> {
        let first = jobs.first().map_or(&[][..], |job| &job.inputs);
        let parts = ragged.parts().iter().zip(shapes).zip(&self.lengths);
        let inputs = parts.enumerate().map(|(index, ((part, shape), length))| {
            let data = match (length, part.from) {
                (Some(length), _) => self.staged(index, *length),
                (None, Origin::Rows(sent) | Origin::Elements(sent)) => {
                    first.get(sent).map_or(&[][..], |tensor| &tensor.data)
                }
                (None, Origin::Made(..)) => &[],
            };
            Input {
                dtype: part.dtype,
                shape,
                data,
            }
        });
        inputs.collect()
    }

    /// Puts the parts behind each other, unless the only one will do where it is; then none.
    fn gather<'a>(
        &mut self,
        index: usize,
        mut parts: impl Iterator<Item = &'a Tensor> + Clone,
        device: &dyn Device,
    ) -> Result<Option<usize>, Status> {
        let all = parts.clone();
        match (parts.next(), parts.next()) {
            (Some(only), None) if is_aligned(only) => Ok(None),
            _ => self.put(index, all, device).map(Some),
        }
    }

    fn put<'a>(
        &mut self,
        index: usize,
        parts: impl Iterator<Item = &'a Tensor> + Clone,
        device: &dyn Device,
    ) -> Result<usize, Status> {
        let length = parts.clone().map(|part| part.data.len()).sum();
        let mut rest = self.buffer(index, length, device)?.as_mut_slice();
        for part in parts {
            let (head, tail) = rest
                .split_at_mut_checked(part.data.len())
                .ok_or_else(no_fit)?;
            head.copy_from_slice(&part.data);
            rest = tail;
        }
        Ok(length)
    }
}
