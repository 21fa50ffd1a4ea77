//! The server's own response to a `ModelInferResponse`, and signatures to metadata.

use std::collections::HashMap;

use crate::model::TensorSpec;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{InferParameter, ModelInferResponse, ModelMetadataResponse};
use crate::serving::{InferResponse, RegionPart, Version};

/// Encodes a response; its outputs travel raw and share the batch's memory.
pub fn infer_response(response: InferResponse) -> ModelInferResponse {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw = Vec::with_capacity(response.outputs.len());
    for output in response.outputs {
        outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.dtype.name().to_owned(),
            shape: output.tensor.shape.to_vec(),
            parameters: output.region.map_or_else(HashMap::new, |part| place(*part)),
            contents: None,
        });
        // Empty for what was put into shared memory: clients count them.
        raw.push(output.tensor.data);
    }
    ModelInferResponse {
        model_name: response.model.to_string(),
        model_version: response.version.to_string(),
        id: response.id,
        outputs,
        raw_output_contents: raw,
        ..ModelInferResponse::default()
    }
}

/// Where an output was put.
fn place(part: RegionPart) -> HashMap<String, InferParameter> {
    let number =
        |number: u64| ParameterChoice::Int64Param(i64::try_from(number).unwrap_or(i64::MAX));
    let parameters = [
        (
            "shared_memory_region",
            ParameterChoice::StringParam(part.region),
        ),
        ("shared_memory_offset", number(part.offset)),
        ("shared_memory_byte_size", number(part.bytes)),
    ];
    let parameters = parameters.into_iter().map(|(name, choice)| {
        let parameter_choice = Some(choice);
        (name.to_owned(), InferParameter { parameter_choice })
    });
    parameters.collect()
}

/// What a version takes and gives; `versions` are all that serve.
pub fn model_metadata(version: &Version, versions: &[u64]) -> ModelMetadataResponse {
    ModelMetadataResponse {
        name: version.id.model.to_string(),
        versions: versions.iter().map(ToString::to_string).collect(),
        platform: super::config::platform(&version.policy).to_owned(),
        inputs: version.signature.inputs.iter().map(metadata).collect(),
        outputs: version.signature.outputs.iter().map(metadata).collect(),
    }
}

fn metadata(spec: &TensorSpec) -> TensorMetadata {
    TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.dtype.name().to_owned(),
        shape: spec.protocol_shape(),
    }
}
