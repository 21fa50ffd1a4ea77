//! A model that is made of others: which of them run, and whose outputs are whose inputs.

use super::TensorSpec;

/// A graph of models that answers one request. What flows in it are named tensors: each comes from
/// the request or from one step, and goes to any number of steps and into the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsemblePolicy {
    /// The tensors that a request brings, with every dimension, the batch dimension among them.
    pub inputs: Vec<TensorSpec>,
    /// The tensors that the answer has.
    pub outputs: Vec<TensorSpec>,
    /// In any order: a step runs once it has what it takes.
    pub steps: Vec<EnsembleStep>,
    /// The most requests in progress; one more is refused.
    pub max_in_flight: usize,
}

/// One run of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnsembleStep {
    /// The model's name.
    pub model: String,
    /// Its version; none for the newest that serves when the step runs.
    pub version: Option<u64>,
    /// The model's inputs, each with the tensor that it takes.
    pub inputs: Vec<(String, String)>,
    /// The model's outputs that are used, each with the tensor that it becomes.
    pub outputs: Vec<(String, String)>,
}

impl EnsemblePolicy {
    /// The most requests in progress, if nothing else is said.
    pub const MAX_IN_FLIGHT: usize = 1024;

    /// The models that it is made of, each once.
    pub fn models(&self) -> Vec<&str> {
        let mut models: Vec<&str> = self.steps.iter().map(|step| step.model.as_str()).collect();
        models.sort_unstable();
        models.dedup();
        models
    }
}
