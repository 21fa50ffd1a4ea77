//! What clients see of a model's inputs and outputs, where the configuration says it otherwise.

use crate::model::{
    BatchAxis, Dimension, Signature, TensorPolicy, TensorSpec, TensorsPolicy, declared,
};
use crate::tensor::{Shape, Tensor};

/// How tensors go from the client's shapes to the model's and back.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facade {
    /// By position in the model.
    inputs: Vec<Option<Reshape>>,
    outputs: Vec<Option<Reshape>>,
    /// The positions in the model of the outputs that clients see.
    shown: Vec<usize>,
}

/// The same elements in another shape.
#[derive(Clone, Debug, PartialEq)]
struct Reshape {
    from: Vec<i64>,
    to: Vec<i64>,
    /// Dimensions before those, which stay.
    leading: usize,
}

impl Facade {
    /// What `policy` makes of a model's signature, and how; none if it says nothing.
    pub(super) fn resolve(
        policy: &TensorsPolicy,
        axis: BatchAxis,
        signature: &Signature,
    ) -> Result<Option<(Signature, Self)>, String> {
        if *policy == TensorsPolicy::default() {
            return Ok(None);
        }
        let batched = match axis {
            BatchAxis::First => true,
            BatchAxis::Unbatched => false,
            BatchAxis::Auto => signature.batching().is_rows(),
        };
        let leading = usize::from(batched);
        known("input", &policy.inputs, &signature.inputs)?;
        known("output", &policy.outputs, &signature.outputs)?;
        let mut seen = Signature {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        let mut facade = Self {
            inputs: Vec::new(),
            outputs: Vec::new(),
            shown: Vec::new(),
        };
        for spec in &signature.inputs {
            let tensor = declared(&policy.inputs, &spec.name);
            if tensor.is_none() && !policy.inputs.is_empty() {
                return Err(format!("input {spec} of the model is not listed; list it"));
            }
            seen.inputs.push(view("input", spec, tensor, leading)?);
            facade.inputs.push(reshape(tensor, leading, true));
        }
        for (position, spec) in signature.outputs.iter().enumerate() {
            let tensor = declared(&policy.outputs, &spec.name);
            facade.outputs.push(reshape(tensor, leading, false));
            if tensor.is_some() || policy.outputs.is_empty() {
                seen.outputs.push(view("output", spec, tensor, leading)?);
                facade.shown.push(position);
            }
        }
        Ok(Some((seen, facade)))
    }

    /// Whether any tensor changes its shape.
    pub(super) fn reshapes(&self) -> bool {
        self.inputs.iter().chain(&self.outputs).any(Option::is_some)
    }

    /// Gives a request's inputs the model's shapes.
    pub(super) fn enter(&self, inputs: &mut [Tensor]) {
        for (tensor, reshape) in inputs.iter_mut().zip(&self.inputs) {
            if let Some(reshape) = reshape
                && !tensor.is_absent()
            {
                tensor.shape = reshape.apply(&tensor.shape);
            }
        }
    }

    /// Gives a request's inputs the client's shapes again.
    pub(super) fn give_back(&self, inputs: &mut [Tensor]) {
        for (tensor, reshape) in inputs.iter_mut().zip(&self.inputs) {
            if let Some(reshape) = reshape
                && !tensor.is_absent()
            {
                tensor.shape = reshape.reversed().apply(&tensor.shape);
            }
        }
    }

    /// Gives an output of the model the shape that clients see.
    pub(super) fn leave(&self, position: usize, tensor: &mut Tensor) {
        if let Some(Some(reshape)) = self.outputs.get(position) {
            tensor.shape = reshape.apply(&tensor.shape);
        }
    }

    /// The position in the model of an output that clients see.
    pub(super) fn position(&self, seen: usize) -> usize {
        self.shown.get(seen).copied().unwrap_or(seen)
    }
}

impl Reshape {
    fn reversed(&self) -> Self {
        Self {
            from: self.to.clone(),
            to: self.from.clone(),
            leading: self.leading,
        }
    }

