//! A request and its response in the server's own terms, free of any protocol.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::shared_memory::RegionPart;
use crate::clock::Moment;
use crate::tensor::Tensor;

/// A tensor with the name of the input or output it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// The input's or output's name.
    pub name: String,
    /// Its contents.
    pub tensor: Tensor,
}

/// One inference request, decoded but not yet checked against its model.
#[derive(Clone, Debug, Default)]
pub struct InferRequest {
    /// The model's name.
    pub model: String,
    /// The version's number as the client wrote it; empty for the newest served.
    pub version: String,
    /// Echoed to the client.
    pub id: String,
    /// In the client's order.
    pub inputs: Vec<NamedTensor>,
    /// The outputs wanted, in this order; empty for all.
    pub outputs: Vec<String>,
    /// Outputs wanted as classes: their places among those wanted, and how many classes.
    pub classes: Vec<(usize, usize)>,
    /// When the answer is worthless.
    pub deadline: Option<Moment>,
    /// How long the client is willing to wait, as it says itself; what that means the version decides.
    pub timeout: Option<Duration>,
    /// 1 is the most urgent; none for the model's default.
    pub priority: Option<u64>,
    /// The sequence that it is part of; heard by stateful models alone.
    pub sequence: Option<InSequence>,
    /// Whether no other request is being received, so that there is nobody to wait for.
    pub alone: bool,
    /// Ensembles whose step this is, one within the other; 0 for a client's own.
    pub nested: usize,
}

/// Where a request stands in its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InSequence {
    /// Which sequence.
    pub id: CorrelationId,
    /// Whether it is the first; one that goes on under this id is forgotten.
    pub start: bool,
    /// Whether it is the last.
    pub end: bool,
}

/// What a client calls a sequence.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CorrelationId {
    /// By number; not 0.
    Number(u64),
    /// By text; not empty.
    Text(Arc<str>),
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(formatter, "{number}"),
            Self::Text(text) => write!(formatter, "{text:?}"),
        }
    }
}

/// The answer to one inference request.
#[derive(Clone, Debug)]
pub struct InferResponse {
    /// The model's name.
    pub model: Arc<str>,
    /// The version that answered.
    pub version: u64,
    /// The request's id.
    pub id: String,
    /// The outputs wanted, in the order wanted.
    pub outputs: Vec<OutputTensor>,
}

/// One output of a response.
#[derive(Clone, Debug)]
pub struct OutputTensor {
    /// Its name in the model.
    pub name: Arc<str>,
    /// Its contents.
    pub tensor: Tensor,
    /// Where its contents were put, if they are not here.
    pub region: Option<Box<RegionPart>>,
}
