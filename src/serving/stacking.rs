//! How requests of one version become one run, and its outputs become answers.

use super::padding::Padding;
use super::ragged::Ragged;
use super::ticket::Job;
use crate::model::{Signature, round_up};
use crate::scheduler::Load;
use crate::status::Status;
use crate::tensor::{Shape, Slicer, Tensor, cut};

/// How requests of one version become one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Stacking {
    /// Whether requests share runs at all.
    pub(super) batched: bool,
    /// The only numbers of rows that run, ascending; empty: any.
    pub(super) sizes: Vec<usize>,
    /// How rows of different lengths share a run.
    pub(super) padding: Option<Padding>,
    /// How requests are laid end to end, if they are.
    pub(super) ragged: Option<Ragged>,
}

impl Stacking {
    /// What a run of these jobs is: their rows and their length, with what is added to both.
    pub(super) fn load(&self, jobs: &[Job]) -> Load {
        let rows = jobs.iter().map(|job| job.item.rows).sum();
        let length = jobs.iter().map(|job| job.item.length).max().unwrap_or(1);
        Load {
            class: jobs.first().map(|job| job.item.class).unwrap_or_default(),
            rows: round_up(&self.sizes, rows),
            length: match &self.padding {
                Some(padding) => round_up(&padding.lengths, length),
                None => 1,
            },
        }
    }

    /// The shape that an input of one job has in a run.
    pub(super) fn shape(&self, position: usize, tensor: &Tensor, load: Load) -> Shape {
        let mut shape = tensor.shape.clone();
        if self.batched {
            shape.set(0, whole(load.rows));
        }
        if let Some(axis) = self.input_axis(position) {
            shape.set(axis, whole(load.length));
        }
        shape
    }

    /// The axis along which an input is padded, if it is.
    pub(super) fn input_axis(&self, position: usize) -> Option<usize> {
        self.padding.as_ref()?.input_axis(position)
    }

    /// How requests of different lengths share a run, if they do.
    pub(super) fn together(&self) -> Option<&'static str> {
        match (&self.padding, &self.ragged) {
            (Some(_), _) => Some("the shorter padded"),
            (None, Some(_)) => Some("requests laid end to end"),
            (None, None) => None,
        }
    }

    /// Whether an input, by its position among those that clients send, loses its shape in a run.
    pub(super) fn is_laid(&self, sent: usize) -> bool {
        let ragged = self.ragged.as_ref();
        ragged.is_some_and(|ragged| ragged.is_laid(sent))
    }

    /// Cuts a run's outputs into each job's share.
    pub(super) fn slice(
        &self,
        outputs: Vec<Tensor>,
        jobs: &[Job],
        load: Load,
        signature: &Signature,
    ) -> Result<Vec<Vec<Tensor>>, Status> {
        if !self.batched {
            return Ok(vec![outputs]);
        }
        let mut shares: Vec<Vec<Tensor>> = jobs
            .iter()
            .map(|_| Vec::with_capacity(outputs.len()))
            .collect();
        let specs = signature.outputs.iter().enumerate();
        for (output, (position, spec)) in outputs.into_iter().zip(specs) {
            let cannot = |error| {
                let advice = match self.ragged {
                    None => "set batch_axis = \"none\" in model.toml if rows are not independent",
                    Some(_) => {
                        "of what is counted for each request a model has one row a request: send one"
                    }
                };
                Status::internal(format!("output {spec}: {error}; {advice}"))
            };
            let requests = jobs.iter().map(|job| &job.inputs[..]);
            if let Some(cut) = self.laid(position, &output, requests) {
                let cut =
                    cut.map_err(|reason| Status::internal(format!("output {spec}: {reason}")))?;
                let places = shares.iter_mut().zip(cut);
                places.for_each(|(share, own)| share.push(own));
                continue;
            }
            let shape = output.shape.clone();
            let mut slicer = Slicer::new(output, load.rows).map_err(cannot)?;
            for (job, share) in jobs.iter().zip(&mut shares) {
                let rows = slicer.take(job.item.rows).map_err(cannot)?;
                let own = self.own(position, rows, job.item.length, load.length);
                share.push(own.ok_or_else(|| {
                    Status::internal(format!(
                        "output {spec}: {shape} came out where {} was padded to; name its axis in [padding]",
                        load.length
                    ))
                })?);
            }
        }
        Ok(shares)
    }

    /// What each request has of an output that is laid end to end; none if it is not.
    fn laid<'a>(
        &self,
        position: usize,
        output: &Tensor,
        requests: impl Iterator<Item = &'a [Tensor]>,
    ) -> Option<Result<Vec<Tensor>, String>> {
        let ragged = self.ragged.as_ref()?;
        ragged.cut(position, output, requests)
    }

    /// An output without what came of the padding. None if it is not as long as the run was.
    fn own(&self, position: usize, rows: Tensor, own: usize, padded: usize) -> Option<Tensor> {
        let axes = self.padding.as_ref().map(|padding| &padding.outputs);
        let Some(axis) = axes.and_then(|axes| axes.get(position).copied().flatten()) else {
            return Some(rows);
        };
        if rows.shape.get(axis).copied() != Some(whole(padded)) {
            return None;
        }
        cut(&rows, axis, own)
    }
}

fn whole(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
