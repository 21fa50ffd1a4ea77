//! Who keeps a model's one executor busy, so that whatever is sent next has to wait.

use std::fs;
use std::path::{Path, PathBuf};

use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::{ModelInferRequest, ModelInferResponse};
use tokio::task::JoinSet;
use tonic::Status;

use super::node::{Node, infer, until};
use super::repository::gate;
use super::request::{rows, with_parameter};

/// An hour in microseconds: more patience than any default.
const PATIENCE: i64 = 3_600_000_000;

/// Keeps every run of a simulated model from ending until it is opened, however long that takes. If it
/// never is, it goes with its repository.
pub(crate) struct Gate(PathBuf);

impl Gate {
    pub(crate) fn close(node: &Node, model: &str) -> Self {
        Self::of(node.repository(), model)
    }

    /// The same of a model of a repository.
    pub(crate) fn of(repository: &Path, model: &str) -> Self {
        let file = gate(repository, model);
        fs::write(&file, "").unwrap();
        Self(file)
    }

    pub(crate) fn open(&self) {
        fs::remove_file(&self.0).unwrap();
    }
}

/// Full batches: one that each executor runs, and one that waits. None ends before it is told to.
pub(crate) struct Occupant {
    gate: Gate,
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
        let model = requests[0].model_name.clone();
        let gate = Gate::close(node, &model);
        let version = node.version(&model);
        let rows = requests.iter().map(|request| request.inputs[0].shape[0]);
        let rows = rows.sum::<i64>() as usize;
        let offered = || version.demand().unwrap().offered as usize;
        let all = offered() + rows;
        let mut batches = JoinSet::new();
        for request in requests {
            batches.spawn(infer(node.client(), request));
        }
        until("the executor is busy", || {
            offered() == all && version.queued() == 1
        })
        .await;
        Self {
            gate,
            batches,
            rows,
        }
    }

    /// Lets its batches end, and whoever comes after it.
    pub(crate) fn goes(self) -> Leaving {
        self.gate.open();
        Leaving(self.batches)
    }

    /// The same, and waits until all have been answered.
    pub(crate) async fn leaves(self) {
        self.goes().has_left().await;
    }

    /// Whether none has been answered.
    pub(crate) fn is_there(&mut self) -> bool {
        self.batches.try_join_next().is_none()
    }
}

/// An occupant that keeps nobody any longer.
pub(crate) struct Leaving(JoinSet<Result<ModelInferResponse, Status>>);

impl Leaving {
    pub(crate) async fn has_left(self) {
        for answer in self.0.join_all().await {
            answer.unwrap();
        }
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
