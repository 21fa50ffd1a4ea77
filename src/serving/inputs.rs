//! Whether a request fits its model, in every detail that a client can get wrong.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use smallvec::SmallVec;

use super::facade::Facade;
use super::request::{InferRequest, NamedTensor};
use super::stacking::Stacking;
use crate::model::{PaddingPolicy, Signature, TensorSpec, TensorsPolicy, round_up};
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
    /// Positions of masks that the request did not bring.
    pub(super) made: Vec<usize>,
}

/// Checks requests of one version.
#[derive(Debug)]
pub(super) struct InputCheck {
    model: String,
    signature: Signature,
    stacking: Arc<Stacking>,
    /// Whether any dimension varies that is neither counted nor padded nor laid end to end, so that
    /// there is more than one shape class.
    shaped: bool,
    hasher: RandomState,
    /// Positions of the inputs that a request may leave out.
    optional: Vec<usize>,
    /// How clients see the model, if it is otherwise than it is.
    facade: Option<Facade>,
}

impl InputCheck {
    pub(super) fn new(model: &str, signature: Signature, stacking: Arc<Stacking>) -> Self {
        let specs = signature.inputs.iter().enumerate();
        let shaped = specs.into_iter().any(|(position, spec)| {
            let (padded, laid) = (stacking.input_axis(position), stacking.is_laid(position));
            let dimensions = spec.dimensions.iter().enumerate().skip(1);
            let mut others = dimensions.filter(|(axis, _)| Some(*axis) != padded);
            !laid && others.any(|(_, dimension)| dimension.size.is_none())
        });
        Self {
            model: model.to_owned(),
            signature,
            stacking,
            shaped,
            hasher: RandomState::new(),
            optional: Vec::new(),
            facade: None,
        }
    }

    /// The same where clients see the model so.
    pub(super) fn behind(mut self, facade: Option<Facade>) -> Self {
        self.facade = facade;
        self
    }

    /// The same where a request may leave out what the configuration calls optional.
    pub(super) fn leaving_out(mut self, policy: &TensorsPolicy) -> Self {
        let found = policy
            .optional()
            .filter_map(|name| self.signature.input(name));
        self.optional = found.map(|(position, _)| position).collect();
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
        let (mut inputs, made) = self.in_order(request)?;
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
            made,
        })
    }

    /// Gives a request its tensors back, as they were before they were checked.
    pub(super) fn give_back(&self, mut checked: Checked, request: &mut InferRequest) {
        if let Some(facade) = &self.facade {
            facade.give_back(&mut checked.inputs);
        }
        let tensors = checked.inputs.into_iter().enumerate();
        let sent = tensors
            .filter(|(position, tensor)| !tensor.is_absent() && !checked.made.contains(position));
        let specs = &self.signature.inputs;
        let named = sent.filter_map(|(position, tensor)| {
            let name = specs.get(position)?.name.clone();
            Some(NamedTensor { name, tensor })
        });
        request.inputs = named.collect();
    }

    /// The request's tensors in the signature's order, each there once and of the form that it takes; and the
    /// positions of those that were made for it.
    fn in_order(&self, request: &mut InferRequest) -> Result<(Vec<Tensor>, Vec<usize>), Status> {
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
        let made = self.make_masks(&mut places);
        let mut inputs = Vec::with_capacity(places.len());
        let specs = self.signature.inputs.iter().enumerate();
        for ((position, spec), place) in specs.zip(places) {
            let Some(tensor) = place else {
                inputs.push(self.absent(position, spec)?);
                continue;
            };
            self.check_tensor(spec, &tensor)?;
            inputs.push(tensor);
        }
        Ok((inputs, made))
    }

    /// What stands for an input that does not come, if it need not.
    fn absent(&self, position: usize, spec: &TensorSpec) -> Result<Tensor, Status> {
        if !self.optional.contains(&position) {
            return Err(self.wrong(format!("input {spec} is missing")));
        }
        Ok(Tensor::absent(spec.dtype))
    }

    /// Makes the masks that the request does not bring: everything that came is the rows' own. Where they are.
    fn make_masks(&self, places: &mut [Option<Tensor>]) -> Vec<usize> {
        let mut made = Vec::new();
        let Some(padding) = &self.stacking.padding else {
            return made;
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
            return made;
        };
        let specs = self.signature.inputs.iter().enumerate();
        for ((position, spec), place) in specs.zip(places) {
            if place.is_none() && padding.is_mask(position) {
                *place = padding.ones(spec, rows, length);
                made.push(position);
            }
        }
        made
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
        let firsts = inputs.iter().enumerate();
        // What is left out has no dimensions.
        let mut firsts =
            firsts.filter_map(|(position, tensor)| Some((position, *tensor.shape.first()?)));
        let (one, rows) = firsts.next().unwrap_or_default();
        if let Some((other, _)) = firsts.find(|(_, first)| *first != rows) {
            let name = |position: usize| {
                self.signature
                    .inputs
                    .get(position)
                    .map_or("", |spec| spec.name.as_str())
            };
            return Err(self.wrong(format!(
                "input {:?} has {rows} rows and input {:?} has another number",
                name(one),
                name(other)
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
            Some((position, *tensor.shape.get(axis)?))
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
        let (longest, why) = match padding.lengths.last() {
            Some(longest) => (*longest, " (padding.lengths)"),
            None => (PaddingPolicy::LONGEST, ""),
        };
        if length > longest {
            return Err(self.wrong(format!(
                "the request is {length} long where at most {longest}{why} is taken"
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

    /// A hash over what is there, and over every dimension but the rows and what is padded or laid end
    /// to end. Its key is random, so that a client cannot make two shapes collide; if they did, stacking
    /// would notice and fail the batch.
    fn class(&self, inputs: &[Tensor]) -> ShapeClass {
        let one = !self.shaped && self.optional.is_empty();
        if one || !self.stacking.batched {
            return ShapeClass(0);
        }
        let mut hasher = self.hasher.build_hasher();
        let kept = inputs.iter().enumerate();
        for (position, tensor) in kept.filter(|(position, _)| !self.stacking.is_laid(*position)) {
            let padded = self.stacking.input_axis(position);
            for (axis, dimension) in tensor.shape.iter().enumerate().skip(1) {
                if Some(axis) != padded {
                    hasher.write_i64(*dimension);
                }
            }
            hasher.write_u8(if tensor.is_absent() { 0 } else { u8::MAX });
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
mod tests;
