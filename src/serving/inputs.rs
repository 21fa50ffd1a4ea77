//! Whether a request fits its model, in every detail that a client can get wrong.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use smallvec::SmallVec;

use super::facade::Facade;
use super::request::InferRequest;
use super::stacking::Stacking;
use crate::model::{Signature, TensorSpec, round_up};
use crate::scheduler::ShapeClass;
use crate::status::Status;
use crate::tensor::{BytesElements, Shape, Tensor, elements};

/// A request's tensors, found to fit the model.
#[derive(Debug)]
pub(super) struct Checked {
    /// In the signature's order.
    pub(super) inputs: Vec<Tensor>,
    /// Rows; 1 if the model takes every request alone.
    pub(super) rows: usize,
    /// How long the rows are, where shorter ones are padded; else 1.
    pub(super) length: usize,
    /// With whom the request can share a run.
    pub(super) class: ShapeClass,
    /// Positions in the signature of the outputs wanted.
    pub(super) outputs: SmallVec<[usize; 4]>,
}

/// Checks requests of one version.
#[derive(Debug)]
pub(super) struct InputCheck {
    model: String,
    signature: Signature,
    stacking: Arc<Stacking>,
    /// Whether any dimension varies that is neither counted nor padded, so that there is more than one
    /// shape class.
    shaped: bool,
    hasher: RandomState,
    /// How clients see the model, if it is otherwise than it is.
    facade: Option<Facade>,
}

impl InputCheck {
    pub(super) fn new(model: &str, signature: Signature, stacking: Arc<Stacking>) -> Self {
        let specs = signature.inputs.iter().enumerate();
        let shaped = specs.into_iter().any(|(position, spec)| {
            let padded = stacking.input_axis(position);
            let dimensions = spec.dimensions.iter().enumerate().skip(1);
            let mut others = dimensions.filter(|(axis, _)| Some(*axis) != padded);
            others.any(|(_, dimension)| dimension.size.is_none())
        });
        Self {
            model: model.to_owned(),
            signature,
            stacking,
            shaped,
            hasher: RandomState::new(),
            facade: None,
        }
    }

    /// The same where clients see the model so.
    pub(super) fn behind(mut self, facade: Option<Facade>) -> Self {
        self.facade = facade;
        self
    }

    /// An output of the model as clients see it.
    pub(super) fn seen(&self, position: usize, mut tensor: Tensor) -> Tensor {
        if let Some(facade) = &self.facade {
            facade.leave(position, &mut tensor);
        }
        tensor
    }

    pub(super) fn check(
        &self,
        request: &mut InferRequest,
        max_batch_size: usize,
    ) -> Result<Checked, Status> {
        let mut inputs = self.in_order(request)?;
        for (spec, tensor) in self.signature.inputs.iter().zip(&inputs) {
            self.check_tensor(spec, tensor)?;
        }
        self.check_symbols(&inputs)?;
        let rows = self.rows(&inputs, max_batch_size)?;
        let (class, length) = (self.class(&inputs), self.length(&inputs, rows)?);
        let mut outputs = self.wanted(&request.outputs)?;
        if let Some(facade) = &self.facade {
            facade.enter(&mut inputs);
            let seen = outputs.iter_mut();
            seen.for_each(|output| *output = facade.position(*output));
        }
        Ok(Checked {
            class,
            rows,
            length,
            outputs,
            inputs,
        })
    }

    /// The request's tensors in the signature's order, each there once.
    fn in_order(&self, request: &mut InferRequest) -> Result<Vec<Tensor>, Status> {
        let mut places: SmallVec<[Option<Tensor>; 4]> = SmallVec::new();
        places.resize_with(self.signature.inputs.len(), || None);
        for given in request.inputs.drain(..) {
            let found = self.signature.input(&given.name);
            let place = found.and_then(|(position, _)| places.get_mut(position));
            match place {
                None => return Err(self.unknown("input", &given.name, &self.signature.inputs)),
                Some(Some(_)) => {
                    return Err(self.wrong(format!("input {:?} is given twice", given.name)));
                }
                Some(place) => *place = Some(given.tensor),
            }
        }
        self.make_mask(&mut places);
        let mut inputs = Vec::with_capacity(places.len());
        for (spec, place) in self.signature.inputs.iter().zip(places) {
            inputs.push(place.ok_or_else(|| self.wrong(format!("input {spec} is missing")))?);
        }
        Ok(inputs)
    }

