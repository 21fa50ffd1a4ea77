//! How requests of different lengths become one run, laid end to end without a batch dimension, and how
//! the run's outputs are cut for each.
//!
//! The configuration says which inputs and outputs these are; here is found what that means for a model.
//! The forms are those of Triton's ragged batching.

mod lay;
mod padded;

pub(super) use lay::{laid_shape, make, rows_shape};

use super::loading::LoadFailure;
use super::trial::{Trial, Verdict};
use crate::backend::Executor;
use crate::model::{
    BatchAxis, BatchInput, BatchInputKind, Batching, Dimension, ModelPolicy, RaggedPolicy,
    Signature, TensorPolicy, TensorSpec, TensorsPolicy, declared,
};
use crate::tensor::Dtype;

/// How one model's requests become one run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ragged {
    /// What clients send and see.
    pub(super) client: Signature,
    /// In the order of the model's inputs.
    parts: Vec<Part>,
    /// In the order of the outputs: those that are cut otherwise than by rows.
    cuts: Vec<Option<Cut>>,
}

/// Where an input of the model comes from. Inputs of requests are known by their position among those
/// that clients send.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    pub(super) dtype: Dtype,
    pub(super) from: Origin,
}

/// Where an input of the model comes from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Origin {
    /// Rows behind each other.
    Rows(usize),
    /// Elements behind each other, in one dimension.
    Elements(usize),
    /// Made of an input.
    Made(BatchInputKind, usize),
}

/// How an output is cut.
#[derive(Clone, Debug, PartialEq)]
struct Cut {
    /// The input whose shape a request's share has.
    source: usize,
    /// The shape; none where it is the input's.
    shape: Vec<Option<i64>>,
}

impl Ragged {
    /// How a model's requests are laid end to end, if they are. Where their inputs keep a batch dimension
    /// they are padded instead, and the policy says so afterwards.
    pub(super) fn of(policy: &mut ModelPolicy, whole: &Signature) -> Result<Option<Self>, String> {
        let Some(ragged) = &policy.ragged else {
            return Ok(None);
        };
        check_names(ragged, &policy.tensors, whole)?;
        if let Some(padding) = padded::padded(ragged, policy.padding.as_ref(), whole)? {
            policy.padding = Some(padding);
            return Ok(None);
        }
        Self::resolve(ragged, &policy.tensors, whole).map(Some)
    }

    /// What the policy, whose names are the model's, means for one that takes and gives `whole`; or why it
    /// means nothing.
    fn resolve(
        policy: &RaggedPolicy,
        tensors: &TensorsPolicy,
        whole: &Signature,
    ) -> Result<Self, String> {
        let mut client = Signature {
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for spec in &whole.inputs {
            if made(policy, spec).is_none() {
                let is_laid = policy.inputs.contains(&spec.name);
                client.inputs.push(match is_laid {
                    true => seen(spec, declared(&tensors.inputs, &spec.name)),
                    false => spec.clone(),
                });
            }
        }
        let mut parts = Vec::new();
        for spec in &whole.inputs {
            let from = origin(policy, spec, &client)?;
            let dtype = spec.dtype;
            parts.push(Part { dtype, from });
        }
        let mut cuts = Vec::new();
        for spec in &whole.outputs {
            let cut = cut(
                policy,
                spec,
                declared(&tensors.outputs, &spec.name),
                &client,
            )?;
            client.outputs.push(match &cut {
                None => spec.clone(),
                Some(cut) => cut.seen(spec),
            });
            cuts.push(cut);
        }
        Ok(Self {
            client,
            parts,
            cuts,
        })
    }

    /// In the order of the model's inputs.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Whether an input, by its position among those that clients send, loses its shape in a run.
    pub(super) fn is_laid(&self, sent: usize) -> bool {
        let mut parts = self.parts.iter();
        parts.any(|part| part.from == Origin::Elements(sent))
    }

    /// The positions among what clients send of these inputs of the model.
    pub(super) fn sent(&self, inputs: &[usize]) -> Vec<usize> {
        let parts = inputs.iter().filter_map(|input| self.parts.get(*input));
        let sent = parts.filter_map(|part| match part.from {
            Origin::Rows(sent) | Origin::Elements(sent) => Some(sent),
            Origin::Made(..) => None,
        });
        sent.collect()
    }

    /// Whether requests share runs. They are meant to; where answers would change the model is refused.
    pub(super) fn batching(
        &self,
        executor: &mut dyn Executor,
        policy: &ModelPolicy,
        trial: &Trial<'_>,
    ) -> Result<Batching, LoadFailure> {
        if policy.batch.axis == BatchAxis::Unbatched {
            let message = "requests run alone (batch_axis = \"none\")".to_owned();
            return Err(LoadFailure::Ragged(message));
        }
        if let Batching::Alone(reason) = self.client.batching() {
            return Err(LoadFailure::Ragged(reason));
        }
        match trial.rows_are_independent(executor) {
            Verdict::Independent => {}
            Verdict::Dependent(output) => {
                return Err(LoadFailure::Ragged(format!(
                    "output {output} of two requests together differs from each alone"
                )));
            }
            Verdict::Unknown(error) => tracing::warn!(
                error,
                "requests were not tried end to end: the model does not run on made-up inputs; \
                 warm_up.shapes in model.toml names shapes that it takes"
            ),
        }
        Ok(Batching::Rows)
    }
}

fn made<'a>(policy: &'a RaggedPolicy, spec: &TensorSpec) -> Option<&'a BatchInput> {
    let mut made = policy.batch_inputs.iter();
    made.find(|made| made.targets.contains(&spec.name))
}

