//! ONNX Runtime's element types and the protocol's, and a session's inputs and outputs as a
//! signature.

use std::path::Path;

use ::ort::session::Session;
use ::ort::sys::ONNXTensorElementDataType;
use ::ort::value::{Outlet, TensorElementType, ValueType};

use crate::backend::LoadError;
use crate::model::{Dimension, Signature, TensorSpec};
use crate::tensor::Dtype;

/// The protocol's name for an element type, if it has one.
pub(super) fn dtype(element: TensorElementType) -> Option<Dtype> {
    Some(match element {
        TensorElementType::Bool => Dtype::Bool,
        TensorElementType::Uint8 => Dtype::Uint8,
        TensorElementType::Uint16 => Dtype::Uint16,
        TensorElementType::Uint32 => Dtype::Uint32,
        TensorElementType::Uint64 => Dtype::Uint64,
        TensorElementType::Int8 => Dtype::Int8,
        TensorElementType::Int16 => Dtype::Int16,
        TensorElementType::Int32 => Dtype::Int32,
        TensorElementType::Int64 => Dtype::Int64,
        TensorElementType::Float16 => Dtype::Fp16,
        TensorElementType::Bfloat16 => Dtype::Bf16,
        TensorElementType::Float32 => Dtype::Fp32,
        TensorElementType::Float64 => Dtype::Fp64,
        TensorElementType::String => Dtype::Bytes,
        _ => return None,
    })
}

/// ONNX Runtime's number for an element type.
pub(super) fn onnx(dtype: Dtype) -> ONNXTensorElementDataType {
    let element = match dtype {
        Dtype::Bool => TensorElementType::Bool,
        Dtype::Uint8 => TensorElementType::Uint8,
        Dtype::Uint16 => TensorElementType::Uint16,
        Dtype::Uint32 => TensorElementType::Uint32,
        Dtype::Uint64 => TensorElementType::Uint64,
        Dtype::Int8 => TensorElementType::Int8,
        Dtype::Int16 => TensorElementType::Int16,
        Dtype::Int32 => TensorElementType::Int32,
        Dtype::Int64 => TensorElementType::Int64,
        Dtype::Fp16 => TensorElementType::Float16,
        Dtype::Bf16 => TensorElementType::Bfloat16,
        Dtype::Fp32 => TensorElementType::Float32,
        Dtype::Fp64 => TensorElementType::Float64,
        Dtype::Bytes => TensorElementType::String,
    };
    element.into()
}

/// What a session takes and gives.
pub(super) fn signature(session: &Session, file: &Path) -> Result<Signature, LoadError> {
    let specs = |outlets: &[Outlet]| -> Result<Vec<TensorSpec>, LoadError> {
        outlets.iter().map(|outlet| spec(outlet, file)).collect()
    };
    Ok(Signature {
        inputs: specs(session.inputs())?,
        outputs: specs(session.outputs())?,
    })
}

fn spec(outlet: &Outlet, file: &Path) -> Result<TensorSpec, LoadError> {
    let unsupported = || LoadError::Unsupported {
        file: file.to_owned(),
        tensor: outlet.name().to_owned(),
        found: outlet.dtype().to_string(),
    };
    let ValueType::Tensor {
        ty,
        shape,
        dimension_symbols,
    } = outlet.dtype()
    else {
        return Err(unsupported());
    };
    let dimensions = shape
        .iter()
        .zip(dimension_symbols.iter())
        .map(|(size, symbol)| Dimension {
            size: usize::try_from(*size).ok(),
            symbol: symbol.clone(),
        })
        .collect();
    Ok(TensorSpec {
        name: outlet.name().to_owned(),
        dtype: dtype(*ty).ok_or_else(unsupported)?,
        dimensions,
    })
}
