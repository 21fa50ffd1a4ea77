//! The server's own response to a body.

use bytes::Bytes;
use serde::Serialize;

use super::elements::Flat;
use super::request::Binary;
use crate::serving::InferResponse;
use crate::status::Status;

/// An answer's JSON, and the tensors that follow it.
#[derive(Debug)]
pub struct RestAnswer {
    /// The document.
    pub json: Vec<u8>,
    /// What follows, in this order; it shares the batch's memory.
    pub tensors: Vec<Bytes>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    model_name: &'a str,
    model_version: String,
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize)]
struct Output<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [i64],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Behind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Flat<'a>>,
}

/// Says that an output follows the document.
#[derive(Serialize)]
struct Behind {
    binary_data_size: usize,
}

/// Encodes a response; fails where an output cannot be written as JSON.
pub fn infer_response(response: &InferResponse, binary: &Binary) -> Result<RestAnswer, Status> {
    let mut tensors = Vec::new();
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for (position, output) in response.outputs.iter().enumerate() {
        let tensor = &output.tensor;
        // Of what lies in shared memory nothing is said: Triton's C++ client takes parameters to
        // mean that the output follows.
        let is_shared = output.region.is_some();
        let is_binary = !is_shared && binary.is(position);
        if is_binary {
            tensors.push(tensor.data.clone());
        }
        outputs.push(Output {
            name: &output.name,
            datatype: tensor.dtype.name(),
            shape: &tensor.shape,
            data: (!is_shared && !is_binary).then_some(Flat(tensor)),
            parameters: is_binary.then(|| Behind {
                binary_data_size: tensor.data.len(),
            }),
        });
    }
    let document = Document {
        id: &response.id,
        model_name: &response.model,
        model_version: response.version.to_string(),
        outputs,
    };
    let json = serde_json::to_vec(&document)
        .map_err(|error| Status::invalid(format!("model {:?}: {error}", response.model)))?;
    Ok(RestAnswer { json, tensors })
}