/// What clients send of an input that is laid end to end: rows of the shape that is declared, or of one
/// length.
fn seen(spec: &TensorSpec, declared: Option<&TensorPolicy>) -> TensorSpec {
    let shape = declared.map_or(&[-1][..], |declared| &declared.shape);
    let model = spec
        .dimensions
        .first()
        .map_or("", |own| own.symbol.as_str());
    // Where the model has one name for two of them they have one length.
    let single = shape.iter().filter(|size| **size < 0).count() == 1 && !model.is_empty();
    let symbol = match single {
        true => format!("{model} in {shape:?}"),
        false => String::new(),
    };
    let own = shape.iter().map(|size| match usize::try_from(*size) {
        Ok(size) => Dimension::fixed(size),
        Err(_) => Dimension::varying(&symbol),
    });
    TensorSpec {
        name: spec.name.clone(),
        dtype: spec.dtype,
        dimensions: std::iter::once(Dimension::varying("")).chain(own).collect(),
    }
}

fn origin(policy: &RaggedPolicy, spec: &TensorSpec, client: &Signature) -> Result<Origin, String> {
    let Some(made) = made(policy, spec) else {
        let sent = position(client, &spec.name)?;
        return Ok(match policy.inputs.contains(&spec.name) {
            true => Origin::Elements(sent),
            false => Origin::Rows(sent),
        });
    };
    if made.dtype != spec.dtype {
        return Err(format!(
            "batch input {:?} is made as {}, and the model takes {spec}",
            spec.name, made.dtype
        ));
    }
    let source = position(client, &made.source)?;
    let inner = client.inputs.get(source);
    let inner = inner.map_or(0, |spec| spec.dimensions.len().saturating_sub(1));
    let fits = match (made.kind, &spec.dimensions[..]) {
        (BatchInputKind::ItemShape, [_, each]) => each.admits(i64::try_from(inner).unwrap_or(-1)),
        (BatchInputKind::ItemShape, _) => false,
        (_, own) => own.len() == 1,
    };
    if !fits {
        let form = match made.kind {
            BatchInputKind::ItemShape => format!("[-1,{inner}]"),
            _ => "[-1]".to_owned(),
        };
        return Err(format!(
            "batch input {:?} is made as {form}, and the model takes {spec}",
            spec.name
        ));
    }
    Ok(Origin::Made(made.kind, source))
}

fn cut(
    policy: &RaggedPolicy,
    spec: &TensorSpec,
    declared: Option<&TensorPolicy>,
    client: &Signature,
) -> Result<Option<Cut>, String> {
    let mut outputs = policy.batch_outputs.iter();
    let Some(found) = outputs.find(|cut| cut.targets.contains(&spec.name)) else {
        return Ok(None);
    };
    let source = position(client, &found.source)?;
    let like = client.inputs.get(source);
    let like = like.map_or(&[][..], |spec| &spec.dimensions);
    let shape: Vec<i64> = match declared {
        Some(declared) => declared.shape.clone(),
        None => like.iter().skip(1).map(Dimension::protocol).collect(),
    };
    let all = std::iter::once(-1).chain(shape);
    let shape: Vec<Option<i64>> = all.map(|size| (size >= 0).then_some(size)).collect();
    let beyond = shape.iter().skip(like.len()).any(Option::is_none);
    if beyond {
        return Err(format!(
            "batch output {:?} varies where its source {:?} has no dimension",
            spec.name, found.source
        ));
    }
    Ok(Some(Cut { source, shape }))
}

impl Cut {
    /// What clients see.
    fn seen(&self, spec: &TensorSpec) -> TensorSpec {
        let dimensions = self.shape.iter().map(|size| {
            let size = size.and_then(|size| usize::try_from(size).ok());
            size.map_or(Dimension::varying(""), Dimension::fixed)
        });
        TensorSpec {
            name: spec.name.clone(),
            dtype: spec.dtype,
            dimensions: dimensions.collect(),
        }
    }
}

fn position(client: &Signature, name: &str) -> Result<usize, String> {
    let found = client.input(name);
    found
        .map(|(position, _)| position)
        .ok_or_else(|| format!("there is no input {name:?} that requests bring"))
}

fn check_names(
    policy: &RaggedPolicy,
    tensors: &TensorsPolicy,
    whole: &Signature,
) -> Result<(), String> {
    let made = policy.batch_inputs.iter().flat_map(|made| &made.targets);
    let mut taken: Vec<&String> = policy.inputs.iter().chain(made).collect();
    for name in &taken {
        if whole.input(name).is_none() {
            return Err(unknown("input", name, &whole.inputs));
        }
    }
    let cut: Vec<&String> = policy
        .batch_outputs
        .iter()
        .flat_map(|cut| &cut.targets)
        .collect();
    for name in &cut {
        if whole.output(name).is_none() {
            return Err(unknown("output", name, &whole.outputs));
        }
    }
    let laid = policy.inputs.iter();
    let inputs = laid.filter_map(|name| declared(&tensors.inputs, name));
    let outputs = cut
        .iter()
        .filter_map(|name| declared(&tensors.outputs, name));
    if let Some(reshaped) = inputs
        .chain(outputs)
        .find(|tensor| tensor.reshape.is_some())
    {
        return Err(format!(
            "{:?} has a reshape, and no shape in a batch; take one of the two out",
            reshaped.name
        ));
    }
    taken.extend(cut);
    taken.sort_unstable();
    match taken.windows(2).find(|pair| pair.first() == pair.last()) {
        Some(twice) => Err(format!("{:?} is given twice", twice.first())),
        None => Ok(()),
    }
}

fn unknown(kind: &str, name: &str, specs: &[TensorSpec]) -> String {
    let known: Vec<String> = specs.iter().map(ToString::to_string).collect();
    format!(
        "there is no {kind} {name:?}; the model has {}",
        known.join(", ")
    )
}

#[cfg(test)]
mod tests;
