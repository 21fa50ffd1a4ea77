//! What a stateful model takes beside what clients send, and what it gives beside what they see.
//!
//! A model keeps nothing between runs. What a sequence has kept goes in as inputs like any other and
//! comes out as outputs, so that requests of different sequences share batches on any executor.

use std::collections::HashSet;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use bytes::Bytes;

use super::padding::{Element, element};
use super::request::{CorrelationId, InSequence};
use crate::model::{
    Choice, ControlKind, Dimension, SequenceControl, SequencePolicy, SequenceState, Signature,
    TensorSpec, WarmUpPolicy, WarmUpShape,
};
use crate::scheduler::ShapeClass;
use crate::status::Status;
use crate::tensor::{BytesElements, Dtype, Shape, Tensor, append_element, elements};

/// What a stateful model takes and gives, and where it comes from and goes to.
#[derive(Debug)]
pub(super) struct Stateful {
    /// What clients send and see.
    pub(super) client: Signature,
    /// In the order of the model's inputs.
    inputs: Vec<Source>,
    /// In the order of the model's outputs: whether clients see it.
    visible: Vec<bool>,
    states: Vec<State>,
    max_state_bytes: usize,
    /// Whether states vary in shape, so that not all can share a batch.
    shaped: bool,
    hasher: RandomState,
}

/// Where an input comes from.
#[derive(Debug)]
enum Source {
    Client,
    /// The number of the state.
    State(usize),
    Start([Tensor; 2]),
    End([Tensor; 2]),
    Always(Tensor),
    CorrelationId(TensorSpec, Shape),
}

#[derive(Debug)]
struct State {
    initial: Tensor,
    input: TensorSpec,
    /// The output's position.
    output: usize,
}

impl Stateful {
    /// What the policy means for a model that takes and gives `whole`, whose requests are put
    /// together by rows or not; or why it means nothing. Files are read from `folder`.
    pub(super) fn resolve(
        policy: &SequencePolicy,
        whole: &Signature,
        batched: bool,
        folder: &Path,
    ) -> Result<Self, String> {
        check_names(policy, whole)?;
        let mut states = Vec::new();
        for state in &policy.states {
            states.push(resolve_state(state, policy, whole, batched, folder)?);
        }
        let mut inputs = Vec::new();
        for spec in &whole.inputs {
            inputs.push(source(policy, spec, batched)?);
        }
        let visible = whole.outputs.iter().map(|spec| {
            let state = policy.states.iter().find(|state| state.output == spec.name);
            state.is_none_or(|state| state.visible)
        });
        let visible: Vec<bool> = visible.collect();
        let sent = whole.inputs.iter().zip(&inputs);
        let seen = whole.outputs.iter().zip(&visible);
        let client = Signature {
            inputs: sent
                .filter(|(_, source)| matches!(source, Source::Client))
                .map(|(spec, _)| spec.clone())
                .collect(),
            outputs: seen
                .filter(|(_, visible)| **visible)
                .map(|(spec, _)| spec.clone())
                .collect(),
        };
        let resolved = Self {
            client,
            inputs,
            visible,
            shaped: states.iter().any(|state| varies(&state.input, batched)),
            states,
            max_state_bytes: policy.max_state_bytes,
            hasher: RandomState::new(),
        };
        resolved.check_bytes(resolved.initial().iter())?;
        Ok(resolved)
    }

    /// What a sequence has kept before its first request.
    pub(super) fn initial(&self) -> Vec<Tensor> {
        let states = self.states.iter();
        states.map(|state| state.initial.clone()).collect()
    }

    /// Everything that the model takes: what the client sent, where it stands in its sequence, and
    /// what the sequence has kept.
    pub(super) fn inputs(
        &self,
        sent: Vec<Tensor>,
        sequence: &InSequence,
        states: &[Tensor],
    ) -> Result<Vec<Tensor>, String> {
        let mut sent = sent.into_iter();
        let mut inputs = Vec::with_capacity(self.inputs.len());
        for source in &self.inputs {
            inputs.extend(match source {
                Source::Client => sent.next(),
                Source::State(number) => states.get(*number).cloned(),
                Source::Start(told) => Some(chosen(told, sequence.start)),
                Source::End(told) => Some(chosen(told, sequence.end)),
                Source::Always(told) => Some(told.clone()),
                Source::CorrelationId(spec, shape) => Some(named(spec, shape, &sequence.id)?),
            });
        }
        Ok(inputs)
    }

