//! How one model's rows of different lengths become rows of one length.
//!
//! `model.toml` says which dimension varies; here is found where each input and output has it.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::model::{PaddingPolicy, Signature, TensorSpec};
use crate::tensor::{Dtype, Shape, Tensor, elements};

/// One element, as it lies in memory.
pub(super) type Element = SmallVec<[u8; 8]>;

/// What one input is padded with, and where.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PadInput {
    pub(super) axis: usize,
    pub(super) element: Element,
}

/// How one model's rows of different lengths become rows of one length.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Padding {
    /// In the signature's order; none for an input that has no such dimension.
    pub(super) inputs: Vec<Option<PadInput>>,
    /// The axis that is cut, in the signature's order.
    pub(super) outputs: Vec<Option<usize>>,
    /// Which input is the mask, with the number 1.
    mask: Option<(usize, Element)>,
    /// Lengths padded to, ascending; empty: any.
    pub(super) lengths: Vec<usize>,
    pub(super) max_batch_tokens: usize,
}

impl Padding {
    /// What the policy means for a model, or why it means nothing.
    pub(super) fn resolve(policy: &PaddingPolicy, signature: &Signature) -> Result<Self, String> {
        check_names(policy, signature)?;
        let mut inputs = Vec::new();
        for spec in &signature.inputs {
            inputs.push(pad_input(policy, spec)?);
        }
        if inputs.iter().all(Option::is_none) {
            let name = policy.dimension.as_deref().unwrap_or_default();
            return Err(format!(
                "no input has the dimension {name:?}; the model takes {}",
                list(&signature.inputs)
            ));
        }
        let mut outputs = Vec::new();
        for spec in &signature.outputs {
            outputs.push(axis(policy, spec)?);
        }
        let mask = policy.mask.as_deref().and_then(|name| {
            let (position, spec) = signature.input(name)?;
            Some((position, element(spec.dtype, 1.0)?))
        });
        Ok(Self {
            inputs,
            outputs,
            mask,
            lengths: policy.lengths.clone(),
            max_batch_tokens: policy
                .max_batch_tokens
                .unwrap_or(PaddingPolicy::MOST_TOKENS),
        })
    }

    /// The axis along which an input varies.
    pub(super) fn input_axis(&self, position: usize) -> Option<usize> {
        let input = self.inputs.get(position)?.as_ref();
        input.map(|input| input.axis)
    }

    /// Whether this input is the mask.
    pub(super) fn is_mask(&self, position: usize) -> bool {
        self.mask
            .as_ref()
            .is_some_and(|(mask, _)| *mask == position)
    }

    /// A mask of ones, which says that all is a row's own.
    pub(super) fn ones(&self, spec: &TensorSpec, rows: usize, length: usize) -> Option<Tensor> {
        let (position, one) = self.mask.as_ref()?;
        let axis = self.input_axis(*position)?;
        let dimensions = spec.dimensions.iter().enumerate();
        let dimensions: SmallVec<[i64; 4]> = dimensions
            .map(|(index, dimension)| match index {
                0 => whole(rows),
                _ if index == axis => whole(length),
                _ => dimension.size.map_or(1, whole),
            })
            .collect();
        let count = elements(&dimensions)?;
        Some(Tensor {
            dtype: spec.dtype,
            shape: Shape::new(&dimensions),
            data: Bytes::from(one.repeat(count)),
        })
    }
}

fn whole(size: usize) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

fn check_names(policy: &PaddingPolicy, signature: &Signature) -> Result<(), String> {
    let axes = policy.axes.iter().map(|(name, _)| name);
    for name in axes.clone() {
        if signature.input(name).is_none() && signature.output(name).is_none() {
            return Err(format!(
                "axes: there is no {name:?}; the model takes {} and gives {}",
                list(&signature.inputs),
                list(&signature.outputs)
            ));
        }
    }
    let values = policy.values.iter().map(|(name, _)| name);
    for name in values.chain(&policy.mask) {
        if signature.input(name).is_none() {
            return Err(format!(
                "there is no input {name:?}; the model takes {}",
                list(&signature.inputs)
            ));
        }
    }
    Ok(())
}

fn list(specs: &[TensorSpec]) -> String {
    let names: Vec<String> = specs.iter().map(ToString::to_string).collect();
    names.join(", ")
}

fn pad_input(policy: &PaddingPolicy, spec: &TensorSpec) -> Result<Option<PadInput>, String> {
    let is_mask = policy.mask.as_ref() == Some(&spec.name);
    let Some(axis) = axis(policy, spec)? else {
        if is_mask {
            return Err(format!("the mask {spec} has no dimension that is padded"));
        }
        return Ok(None);
    };
    let stated = policy.values.iter().find(|(name, _)| *name == spec.name);
    let value = stated.map_or(0.0, |(_, value)| *value);
    let element = element(spec.dtype, value)
        .ok_or_else(|| format!("input {spec} cannot be padded with {value}"))?;
    Ok(Some(PadInput { axis, element }))
}

/// Which axis of a tensor varies, if one does.
fn axis(policy: &PaddingPolicy, spec: &TensorSpec) -> Result<Option<usize>, String> {
    let named = |name: &String| {
        let dimensions = spec.dimensions.iter().skip(1);
        let mut symbols = dimensions.map(|dimension| &dimension.symbol);
        symbols.position(|symbol| symbol == name)
    };
    let stated = policy.axes.iter().find(|(name, _)| *name == spec.name);
    let axis = match stated {
        Some((_, axis)) => Some(*axis),
        None => policy
            .dimension
            .as_ref()
            .and_then(named)
            .map(|index| index + 1),
    };
    let Some(axis) = axis else {
        return Ok(None);
    };
    match spec.dimensions.get(axis) {
        Some(dimension) if dimension.size.is_none() => Ok(Some(axis)),
        Some(_) => Err(format!("axis {axis} of {spec} does not vary")),
        None => Err(format!("{spec} has no axis {axis}")),
    }
}

