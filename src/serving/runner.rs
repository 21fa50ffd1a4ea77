//! What runs the requests of a version: a queue with executors of its own, or a graph of other models.

use std::sync::Arc;

use super::ensemble::Ensemble;
use super::journey::TraceContext;
use super::lane::{Lane, Refused, Seat};
use crate::clock::Moment;
use crate::scheduler::{Item, Learned};
use crate::tensor::Tensor;

/// What runs the requests of a version.
#[derive(Debug)]
pub(super) enum Runner {
    Lane(Arc<Lane>),
    Ensemble(Ensemble),
}

impl Runner {
    /// Queues a request and takes its inputs, unless it is refused.
    pub(super) fn submit(
        &self,
        now: Moment,
        item: Item,
        context: Option<TraceContext>,
        inputs: &mut Vec<Tensor>,
    ) -> Result<Seat, Refused> {
        match self {
            Self::Lane(lane) => lane.submit(now, item, context, inputs),
            // A model that was replaced by one while the request was on its way.
            Self::Ensemble(_) => Err(Refused::Closed),
        }
    }

    /// Takes no more requests; what is there is finished. An ensemble has nothing that could wait:
    /// who knows it runs it.
    pub(super) fn close(&self) {
        if let Self::Lane(lane) = self {
            lane.close();
        }
    }

    /// Whether it was replaced or unloaded.
    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::Lane(lane) => lane.is_closed(),
            Self::Ensemble(_) => false,
        }
    }

    /// What was learned of the batches of each group of executors.
    pub(super) fn learned(&self) -> Vec<Option<Learned>> {
        match self {
            Self::Lane(lane) => lane.learned(),
            Self::Ensemble(_) => Vec::new(),
        }
    }
}
