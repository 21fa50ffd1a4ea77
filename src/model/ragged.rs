//! How inputs of different lengths are laid end to end in a batch.

use crate::tensor::Dtype;

/// What is laid end to end, how the model is told where each request begins, and how its outputs are
/// cut. The terms and kinds are those of Triton's ragged batching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaggedPolicy {
    /// Inputs whose shape need not be the same in every request of a batch.
    pub inputs: Vec<String>,
    /// Inputs of the model that no request brings: they are made of the batch.
    pub batch_inputs: Vec<BatchInput>,
    /// Outputs that are cut by the shape of an input of each request.
    pub batch_outputs: Vec<BatchOutput>,
}

impl RaggedPolicy {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.batch_inputs.is_empty() && self.batch_outputs.is_empty()
    }

    /// The names of the inputs that others are made of, or outputs cut by.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let inputs = self.batch_inputs.iter().map(|made| made.source.as_str());
        let outputs = self.batch_outputs.iter().map(|cut| cut.source.as_str());
        inputs.chain(outputs)
    }
}

/// An input that is made of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchInput {
    /// What it says.
    pub kind: BatchInputKind,
    /// The model's names for it.
    pub targets: Vec<String>,
    /// Its element type: FP32 or INT32.
    pub dtype: Dtype,
    /// The input of which it is said.
    pub source: String,
}

/// What an input that is made of a batch says of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchInputKind {
    /// How many elements each request has: `[requests]`.
    ElementCount,
    /// How many elements there are up to the end of each request: `[requests]`.
    AccumulatedElementCount,
    /// The same behind a zero: `[requests + 1]`.
    AccumulatedElementCountWithZero,
    /// Nothing by what is in it, by its shape how many elements the largest request has.
    MaxElementCountAsShape,
    /// The shape of each row, without the batch dimension: `[rows, dimensions]`.
    ItemShape,
    /// The same in one dimension: `[rows * dimensions]`.
    ItemShapeFlatten,
}

/// An output that is laid end to end, and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchOutput {
    /// The model's names for it.
    pub targets: Vec<String>,
    /// The input that has the size of each dimension that varies.
    pub source: String,
}

/// The most elements that a 32-bit float counts one by one.
pub const MOST_FP32_COUNT: usize = 1 << 24;