/// A number as an element of this type; none if it is not one of them.
pub(super) fn element(dtype: Dtype, value: f64) -> Option<Element> {
    /// Casts that saturate are undone by comparing.
    macro_rules! exactly {
        ($type:ty) => {{
            let whole = value as $type;
            (whole as f64 == value).then(|| Element::from_slice(&whole.to_le_bytes()))
        }};
    }
    match dtype {
        Dtype::Bool => match value {
            0.0 | 1.0 => Some(Element::from_slice(&[value as u8])),
            _ => None,
        },
        Dtype::Uint8 => exactly!(u8),
        Dtype::Uint16 => exactly!(u16),
        Dtype::Uint32 => exactly!(u32),
        Dtype::Uint64 => exactly!(u64),
        Dtype::Int8 => exactly!(i8),
        Dtype::Int16 => exactly!(i16),
        Dtype::Int32 => exactly!(i32),
        Dtype::Int64 => exactly!(i64),
        Dtype::Fp16 => Some(Element::from_slice(
            &half::f16::from_f64(value).to_le_bytes(),
        )),
        Dtype::Bf16 => Some(Element::from_slice(
            &half::bf16::from_f64(value).to_le_bytes(),
        )),
        Dtype::Fp32 => Some(Element::from_slice(&(value as f32).to_le_bytes())),
        Dtype::Fp64 => Some(Element::from_slice(&value.to_le_bytes())),
        // Its elements have no fixed size.
        Dtype::Bytes => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Dimension;

    fn signature() -> Signature {
        let spec = |name: &str, dtype, dimensions: &[&str]| TensorSpec {
            name: name.to_owned(),
            dtype,
            dimensions: dimensions
                .iter()
                .map(|symbol| match symbol.parse() {
                    Ok(size) => Dimension::fixed(size),
                    Err(_) => Dimension::varying(symbol),
                })
                .collect(),
        };
        Signature {
            inputs: vec![
                spec("ids", Dtype::Int64, &["batch", "sequence"]),
                spec("mask", Dtype::Int32, &["batch", "sequence"]),
                spec("image", Dtype::Fp32, &["batch", "3", ""]),
                spec("text", Dtype::Bytes, &["batch", "words"]),
            ],
            outputs: vec![
                spec("tokens", Dtype::Fp32, &["batch", "4", "sequence"]),
                spec("pooled", Dtype::Fp32, &["batch", "4"]),
            ],
        }
    }

    fn named(dimension: &str) -> PaddingPolicy {
        PaddingPolicy {
            dimension: Some(dimension.to_owned()),
            ..PaddingPolicy::default()
        }
    }

    #[test]
    fn a_name_is_found_wherever_the_model_has_it() {
        let policy = PaddingPolicy {
            values: vec![("ids".to_owned(), -1.0)],
            mask: Some("mask".to_owned()),
            ..named("sequence")
        };
        let padding = Padding::resolve(&policy, &signature()).unwrap();
        let ids = padding.inputs[0].as_ref().unwrap();
        assert_eq!((ids.axis, &ids.element[..]), (1, &[255; 8][..]));
        assert_eq!(padding.inputs[2], None);
        assert_eq!(padding.outputs, [Some(2), None]);
        assert!(padding.is_mask(1) && !padding.is_mask(0));
        let mask = padding.ones(&signature().inputs[1], 2, 3).unwrap();
        assert_eq!(mask.shape, Shape::new(&[2, 3]));
        assert_eq!(mask.data[..], [1, 0, 0, 0].repeat(6));
    }

    #[test]
    fn axes_do_without_a_name() {
        let policy = PaddingPolicy {
            axes: vec![("image".to_owned(), 2)],
            ..PaddingPolicy::default()
        };
        let padding = Padding::resolve(&policy, &signature()).unwrap();
        assert_eq!(padding.input_axis(2), Some(2));
        assert_eq!(padding.input_axis(0), None);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let refused = |policy: &PaddingPolicy| Padding::resolve(policy, &signature()).unwrap_err();
        assert!(refused(&named("time")).starts_with("no input has the dimension \"time\""));
        assert_eq!(
            refused(&named("words")),
            "input text BYTES [-1,-1] cannot be padded with 0"
        );
        let axes = |name: &str, axis| PaddingPolicy {
            axes: vec![(name.to_owned(), axis)],
            ..PaddingPolicy::default()
        };
        assert!(refused(&axes("nobody", 1)).starts_with("axes: there is no \"nobody\""));
        assert_eq!(
            refused(&axes("image", 1)),
            "axis 1 of image FP32 [-1,3,-1] does not vary"
        );
        assert_eq!(refused(&axes("ids", 2)), "ids INT64 [-1,-1] has no axis 2");
        let value = PaddingPolicy {
            values: vec![("ids".to_owned(), 0.5)],
            ..named("sequence")
        };
        assert_eq!(
            refused(&value),
            "input ids INT64 [-1,-1] cannot be padded with 0.5"
        );
        let mask = PaddingPolicy {
            mask: Some("image".to_owned()),
            ..named("sequence")
        };
        assert_eq!(
            refused(&mask),
            "the mask image FP32 [-1,3,-1] has no dimension that is padded"
        );
    }
}
