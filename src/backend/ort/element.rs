//! ONNX Runtime's element types and the protocol's, and a session's inputs and outputs as a
//! signature.

use ::ort::session::Session;
use ::ort::sys::ONNXTensorElementDataType;
use ::ort::value::{Outlet, TensorElementType, ValueType};

use crate::backend::{Artifact, LoadError};
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

/// What a session takes and gives: its inputs, behind them those that the policy calls optional, and
/// its outputs.
pub(super) fn signature(session: &Session, artifact: &Artifact) -> Result<Signature, LoadError> {
    let specs = |outlets: &[Outlet]| -> Result<Vec<TensorSpec>, LoadError> {
        let specs = outlets.iter();
        let specs = specs.map(|outlet| spec(outlet.name(), outlet.dtype(), artifact));
        specs.collect()
    };
    let mut inputs = specs(session.inputs())?;
    inputs.extend(optional(session, artifact)?);
    Ok(Signature {
        inputs,
        outputs: specs(session.outputs())?,
    })
}

/// The inputs that a request may leave out, in the order of the configuration: the graph has a value
/// for each, which ONNX Runtime calls an overridable initializer.
fn optional(session: &Session, artifact: &Artifact) -> Result<Vec<TensorSpec>, LoadError> {
    let mut names = artifact.policy.tensors.optional().peekable();
    if names.peek().is_none() {
        return Ok(Vec::new());
    }
    let known = session.overridable_initializers();
    let found = names.map(|name| {
        let Some(own) = known.iter().find(|own| own.name() == name) else {
            let known = known.iter().map(|own| own.name());
            return Err(LoadError::Model {
                file: artifact.file.clone(),
                reason: no_value(session, name, &known.collect::<Vec<_>>()),
            });
        };
        spec(name, own.dtype(), artifact)
    });
    found.collect()
}

/// Why an input cannot be optional.
fn no_value(session: &Session, name: &str, known: &[&str]) -> String {
    let is_input = session.inputs().iter().any(|input| input.name() == name);
    let what = match is_input {
        true => "the graph has no value for it, and ONNX Runtime does not run without",
        false => "the graph has no such input",
    };
    let known = match known {
        [] => "no input".to_owned(),
        known => format!("{} alone", known.join(", ")),
    };
    format!(
        "input {name:?} cannot be optional: {what}; take `optional` out, or give the graph an \
         initializer of that name beside the input (it has one for {known})"
    )
}

fn spec(name: &str, found: &ValueType, artifact: &Artifact) -> Result<TensorSpec, LoadError> {
    let unsupported = || LoadError::Unsupported {
        file: artifact.file.clone(),
        tensor: name.to_owned(),
        found: found.to_string(),
    };
    let ValueType::Tensor {
        ty,
        shape,
        dimension_symbols,
    } = found
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
        name: name.to_owned(),
        dtype: dtype(*ty).ok_or_else(unsupported)?,
        dimensions,
    })
}