    /// Makes the mask if the request does not bring it: everything that came is the rows' own.
    fn make_mask(&self, places: &mut [Option<Tensor>]) {
        let Some(padding) = &self.stacking.padding else {
            return;
        };
        let size = |tensor: &Tensor, axis: usize| usize::try_from(*tensor.shape.get(axis)?).ok();
        let mut others = places.iter().enumerate();
        let found = others.find_map(|(position, place)| {
            let (tensor, axis) = (place.as_ref()?, padding.input_axis(position)?);
            let bytes = tensor.data.len();
            let (rows, length) = (size(tensor, 0)?, size(tensor, axis)?);
            // What a shape says is not believed before there is as much.
            (rows.checked_mul(length)? <= bytes).then_some((rows, length))
        });
        let Some((rows, length)) = found else {
            return;
        };
        let specs = self.signature.inputs.iter().enumerate();
        for ((position, spec), place) in specs.zip(places) {
            if place.is_none() && padding.is_mask(position) {
                *place = padding.ones(spec, rows, length);
            }
        }
    }

    fn check_tensor(&self, spec: &TensorSpec, tensor: &Tensor) -> Result<(), Status> {
        if tensor.dtype != spec.dtype {
            return Err(self.wrong(format!(
                "input {:?} is {} where the model takes {}",
                spec.name, tensor.dtype, spec.dtype
            )));
        }
        let rank = spec.dimensions.len();
        let admitted = tensor.shape.len() == rank
            && spec
                .dimensions
                .iter()
                .zip(tensor.shape.iter())
                .all(|(dimension, size)| dimension.admits(*size));
        if !admitted {
            return Err(self.wrong(format!(
                "input {:?} has shape {} where the model takes {}",
                spec.name,
                tensor.shape,
                Shape::new(&spec.protocol_shape())
            )));
        }
        self.check_length(spec, tensor)
    }

    fn check_length(&self, spec: &TensorSpec, tensor: &Tensor) -> Result<(), Status> {
        let Some(count) = elements(&tensor.shape) else {
            return Err(self.wrong(format!(
                "input {:?} has shape {}, which is more elements than can be counted",
                spec.name, tensor.shape
            )));
        };
        let Some(size) = tensor.dtype.size() else {
            return self.check_bytes(spec, tensor, count);
        };
        let expected = count.saturating_mul(size);
        if expected != tensor.data.len() {
            return Err(self.wrong(format!(
                "input {:?} of shape {} takes {expected} bytes ({count} elements of {size}), and {} came",
                spec.name,
                tensor.shape,
                tensor.data.len()
            )));
        }
        Ok(())
    }

    fn check_bytes(&self, spec: &TensorSpec, tensor: &Tensor, count: usize) -> Result<(), Status> {
        let found = BytesElements::new(&tensor.data)
            .count_elements()
            .map_err(|error| self.wrong(format!("input {:?}: {error}", spec.name)))?;
        if found != count {
            return Err(self.wrong(format!(
                "input {:?} of shape {} takes {count} elements, and {found} came",
                spec.name, tensor.shape
            )));
        }
        Ok(())
    }