    /// The same for the first request of a sequence.
    pub(super) fn first_inputs(&self, sent: Vec<Tensor>) -> Result<Vec<Tensor>, String> {
        let first = InSequence {
            id: CorrelationId::Number(1),
            start: true,
            end: false,
        };
        self.inputs(sent, &first, &self.initial())
    }

    /// With whom a request can share a run, if its class without its states is `class`.
    pub(super) fn class(&self, class: ShapeClass, states: &[Tensor]) -> ShapeClass {
        if !self.shaped {
            return class;
        }
        let shapes: Vec<&Shape> = states.iter().map(|state| &state.shape).collect();
        ShapeClass(self.hasher.hash_one((class.0, shapes)))
    }

    /// A model's outputs: those that clients see, and what is kept, without the batch around it.
    pub(super) fn split(&self, outputs: Vec<Tensor>) -> Result<(Vec<Tensor>, Vec<Tensor>), Status> {
        let mut states = Vec::with_capacity(self.states.len());
        for state in &self.states {
            let kept = outputs.get(state.output);
            let kept = kept.ok_or_else(|| Status::internal("an output is missing"))?;
            if !fits(&state.input, &kept.shape) {
                return Err(Status::internal(format!(
                    "the state that came out has shape {}, which does not fit input {}",
                    kept.shape, state.input
                )));
            }
            states.push(kept);
        }
        self.check_bytes(states.iter().copied())
            .map_err(Status::internal)?;
        // A slice would keep the whole batch's outputs in memory.
        let states = states.into_iter().map(|kept| Tensor {
            data: Bytes::copy_from_slice(&kept.data),
            ..kept.clone()
        });
        let states = states.collect();
        let seen = outputs.into_iter().zip(&self.visible);
        let seen = seen.filter_map(|(output, visible)| visible.then_some(output));
        Ok((seen.collect(), states))
    }

    fn check_bytes<'a>(&self, states: impl Iterator<Item = &'a Tensor>) -> Result<(), String> {
        let bytes: usize = states.map(|state| state.data.len()).sum();
        if bytes <= self.max_state_bytes {
            return Ok(());
        }
        Err(too_large(bytes, self.max_state_bytes))
    }
}

/// The policy with the shapes that states begin with, to make up inputs by.
pub(super) fn made_up(
    policy: &WarmUpPolicy,
    sequence: &SequencePolicy,
    whole: &Signature,
    batched: bool,
) -> WarmUpPolicy {
    let mut policy = policy.clone();
    for state in &sequence.states {
        let stated = policy.shapes.iter().any(|shape| shape.input == state.input);
        if let Some((_, spec)) = whole.input(&state.input)
            && !stated
        {
            policy.shapes.push(WarmUpShape {
                input: state.input.clone(),
                dimensions: inner(state, spec, batched),
            });
        }
    }
    policy
}

fn too_large(bytes: usize, most: usize) -> String {
    format!(
        "a sequence's state takes {bytes} bytes where at most {most} (sequence.max_state_bytes) are kept"
    )
}

fn check_names(policy: &SequencePolicy, whole: &Signature) -> Result<(), String> {
    let states = policy.states.iter();
    let inputs = states.clone().map(|state| &state.input);
    let told = policy.controls.iter().map(|control| &control.input);
    check_each("input", inputs.chain(told), &whole.inputs)?;
    check_each("output", states.map(|state| &state.output), &whole.outputs)?;
    let mut kinds = HashSet::new();
    for control in &policy.controls {
        if !kinds.insert(std::mem::discriminant(&control.kind)) {
            let input = &control.input;
            return Err(format!(
                "input {input:?} is told what another is told already"
            ));
        }
    }
    Ok(())
}

