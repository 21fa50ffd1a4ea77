//! Runs the graph of an ensemble: each step is a request to its model, through the engine as any
//! other, so that it is batched, bounded and counted there. Steps that wait for nothing run side by
//! side; dropping the run takes the requests of all its steps out of their queues.

use std::future::Future;
use std::pin::Pin;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::engine::Engine;
use super::graph::{Graph, Step};
use super::journey::{Journey, Leg, TraceContext};
use super::request::{InferRequest, InferResponse, NamedTensor};
use super::walk::Walk;
use crate::repository::MOST_NESTED;
use crate::status::{Code, Status};
use crate::tensor::Tensor;

/// A graph of models that answers requests.
#[derive(Debug)]
pub struct Ensemble {
    graph: Graph,
    max_in_flight: usize,
    places: Semaphore,
}

impl Ensemble {
    pub(super) fn new(graph: Graph, max_in_flight: usize) -> Self {
        Self {
            graph,
            max_in_flight,
            places: Semaphore::new(max_in_flight),
        }
    }

    /// Requests in progress.
    pub fn in_flight(&self) -> usize {
        self.max_in_flight - self.places.available_permits()
    }

    /// The models that it is made of, with the version if it names one.
    pub(super) fn parts(&self) -> impl Iterator<Item = (&str, &str)> {
        let steps = self.graph.steps.iter();
        steps.map(|step| (step.model.as_str(), step.version.as_str()))
    }

    /// A place for one more request, if there is one.
    pub(super) fn enter(&self, request: &InferRequest) -> Result<SemaphorePermit<'_>, Bound> {
        if request.nested > MOST_NESTED {
            return Err(Bound::Nested);
        }
        let place = self.places.try_acquire();
        place.map_err(|_| Bound::InFlight(self.max_in_flight))
    }

    /// Waits until no request is in progress.
    pub(super) async fn is_left(&self) {
        let all = u32::try_from(self.max_in_flight).unwrap_or(u32::MAX);
        // It is never closed.
        let _ = self.places.acquire_many(all).await;
    }

    /// The outputs in the positions `wanted`, from inputs in the signature's order. What `request` has
    /// beside its tensors is every step's too: one deadline, one priority.
    pub(super) fn run<'a>(
        &'a self,
        engine: &'a Engine,
        request: InferRequest,
        inputs: Vec<Tensor>,
        wanted: &'a [usize],
        journey: &'a mut Journey,
    ) -> Pin<Box<dyn Future<Output = Result<Vec<Tensor>, Status>> + Send + 'a>> {
        Box::pin(async move {
            let mut walk = Walk::new(&self.graph, inputs, wanted);
            let mut running = FuturesUnordered::new();
            loop {
                while let Some((number, inputs)) = walk.next() {
                    if let Some(step) = self.graph.steps.get(number) {
                        let request = request_of(step, inputs, &request);
                        let now = engine.clock().now();
                        let context = journey.context.as_ref().map(TraceContext::child);
                        running.push(async move {
                            let mut journey = Journey::new(now, now, context);
                            let answer = engine.infer(request, &mut journey).await;
                            let code = answer.as_ref().err().map(|status| status.code);
                            engine.ended(&journey, code, None);
                            (number, step, answer, journey)
                        });
                    }
                }
                let Some((number, step, answer, went)) = running.next().await else {
                    return Ok(walk.answer(wanted));
                };
                journey.steps.push(Leg {
                    name: step.name.clone(),
                    code: answer.as_ref().err().map(|status| status.code),
                    journey: went,
                });
                let InferResponse { outputs, .. } =
                    answer.map_err(|status| failed(step, status))?;
                walk.gave(number, outputs.into_iter().map(|output| output.tensor));
            }
        })
    }
}

/// Why an ensemble does not take a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bound {
    /// So many are in flight.
    InFlight(usize),
    /// It has come through so many ensembles that they must go in a circle, which only models that
    /// were changed one after the other can.
    Nested,
}

fn request_of(step: &Step, inputs: Vec<NamedTensor>, whole: &InferRequest) -> InferRequest {
    InferRequest {
        model: step.model.clone(),
        version: step.version.clone(),
        inputs,
        outputs: step.wanted.clone(),
        nested: whole.nested + 1,
        ..whole.clone()
    }
}

/// What a client is told whose request failed in a step. That a step finds no model is not the
/// client's mistake.
fn failed(step: &Step, mut status: Status) -> Status {
    if status.code == Code::NotFound {
        status.code = Code::Unavailable;
    }
    status.about(&step.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_so_many_are_in_flight() {
        let graph = Graph {
            steps: Vec::new(),
            outputs: Vec::new(),
            tensors: 0,
        };
        let ensemble = Ensemble::new(graph, 2);
        let request = InferRequest::default();
        let first = ensemble.enter(&request).unwrap();
        let _second = ensemble.enter(&request).unwrap();
        assert_eq!(ensemble.enter(&request).unwrap_err(), Bound::InFlight(2));
        assert_eq!(ensemble.in_flight(), 2);
        drop(first);
        assert!(ensemble.enter(&request).is_ok());
        let circling = InferRequest {
            nested: MOST_NESTED + 1,
            ..request
        };
        assert_eq!(ensemble.enter(&circling).unwrap_err(), Bound::Nested);
    }
}
