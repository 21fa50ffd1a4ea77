//! Protobuf messages and JSON to the server's own terms and back.
//! Uses `proto`, `serving`'s request and response, `model` and `tensor`.
//! Never asks a model, a queue or a clock: what a message says is all there is.

mod config;
mod contents;
mod entry;
mod example;
mod load;
mod outline;
mod request;
mod response;
pub mod rest;
mod statistics;
mod tensor_parameters;

pub use config::model_config;
pub use entry::{Entry, TlsEntry};
pub use example::{Examples, Place, PlainRequest};
pub use load::supplied;
pub use outline::{Outline, outline};
pub use request::{Asked, Parameters, infer_request, refuse_parameters};
pub use response::{infer_response, model_metadata};
pub use statistics::model_statistics;
pub use tensor_parameters::Regions;