    /// Dimensions that the model gives one name must have one size: ONNX Runtime would find out
    /// too, but only in the middle of a batch.
    fn check_symbols(&self, inputs: &[Tensor]) -> Result<(), Status> {
        let mut known: SmallVec<[(&str, i64, &str); 8]> = SmallVec::new();
        for (spec, tensor) in self.signature.inputs.iter().zip(inputs) {
            for (dimension, size) in spec.dimensions.iter().zip(tensor.shape.iter()) {
                if dimension.symbol.is_empty() || dimension.size.is_some() {
                    continue;
                }
                match known.iter().find(|known| known.0 == dimension.symbol) {
                    None => known.push((&dimension.symbol, *size, &spec.name)),
                    Some((_, same, _)) if same == size => {}
                    Some((symbol, other, name)) => {
                        return Err(self.wrong(format!(
                            "dimension {symbol} is {other} in input {name:?} and {size} in input {:?}",
                            spec.name
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    fn rows(&self, inputs: &[Tensor], max_batch_size: usize) -> Result<usize, Status> {
        if !self.stacking.batched {
            return Ok(1);
        }
        let first = |tensor: &Tensor| tensor.shape.first().copied().unwrap_or(0);
        let rows = inputs.first().map_or(0, first);
        if let Some(position) = inputs.iter().position(|tensor| first(tensor) != rows) {
            let name = |position: usize| {
                self.signature
                    .inputs
                    .get(position)
                    .map_or("", |spec| spec.name.as_str())
            };
            return Err(self.wrong(format!(
                "input {:?} has {rows} rows and input {:?} has another number",
                name(0),
                name(position)
            )));
        }
        match usize::try_from(rows) {
            Ok(rows) if (1..=max_batch_size).contains(&rows) => Ok(rows),
            _ => Err(self.wrong(format!(
                "the request has {rows} rows where 1 to {max_batch_size} (max_batch_size) are taken"
            ))),
        }
    }

    /// How long the rows are: one length in all inputs that are padded.
    fn length(&self, inputs: &[Tensor], rows: usize) -> Result<usize, Status> {
        let Some(padding) = &self.stacking.padding else {
            return Ok(1);
        };
        let lengths = inputs.iter().enumerate().filter_map(|(position, tensor)| {
            let axis = padding.input_axis(position)?;
            Some((position, tensor.shape.get(axis).copied().unwrap_or(0)))
        });
        let mut length = None;
        for (position, own) in lengths {
            if *length.get_or_insert(own) != own {
                let spec = self.signature.inputs.get(position);
                return Err(self.wrong(format!(
                    "input {:?} is {own} long where another is {}",
                    spec.map_or("", |spec| spec.name.as_str()),
                    length.unwrap_or(0)
                )));
            }
        }
        let length = usize::try_from(length.unwrap_or(0)).unwrap_or(0);
        if length == 0 {
            return Err(self.wrong("the request has no length where rows are padded".to_owned()));
        }
        if let Some(longest) = padding.lengths.last().filter(|longest| **longest < length) {
            return Err(self.wrong(format!(
                "the request is {length} long where at most {longest} (padding.lengths) is taken"
            )));
        }
        let tokens = rows.saturating_mul(round_up(&padding.lengths, length));
        if tokens > padding.max_batch_tokens {
            return Err(self.wrong(format!(
                "the request has {rows} rows of {length}, {tokens} tokens, where at most {} \
                 (padding.max_batch_tokens) are taken",
                padding.max_batch_tokens
            )));
        }
        Ok(length)
    }

    /// A hash over every dimension but the rows and what is padded. Its key is random, so that a client cannot make
    /// two shapes collide; if they did, stacking would notice and fail the batch.
    fn class(&self, inputs: &[Tensor]) -> ShapeClass {
        if !self.shaped || !self.stacking.batched {
            return ShapeClass(0);
        }
        let mut hasher = self.hasher.build_hasher();
        for (position, tensor) in inputs.iter().enumerate() {
            let padded = self.stacking.input_axis(position);
            for (axis, dimension) in tensor.shape.iter().enumerate().skip(1) {
                if Some(axis) != padded {
                    hasher.write_i64(*dimension);
                }
            }
            hasher.write_u8(u8::MAX);
        }
        ShapeClass(hasher.finish())
    }

    fn wanted(&self, names: &[String]) -> Result<SmallVec<[usize; 4]>, Status> {
        if names.is_empty() {
            return Ok((0..self.signature.outputs.len()).collect());
        }
        let mut wanted: SmallVec<[usize; 4]> = SmallVec::new();
        for name in names {
            let Some((position, _)) = self.signature.output(name) else {
                return Err(self.unknown("output", name, &self.signature.outputs));
            };
            if wanted.contains(&position) {
                return Err(self.wrong(format!("output {name:?} is requested twice")));
            }
            wanted.push(position);
        }
        Ok(wanted)
    }

    fn unknown(&self, kind: &str, name: &str, specs: &[TensorSpec]) -> Status {
        let known: Vec<String> = specs.iter().map(ToString::to_string).collect();
        // A name can be as long as the message that brought it.
        let name: String = name.chars().take(64).collect();
        self.wrong(format!(
            "there is no {kind} {name:?}; the model has {}",
            known.join(", ")
        ))
    }

    fn wrong(&self, what: String) -> Status {
        Status::invalid(format!("model {:?}: {what}", self.model))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Dimension, PaddingPolicy};
    use crate::serving::padding::Padding;
    use crate::serving::request::NamedTensor;
    use crate::status::Code;
    use crate::tensor::{Dtype, append_element};

    fn spec(name: &str, dtype: Dtype, dimensions: Vec<Dimension>) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype,
            dimensions,
        }
    }

    fn check() -> InputCheck {
        let batch = || Dimension::varying("batch");
        let sequence = || Dimension::varying("sequence");
        let signature = Signature {
            inputs: vec![
                spec("ids", Dtype::Int16, vec![batch(), sequence()]),
                spec("mask", Dtype::Bool, vec![batch(), sequence()]),
                spec("text", Dtype::Bytes, vec![batch(), Dimension::fixed(1)]),
            ],
            outputs: vec![
                spec("y", Dtype::Fp32, vec![batch()]),
                spec("z", Dtype::Fp32, vec![batch()]),
            ],
        };
        assert!(signature.batching().is_rows());
        InputCheck::new("m", signature, stacking(None))
    }

    fn stacking(padding: Option<Padding>) -> Arc<Stacking> {
        Arc::new(Stacking {
            batched: true,
            padding,
            ..Stacking::default()
        })
    }

    /// The same model, with sequences padded.
    fn padded() -> InputCheck {
        let signature = check().signature;
        let policy = PaddingPolicy {
            dimension: Some("sequence".to_owned()),
            mask: Some("mask".to_owned()),
            lengths: vec![4, 8],
            max_batch_tokens: Some(16),
            ..PaddingPolicy::default()
        };
        let padding = Padding::resolve(&policy, &signature).unwrap();
        InputCheck::new("m", signature, stacking(Some(padding)))
    }

    #[test]
    fn rows_of_different_lengths_are_of_one_class() {
        let check = padded();
        let short = check.check(&mut sound(1, 3), 4).unwrap();
        let long = check.check(&mut sound(2, 8), 4).unwrap();
        assert_eq!(short.class, long.class);
        assert_eq!((short.length, long.length), (3, 8));
    }

    #[test]
    fn a_mask_is_made_where_none_comes() {
        let mut request = sound(2, 3);
        request.inputs.remove(1);
        let checked = padded().check(&mut request, 4).unwrap();
        assert_eq!(checked.inputs[1].shape, Shape::new(&[2, 3]));
        assert_eq!(checked.inputs[1].data[..], [1; 6]);
        // Not on the word of a shape alone.
        let mut request = sound(2, 3);
        request.inputs.remove(1);
        request.inputs[1].tensor.shape = Shape::new(&[1 << 20, 1 << 40]);
        assert!(padded().check(&mut request, 4).is_err());
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let message = |rows, length| {
            padded()
                .check(&mut sound(rows, length), 4)
                .unwrap_err()
                .message
        };
        assert_eq!(
            message(1, 9),
            r#"model "m": the request is 9 long where at most 8 (padding.lengths) is taken"#
        );
        assert_eq!(
            message(3, 5),
            r#"model "m": the request has 3 rows of 5, 24 tokens, where at most 16 (padding.max_batch_tokens) are taken"#
        );
        assert!(message(1, 0).contains("no length"));
    }

    fn named(name: &str, dtype: Dtype, shape: &[i64], data: Vec<u8>) -> NamedTensor {
        NamedTensor {
            name: name.to_owned(),
            tensor: Tensor {
                dtype,
                shape: Shape::new(shape),
                data: Bytes::from(data),
            },
        }
    }

    fn words(count: usize) -> Vec<u8> {
        let mut raw = Vec::new();
        for _ in 0..count {
            append_element(&mut raw, b"word");
        }
        raw
    }

    fn sound(rows: usize, length: usize) -> InferRequest {
        let shape = [rows as i64, length as i64];
        InferRequest {
            inputs: vec![
                named("text", Dtype::Bytes, &[rows as i64, 1], words(rows)),
                named("mask", Dtype::Bool, &shape, vec![1; rows * length]),
                named("ids", Dtype::Int16, &shape, vec![0; rows * length * 2]),
            ],
            ..InferRequest::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut InferRequest)) -> String {
        let mut request = sound(2, 3);
        change(&mut request);
        let status = check().check(&mut request, 4).unwrap_err();
        assert_eq!(status.code, Code::InvalidArgument);
        status.message
    }

    #[test]
    fn a_sound_request_is_put_in_order() {
        let check = check();
        let checked = check.check(&mut sound(2, 3), 4).unwrap();
        assert_eq!(checked.rows, 2);
        assert_eq!(checked.inputs[0].dtype, Dtype::Int16);
        assert_eq!(checked.outputs.as_slice(), [0, 1]);
        let same = check.check(&mut sound(1, 3), 4).unwrap();
        let other = check.check(&mut sound(2, 4), 4).unwrap();
        assert_eq!(checked.class, same.class);
        assert_ne!(checked.class, other.class);
    }

    #[test]
    fn outputs_come_as_requested() {
        let mut request = sound(1, 1);
        request.outputs = vec!["z".to_owned()];
        assert_eq!(
            check().check(&mut request, 4).unwrap().outputs.as_slice(),
            [1]
        );
        let unknown = refusal(|request| request.outputs = vec!["w".to_owned()]);
        assert_eq!(
            unknown,
            r#"model "m": there is no output "w"; the model has y FP32 [-1], z FP32 [-1]"#
        );
        let twice = refusal(|request| request.outputs = vec!["y".to_owned(), "y".to_owned()]);
        assert_eq!(twice, r#"model "m": output "y" is requested twice"#);
    }

    #[test]
    fn every_mistake_names_itself() {
        let missing = refusal(|request| drop(request.inputs.pop()));
        assert_eq!(missing, r#"model "m": input ids INT16 [-1,-1] is missing"#);
        let twice = refusal(|request| request.inputs.push(request.inputs[0].clone()));
        assert_eq!(twice, r#"model "m": input "text" is given twice"#);
        let unknown = refusal(|request| request.inputs[0].name = "nobody".to_owned());
        assert!(unknown.starts_with(r#"model "m": there is no input "nobody"; the model has ids"#));
        let dtype = refusal(|request| request.inputs[2].tensor.dtype = Dtype::Fp16);
        assert_eq!(
            dtype,
            r#"model "m": input "ids" is FP16 where the model takes INT16"#
        );
        let rank = refusal(|request| request.inputs[2].tensor.shape = Shape::new(&[6]));
        assert_eq!(
            rank,
            r#"model "m": input "ids" has shape [6] where the model takes [-1,-1]"#
        );
        let negative = refusal(|request| request.inputs[2].tensor.shape = Shape::new(&[2, -3]));
        assert_eq!(
            negative,
            r#"model "m": input "ids" has shape [2,-3] where the model takes [-1,-1]"#
        );
        let overflow = refusal(|request| {
            request.inputs[2].tensor.shape = Shape::new(&[i64::MAX, i64::MAX]);
        });
        assert!(
            overflow.ends_with("which is more elements than can be counted"),
            "{overflow}"
        );
        let short = refusal(|request| request.inputs[2].tensor.data.truncate(11));
        assert_eq!(
            short,
            r#"model "m": input "ids" of shape [2,3] takes 12 bytes (6 elements of 2), and 11 came"#
        );
        let words = refusal(|request| request.inputs[0].tensor.data = words(3).into());
        assert_eq!(
            words,
            r#"model "m": input "text" of shape [2,1] takes 2 elements, and 3 came"#
        );
        let torn = refusal(|request| request.inputs[0].tensor.data.truncate(9));
        assert!(
            torn.contains("element 1 announces 4 bytes where 1 are left"),
            "{torn}"
        );
    }

    #[test]
    fn rows_and_named_dimensions_must_agree() {
        let sequence = refusal(|request| {
            request.inputs[1] = named("mask", Dtype::Bool, &[2, 4], vec![1; 8]);
        });
        assert_eq!(
            sequence,
            r#"model "m": dimension sequence is 3 in input "ids" and 4 in input "mask""#
        );
        let many = check().check(&mut sound(5, 1), 4).unwrap_err();
        assert_eq!(
            many.message,
            r#"model "m": the request has 5 rows where 1 to 4 (max_batch_size) are taken"#
        );
        assert!(check().check(&mut sound(0, 1), 4).is_err());
    }
}
