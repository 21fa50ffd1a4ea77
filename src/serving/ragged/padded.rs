//! Padding in the place of laying end to end, for models that keep their batch dimension.

use crate::model::{PaddingPolicy, RaggedPolicy, Signature, TensorSpec};

/// What takes the place of laying end to end where inputs keep their batch dimension in the model: the
/// dimension that varies is padded. None if no input does.
pub(super) fn padded(
    policy: &RaggedPolicy,
    padding: Option<&PaddingPolicy>,
    whole: &Signature,
) -> Result<Option<PaddingPolicy>, String> {
    let specs = policy.inputs.iter().filter_map(|name| whole.input(name));
    let with_rows = |spec: &&TensorSpec| spec.dimensions.len() > 1;
    let ragged: Vec<&TensorSpec> = specs.map(|(_, spec)| spec).filter(with_rows).collect();
    let Some(first) = ragged.first() else {
        return match padding {
            Some(_) => Err("[padding] pads others; take one of the two out".to_owned()),
            None => Ok(None),
        };
    };
    let laid = ragged.len() < policy.inputs.len();
    if laid || !policy.batch_inputs.is_empty() || !policy.batch_outputs.is_empty() {
        return Err(format!(
            "input {first} has a batch dimension; what is laid end to end has one dimension alone"
        ));
    }
    if let Some(padding) = padding {
        let missed = ragged.iter().find(|spec| !padding.pads(spec));
        return missed.map_or(Ok(Some(padding.clone())), |spec| {
            Err(format!(
                "input {spec} is not in [padding]; name its axis there"
            ))
        });
    }
    let mut made = PaddingPolicy::default();
    for spec in ragged {
        pad(&mut made, spec)?;
    }
    Ok(Some(made))
}

/// Has the one dimension that varies of an input padded, everywhere if it has a name.
fn pad(padding: &mut PaddingPolicy, spec: &TensorSpec) -> Result<(), String> {
    let inner = spec.dimensions.iter().enumerate().skip(1);
    let mut varying = inner.filter(|(_, dimension)| dimension.size.is_none());
    let (Some((axis, dimension)), None) = (varying.next(), varying.next()) else {
        return Err(format!(
            "input {spec} keeps its batch dimension, and not one other dimension of it varies that \
             could be padded; say which in [padding] of model.toml"
        ));
    };
    if dimension.symbol.is_empty() {
        padding.axes.push((spec.name.clone(), axis));
    } else if padding.dimension.is_none() {
        padding.dimension = Some(dimension.symbol.clone());
    } else if !padding.pads(spec) {
        padding.axes.push((spec.name.clone(), axis));
    }
    Ok(())
}
