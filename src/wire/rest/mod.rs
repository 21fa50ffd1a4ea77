//! Inference over HTTP: a JSON document, with tensors in it or, as they are, after it
//! (the V2 protocol's REST form and its binary tensor data extension).

mod bounded;
mod elements;
mod parameters;
mod request;
mod response;
mod words;

pub use request::{RestAsked, infer_request};
pub use response::{RestAnswer, infer_response};
