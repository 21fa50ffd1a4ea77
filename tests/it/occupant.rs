//! Who keeps a model's one executor busy, so that whatever is sent next has to wait.

use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::{ModelInferRequest, ModelInferResponse};
use tokio::task::JoinSet;
use tonic::Status;

use super::node::{Node, infer, until};
use super::request::{rows, with_parameter};

/// An hour in microseconds: more patience than any default.
const PATIENCE: i64 = 3_600_000_000;

/// Looks, a millisecond apart, that the queue has to stay the same for. An executor that has been
/// woken takes its batch within the first; nothing tells when.
const STEADY: usize = 20;

/// Full batches: one that each executor runs, and one that waits.
pub(crate) struct Occupant {
    batches: JoinSet<Result<ModelInferResponse, Status>>,
    /// Rows of all.
    pub(crate) rows: usize,
}

impl Occupant {
    /// Takes the executor of a simulated model whose batches have this many rows.
    pub(crate) async fn of(node: &Node, model: &str, batch: usize) -> Self {
        Self::of_all(node, model, batch, 1).await
    }

    /// The same for a model that has several executors.
    pub(crate) async fn of_all(node: &Node, model: &str, batch: usize, executors: usize) -> Self {
        let requests = (0..=executors).map(|seed| rows(model, seed, batch));
        Self::with(node, requests.collect()).await
    }

    /// The same with deadlines of its own, which are far away.
    pub(crate) async fn with_deadlines(node: &Node, model: &str, batch: usize) -> Self {
        let patient =
            |request| with_parameter(request, "timeout", ParameterChoice::Int64Param(PATIENCE));
        let requests = [0, 1].map(|seed| patient(rows(model, seed, batch)));
        Self::with(node, requests.to_vec()).await
    }

    async fn with(node: &Node, requests: Vec<ModelInferRequest>) -> Self {
        let version = node.version(&requests[0].model_name);
        let rows = requests.iter().map(|request| request.inputs[0].shape[0]);
        let rows = rows.sum::<i64>() as usize;
        let mut batches = JoinSet::new();
        for request in requests {
            batches.spawn(infer(node.client(), request));
        }
        let mut steady = 0;
        until("the executor is busy", || {
            steady = if version.queued() == 1 { steady + 1 } else { 0 };
            steady == STEADY
        })
        .await;
        Self { batches, rows }
    }

    /// Waits until all have been answered.
    pub(crate) async fn leaves(self) {
        for answer in self.batches.join_all().await {
            answer.unwrap();
        }
    }

    /// Whether none has been answered.
    pub(crate) fn is_there(&mut self) -> bool {
        self.batches.try_join_next().is_none()
    }
}

/// Answers that are being waited for.
pub(crate) type Waiting = JoinSet<(ModelInferRequest, Result<ModelInferResponse, Status>)>;

/// Sends requests that have to wait behind an occupant, and waits until they all do.
pub(crate) async fn enqueue(
    node: &Node,
    requests: impl IntoIterator<Item = ModelInferRequest>,
) -> Waiting {
    let mut waiting = Waiting::new();
    let mut model = String::new();
    for request in requests {
        model.clone_from(&request.model_name);
        let answer = infer(node.client(), request.clone());
        waiting.spawn(async move { (request, answer.await) });
    }
    let version = node.version(&model);
    let queued = waiting.len() + 1;
    until("the requests wait", || version.queued() == queued).await;
    waiting
}