    fn apply(&self, shape: &Shape) -> Shape {
        let (leading, own) = shape.split_at(self.leading.min(shape.len()));
        let sizes = self.from.iter().zip(own);
        let mut varying = sizes.filter(|(size, _)| **size < 0).map(|(_, own)| *own);
        let mut found = leading.to_vec();
        for size in &self.to {
            found.push(if *size < 0 {
                varying.next().unwrap_or(1)
            } else {
                *size
            });
        }
        Shape::new(&found)
    }
}

fn reshape(tensor: Option<&TensorPolicy>, leading: usize, inwards: bool) -> Option<Reshape> {
    let tensor = tensor?;
    let model = tensor.reshape.clone()?;
    let (from, to) = match inwards {
        true => (tensor.shape.clone(), model),
        false => (model, tensor.shape.clone()),
    };
    Some(Reshape { from, to, leading })
}

/// Refuses tensors that the model does not have.
fn known(kind: &str, tensors: &[TensorPolicy], specs: &[TensorSpec]) -> Result<(), String> {
    for tensor in tensors {
        if specs.iter().all(|spec| spec.name != tensor.name) {
            let known: Vec<String> = specs.iter().map(ToString::to_string).collect();
            return Err(format!(
                "there is no {kind} {:?}; the model has {}",
                tensor.name,
                known.join(", ")
            ));
        }
    }
    Ok(())
}

/// What clients see of a tensor, if it is the model's.
fn view(
    kind: &str,
    spec: &TensorSpec,
    tensor: Option<&TensorPolicy>,
    leading: usize,
) -> Result<TensorSpec, String> {
    let Some(tensor) = tensor else {
        return Ok(spec.clone());
    };
    let (before, own) = spec.dimensions.split_at(leading.min(spec.dimensions.len()));
    let said = tensor.model_shape();
    let fits = |(own, said): (&Dimension, &i64)| own.size.is_none() || own.protocol() == *said;
    let same =
        tensor.dtype == spec.dtype && own.len() == said.len() && own.iter().zip(said).all(fits);
    if !same {
        let mut full: Vec<i64> = before.iter().map(Dimension::protocol).collect();
        full.extend(said);
        return Err(format!(
            "{kind} {:?}: the configuration says {} {}, and the model has {} {}",
            spec.name,
            tensor.dtype,
            Shape::new(&full),
            spec.dtype,
            Shape::new(&spec.protocol_shape())
        ));
    }
    let dimension = |(index, size): (usize, &i64)| match usize::try_from(*size) {
        Ok(size) => Dimension::fixed(size),
        Err(_) if tensor.reshape.is_none() => {
            let own = own.get(index).cloned();
            own.unwrap_or_else(|| Dimension::varying(""))
        }
        Err(_) => Dimension::varying(""),
    };
    let shape = tensor.shape.iter().enumerate().map(dimension);
    Ok(TensorSpec {
        name: spec.name.clone(),
        dtype: spec.dtype,
        dimensions: before.iter().cloned().chain(shape).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn spec(name: &str, dimensions: Vec<Dimension>) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::Fp32,
            dimensions,
        }
    }

    fn tensor(name: &str, shape: &[i64], reshape: Option<&[i64]>) -> TensorPolicy {
        TensorPolicy {
            name: name.to_owned(),
            dtype: Dtype::Fp32,
            shape: shape.to_vec(),
            reshape: reshape.map(<[i64]>::to_vec),
            format: None,
            optional: false,
        }
    }

    fn signature() -> Signature {
        let batch = || Dimension::varying("batch");
        Signature {
            inputs: vec![spec(
                "x",
                vec![batch(), Dimension::varying("n"), Dimension::fixed(2)],
            )],
            outputs: vec![spec("y", vec![batch()]), spec("z", vec![batch()])],
        }
    }

    fn resolve(
        inputs: Vec<TensorPolicy>,
        outputs: Vec<TensorPolicy>,
    ) -> Result<Option<(Signature, Facade)>, String> {
        let policy = TensorsPolicy { inputs, outputs };
        Facade::resolve(&policy, BatchAxis::First, &signature())
    }

    #[test]
    fn shapes_are_those_of_the_configuration_outside_and_of_the_model_inside() {
        let inputs = vec![tensor("x", &[2, -1], Some(&[-1, 2]))];
        assert!(resolve(inputs, vec![]).is_ok());
        let inputs = vec![tensor("x", &[-1, 1, 2], Some(&[-1, 2]))];
        let outputs = vec![tensor("z", &[1], Some(&[]))];
        let (seen, facade) = resolve(inputs, outputs).unwrap().unwrap();
        assert_eq!(seen.inputs[0].protocol_shape(), [-1, -1, 1, 2]);
        assert_eq!(seen.outputs.len(), 1);
        assert_eq!(seen.outputs[0].protocol_shape(), [-1, 1]);
        let mut tensors = [Tensor {
            dtype: Dtype::Fp32,
            shape: Shape::new(&[3, 5, 1, 2]),
            data: bytes::Bytes::new(),
        }];
        facade.enter(&mut tensors);
        assert_eq!(tensors[0].shape, Shape::new(&[3, 5, 2]));
        facade.give_back(&mut tensors);
        assert_eq!(tensors[0].shape, Shape::new(&[3, 5, 1, 2]));
        let [mut output] = tensors;
        output.shape = Shape::new(&[3]);
        assert_eq!(facade.position(0), 1);
        facade.leave(1, &mut output);
        assert_eq!(output.shape, Shape::new(&[3, 1]));
        assert!(facade.reshapes());
    }

    #[test]
    fn what_the_model_does_not_have_is_refused() {
        let refused = |inputs, outputs| resolve(inputs, outputs).unwrap_err();
        assert_eq!(
            refused(vec![tensor("x", &[-1, 3], None)], vec![]),
            r#"input "x": the configuration says FP32 [-1,-1,3], and the model has FP32 [-1,-1,2]"#
        );
        let mut other = tensor("x", &[-1, 2], None);
        other.dtype = Dtype::Int8;
        assert!(refused(vec![other], vec![]).contains("says INT8 [-1,-1,2]"));
        assert!(refused(vec![tensor("x", &[2], None)], vec![]).contains("[-1,2]"));
        assert_eq!(
            refused(vec![], vec![tensor("w", &[], None)]),
            r#"there is no output "w"; the model has y FP32 [-1], z FP32 [-1]"#
        );
        let narrower = resolve(vec![tensor("x", &[4, 2], None)], vec![]);
        let (seen, facade) = narrower.unwrap().unwrap();
        assert_eq!(seen.inputs[0].protocol_shape(), [-1, 4, 2]);
        assert!(!facade.reshapes() && facade.position(1) == 1);
        assert_eq!(resolve(vec![], vec![]), Ok(None));
    }
}