fn check_each<'a>(
    what: &str,
    names: impl Iterator<Item = &'a String>,
    specs: &[TensorSpec],
) -> Result<(), String> {
    let mut known = HashSet::new();
    for name in names {
        if !specs.iter().any(|spec| spec.name == *name) {
            let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
            let specs = specs.join(", ");
            return Err(format!(
                "there is no {what} {name:?}; the model has {specs}"
            ));
        }
        if !known.insert(name) {
            return Err(format!("{what} {name:?} is named twice"));
        }
    }
    Ok(())
}

fn resolve_state(
    state: &SequenceState,
    policy: &SequencePolicy,
    whole: &Signature,
    batched: bool,
    folder: &Path,
) -> Result<State, String> {
    let missing = || format!("state {:?} is not there", state.input);
    let (_, input) = whole.input(&state.input).ok_or_else(missing)?;
    let (output, from) = whole.output(&state.output).ok_or_else(missing)?;
    if !agree(input, from) {
        return Err(format!(
            "state {input} comes out of {from}: both have to be of one type and shape"
        ));
    }
    Ok(State {
        initial: initial(state, policy, input, batched, folder)?,
        input: input.clone(),
        output,
    })
}

/// Whether what comes out can go in.
fn agree(input: &TensorSpec, output: &TensorSpec) -> bool {
    let same =
        |(a, b): (&Dimension, &Dimension)| a.size.is_none() || b.size.is_none() || a.size == b.size;
    input.dtype == output.dtype
        && input.dimensions.len() == output.dimensions.len()
        && input.dimensions.iter().zip(&output.dimensions).all(same)
}

fn fits(spec: &TensorSpec, shape: &Shape) -> bool {
    let mut dimensions = spec.dimensions.iter().zip(shape.iter());
    spec.dimensions.len() == shape.len() && dimensions.all(|(own, size)| own.admits(*size))
}

/// Whether a dimension other than the rows varies.
fn varies(spec: &TensorSpec, batched: bool) -> bool {
    let mut inner = spec.dimensions.iter().skip(usize::from(batched));
    inner.any(|dimension| dimension.size.is_none())
}

/// The dimensions that a state begins with, without the rows: 1 where nothing says more.
fn inner(state: &SequenceState, spec: &TensorSpec, batched: bool) -> Vec<i64> {
    if let Some(shape) = &state.shape {
        return shape.clone();
    }
    let inner = spec.dimensions.iter().skip(usize::from(batched));
    inner
        .map(|dimension| dimension.size.map_or(1, |_| dimension.protocol()))
        .collect()
}

fn initial(
    state: &SequenceState,
    policy: &SequencePolicy,
    spec: &TensorSpec,
    batched: bool,
    folder: &Path,
) -> Result<Tensor, String> {
    let rows: &[i64] = if batched { &[1] } else { &[] };
    let shape = Shape::new(&[rows, &inner(state, spec, batched)].concat());
    if !fits(spec, &shape) {
        return Err(format!("state {spec} cannot begin with shape {shape}"));
    }
    let most = policy.max_state_bytes;
    let count = elements(&shape).unwrap_or(usize::MAX);
    let bytes = count.saturating_mul(spec.dtype.size().unwrap_or(4));
    if bytes > most {
        return Err(too_large(bytes, most));
    }
    let data = match &state.initial_file {
        None => vec![0; bytes],
        Some(file) => contents(&folder.join(file), spec, count, most)?,
    };
    Ok(Tensor {
        dtype: spec.dtype,
        shape,
        data: data.into(),
    })
}

/// A file's elements, in the protocol's raw form.
fn contents(file: &Path, spec: &TensorSpec, count: usize, most: usize) -> Result<Vec<u8>, String> {
    let cannot = |error| format!("{}: {error}", file.display());
    let length = fs::metadata(file).map_err(cannot)?.len();
    let fixed = spec.dtype.size().map(|size| count.saturating_mul(size));
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > most || fixed.is_some_and(|fixed| fixed != length) {
        return Err(format!(
            "{} has {length} bytes where state {spec} takes {}",
            file.display(),
            fixed.unwrap_or(most)
        ));
    }
    let data = fs::read(file).map_err(cannot)?;
    if fixed.is_none() && BytesElements::new(&data).count_elements() != Ok(count) {
        let file = file.display();
        return Err(format!(
            "{file} is not {count} BYTES elements, each behind its length in four bytes"
        ));
    }
    Ok(data)
}

