//! The server's own response to a `ModelInferResponse`, and signatures to metadata.

use crate::model::TensorSpec;
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{ModelInferResponse, ModelMetadataResponse};
use crate::serving::{InferResponse, Version};

/// Encodes a response; its outputs travel raw and share the batch's memory.
pub fn infer_response(response: InferResponse) -> ModelInferResponse {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw = Vec::with_capacity(response.outputs.len());
    for output in response.outputs {
        outputs.push(InferOutputTensor {
            name: output.name.to_string(),
            datatype: output.tensor.dtype.name().to_owned(),
            shape: output.tensor.shape.to_vec(),
            ..InferOutputTensor::default()
        });
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
