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
    parameters: Option<Place<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Flat<'a>>,
}

/// Where an output is, if not in its `data`.
#[derive(Serialize)]
#[serde(untagged)]
enum Place<'a> {
    Behind {
        binary_data_size: usize,
    },
    Shared {
        shared_memory_region: &'a str,
        shared_memory_offset: u64,
        shared_memory_byte_size: u64,
    },
}

/// Encodes a response; fails where an output cannot be written as JSON.
pub fn infer_response(response: &InferResponse, binary: &Binary) -> Result<RestAnswer, Status> {
    let mut tensors = Vec::new();
    let mut outputs = Vec::with_capacity(response.outputs.len());
    for (position, output) in response.outputs.iter().enumerate() {
        let tensor = &output.tensor;
        let shared = output.region.as_deref();
        let is_binary = shared.is_none() && binary.is(position);
        if is_binary {
            tensors.push(tensor.data.clone());
        }
        let behind = is_binary.then(|| Place::Behind {
            binary_data_size: tensor.data.len(),
        });
        let shared = shared.map(|part| Place::Shared {
            shared_memory_region: &part.region,
            shared_memory_offset: part.offset,
            shared_memory_byte_size: part.bytes,
        });
        let parameters = shared.or(behind);
        outputs.push(Output {
            name: &output.name,
            datatype: tensor.dtype.name(),
            shape: &tensor.shape,
            data: parameters.is_none().then_some(Flat(tensor)),
            parameters,
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