fn source(policy: &SequencePolicy, spec: &TensorSpec, batched: bool) -> Result<Source, String> {
    let mut states = policy.states.iter();
    if let Some(number) = states.position(|state| state.input == spec.name) {
        return Ok(Source::State(number));
    }
    let mut controls = policy.controls.iter();
    match controls.find(|control| control.input == spec.name) {
        Some(control) => told(control, spec, batched),
        None => Ok(Source::Client),
    }
}

/// What a control input is told.
fn told(control: &SequenceControl, spec: &TensorSpec, batched: bool) -> Result<Source, String> {
    let shape = single(spec, batched)
        .ok_or_else(|| format!("control {spec} has to have one element for each request"))?;
    let one = |value: f64| {
        let element = element(spec.dtype, value)
            .ok_or_else(|| format!("control {spec} cannot be told {value}"))?;
        Ok::<_, String>(tensor(spec.dtype, &shape, &element))
    };
    let both = |Choice { no, yes }: Choice| Ok::<_, String>([one(no)?, one(yes)?]);
    Ok(match control.kind {
        ControlKind::Start(choice) => Source::Start(both(choice)?),
        ControlKind::End(choice) => Source::End(both(choice)?),
        ControlKind::Ready(choice) => Source::Always(one(choice.yes)?),
        ControlKind::CorrelationId => match spec.dtype {
            Dtype::Uint64 | Dtype::Int64 | Dtype::Uint32 | Dtype::Int32 | Dtype::Bytes => {
                Source::CorrelationId(spec.clone(), shape)
            }
            _ => {
                return Err(format!(
                    "control {spec} cannot be told a correlation id: UINT64, INT64, UINT32, INT32 \
                     and BYTES can"
                ));
            }
        },
    })
}

/// The shape of one element for one request.
fn single(spec: &TensorSpec, batched: bool) -> Option<Shape> {
    let one = |dimension: &Dimension| dimension.size.is_none_or(|size| size == 1);
    let rows = spec.dimensions.len() >= usize::from(batched);
    let fits = rows && spec.dimensions.iter().all(one);
    fits.then(|| Shape::new(&vec![1; spec.dimensions.len()]))
}

fn tensor(dtype: Dtype, shape: &Shape, element: &Element) -> Tensor {
    Tensor {
        dtype,
        shape: shape.clone(),
        data: Bytes::copy_from_slice(element),
    }
}

fn chosen([no, yes]: &[Tensor; 2], is: bool) -> Tensor {
    if is { yes.clone() } else { no.clone() }
}

/// A correlation id as its control takes it.
fn named(spec: &TensorSpec, shape: &Shape, id: &CorrelationId) -> Result<Tensor, String> {
    let bytes = match (id, spec.dtype) {
        (CorrelationId::Text(text), Dtype::Bytes) => Some(raw(text)),
        (CorrelationId::Number(number), Dtype::Bytes) => Some(raw(&number.to_string())),
        (CorrelationId::Text(_), _) => None,
        (CorrelationId::Number(number), dtype) => whole_number(*number, dtype),
    };
    let bytes = bytes.ok_or_else(|| {
        let dtype = spec.dtype;
        format!("sequence {id} has a correlation id that is not {dtype}, as the model takes it")
    })?;
    Ok(tensor(spec.dtype, shape, &bytes))
}

fn raw(text: &str) -> Element {
    let mut raw = Vec::new();
    append_element(&mut raw, text.as_bytes());
    Element::from_vec(raw)
}

fn whole_number(number: u64, dtype: Dtype) -> Option<Element> {
    Some(match dtype {
        Dtype::Uint64 => Element::from_slice(&number.to_le_bytes()),
        Dtype::Int64 => Element::from_slice(&i64::try_from(number).ok()?.to_le_bytes()),
        Dtype::Uint32 => Element::from_slice(&u32::try_from(number).ok()?.to_le_bytes()),
        Dtype::Int32 => Element::from_slice(&i32::try_from(number).ok()?.to_le_bytes()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
