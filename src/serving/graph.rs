//! The graph of an ensemble, checked against the models that it is made of before it serves.

use crate::model::{Batching, EnsemblePolicy, EnsembleStep, Signature, TensorSpec};

/// More runs than this for one request, those of ensembles within ensembles among them, are refused.
const MOST_RUNS: usize = 1024;

/// What a client sees of a version.
#[derive(Clone, Debug)]
pub struct Interface {
    /// What it takes and gives.
    pub signature: Signature,
    /// Whether the first dimension counts independent rows.
    pub batching: Batching,
    /// The most rows of one request.
    pub max_batch_size: usize,
    /// Inputs that a request need not bring.
    pub spare: Vec<String>,
    /// How requests of different lengths share a batch, if they do.
    pub together: Option<&'static str>,
    /// Models that run for one request: 1, but for ensembles.
    pub runs: usize,
}

/// What flows where. Tensors are known by their place: first the inputs, then what the steps give.
#[derive(Debug)]
pub(super) struct Graph {
    /// Each after those whose tensors it takes.
    pub(super) steps: Vec<Step>,
    /// The places of the outputs.
    pub(super) outputs: Vec<usize>,
    /// How many tensors there are.
    pub(super) tensors: usize,
}

/// One run of one model.
#[derive(Debug)]
pub(super) struct Step {
    /// As people know it: its place in the configuration, from 1, and its model.
    pub(super) name: String,
    pub(super) model: String,
    /// As a request says it: a number, or empty for the newest.
    pub(super) version: String,
    /// The model's inputs, and the places of the tensors that they take.
    pub(super) inputs: Vec<(String, usize)>,
    /// The model's outputs that are used.
    pub(super) wanted: Vec<String>,
    /// The places of the tensors that these become.
    pub(super) gives: Vec<usize>,
}

impl Step {
    fn new(
        number: usize,
        step: &EnsembleStep,
        inputs: Vec<(String, usize)>,
        gives: Vec<usize>,
    ) -> Self {
        let number_of = |version: u64| version.to_string();
        Self {
            name: name(number, step),
            model: step.model.clone(),
            version: step.version.map_or(String::new(), number_of),
            inputs,
            wanted: step.outputs.iter().map(|(own, _)| own.clone()).collect(),
            gives,
        }
    }
}

impl Graph {
    /// The graph of `policy`, whose models look like `interfaces`, one for each step, or why there is
    /// none; else every mistake in it.
    pub(super) fn new(
        policy: &EnsemblePolicy,
        interfaces: &[Result<Interface, String>],
    ) -> Result<Self, Vec<String>> {
        let mut draft = Draft::default();
        for spec in &policy.inputs {
            draft.give(&spec.name, "the request", Some(spec));
        }
        let steps = || policy.steps.iter().zip(interfaces).enumerate();
        let gives: Vec<_> = steps()
            .map(|(number, (step, interface))| draft.gives(number, step, interface.as_ref()))
            .collect();
        let takes: Vec<_> = steps()
            .map(|(number, (step, interface))| draft.takes(number, step, interface.as_ref().ok()))
            .collect();
        let outputs = policy.outputs.iter();
        let outputs = outputs.filter_map(|spec| draft.answers(spec)).collect();
        draft.check_used();
        draft.check_runs(interfaces);
        let parts = policy.steps.iter().zip(takes.into_iter().zip(gives));
        let steps = parts.enumerate();
        let steps =
            steps.map(|(number, (step, (inputs, gives)))| Step::new(number, step, inputs, gives));
        let mut graph = Self {
            steps: steps.collect(),
            outputs,
            tensors: draft.tensors.len(),
        };
        if draft.mistakes.is_empty() {
            draft
                .mistakes
                .extend(graph.put_in_order(policy.inputs.len()).err());
        }
        match draft.mistakes.is_empty() {
            true => Ok(graph),
            false => Err(draft.mistakes),
        }
    }

    /// Puts each step after those whose tensors it takes; none can come first in a cycle.
    fn put_in_order(&mut self, inputs: usize) -> Result<(), String> {
        let mut there: Vec<bool> = (0..self.tensors).map(|place| place < inputs).collect();
        let mut waiting = std::mem::take(&mut self.steps);
        while !waiting.is_empty() {
            let is_there = |place: usize| there.get(place).copied().unwrap_or(false);
            let (ready, rest): (Vec<Step>, Vec<Step>) = waiting
                .into_iter()
                .partition(|step| step.inputs.iter().all(|(_, place)| is_there(*place)));
            if ready.is_empty() {
                let names: Vec<String> = rest.into_iter().map(|step| step.name).collect();
                let names = names.join(", ");
                return Err(format!("{names} wait for each other's outputs: a cycle"));
            }
            for place in ready.iter().flat_map(|step| &step.gives) {
                if let Some(there) = there.get_mut(*place) {
                    *there = true;
                }
            }
            self.steps.extend(ready);
            waiting = rest;
        }
        Ok(())
    }
}

fn name(number: usize, step: &EnsembleStep) -> String {
    format!("step {} ({})", number + 1, step.model)
}

/// A tensor, and what is known of it.
struct Source<'a> {
    name: &'a str,
    from: String,
    /// None if the model that gives it is not known, or has no such output.
    spec: Option<TensorSpec>,
    used: bool,
}

/// A graph that is being checked.
#[derive(Default)]
struct Draft<'a> {
    tensors: Vec<Source<'a>>,
    mistakes: Vec<String>,
}

impl<'a> Draft<'a> {
    /// Takes in a tensor, which may come from one place only.
    fn give(&mut self, tensor: &'a str, from: &str, spec: Option<&TensorSpec>) -> usize {
        if let Some((place, source)) = self.find(tensor) {
            let other = source.from.clone();
            self.mistakes.push(format!(
                "{from}: tensor {tensor:?} comes from {other} already"
            ));
            return place;
        }
        self.tensors.push(Source {
            name: tensor,
            from: from.to_owned(),
            spec: spec.cloned(),
            used: false,
        });
        self.tensors.len() - 1
    }

    /// What a step gives.
    fn gives(
        &mut self,
        number: usize,
        step: &'a EnsembleStep,
        interface: Result<&Interface, &String>,
    ) -> Vec<usize> {
        let name = name(number, step);
        if let Err(reason) = interface {
            self.mistakes.push(format!("{name}: {reason}"));
        }
        if step.outputs.is_empty() {
            self.mistakes
                .push(format!("{name}: none of its outputs is used"));
        }
        let signature = interface.ok().map(|interface| &interface.signature);
        let outputs = step.outputs.iter().map(|(own, tensor)| {
            let spec = signature.and_then(|signature| {
                let found = signature.output(own).map(|(_, spec)| spec);
                self.expect(found, &name, "output", own, &signature.outputs)
            });
            self.give(tensor, &name, spec)
        });
        outputs.collect()
    }

    /// What a step takes.
    fn takes(
        &mut self,
        number: usize,
        step: &'a EnsembleStep,
        interface: Option<&Interface>,
    ) -> Vec<(String, usize)> {
        let name = name(number, step);
        let mut places = Vec::new();
        for (own, tensor) in &step.inputs {
            let spec = interface.and_then(|interface| {
                let signature = &interface.signature;
                let found = signature.input(own).map(|(_, spec)| spec);
                self.expect(found, &name, "input", own, &signature.inputs)
            });
            let place = self.take(tensor, &format!("{name}: input {own:?}"), spec);
            places.extend(place.map(|place| (own.clone(), place)));
        }
        let Some(interface) = interface else {
            return places;
        };
        for spec in &interface.signature.inputs {
            let given = step.inputs.iter().any(|(own, _)| *own == spec.name);
            if !given && !interface.spare.contains(&spec.name) {
                self.mistakes
                    .push(format!("{name}: nothing is given to input {spec}"));
            }
        }
        places
    }

    /// What the answer has.
    fn answers(&mut self, spec: &TensorSpec) -> Option<usize> {
        self.take(&spec.name, &format!("output {:?}", spec.name), Some(spec))
    }

    /// The place of a tensor that is used as `spec`.
    fn take(&mut self, tensor: &str, user: &str, spec: Option<&TensorSpec>) -> Option<usize> {
        let found = self.tensors.iter_mut().enumerate();
        let found = found.into_iter().find(|(_, source)| source.name == tensor);
        let Some((place, source)) = found else {
            self.mistakes.push(format!(
                "{user}: tensor {tensor:?} comes from no step, and no request brings it"
            ));
            return None;
        };
        source.used = true;
        if let (Some(given), Some(taken)) = (&source.spec, spec)
            && !fits(given, taken)
        {
            self.mistakes.push(format!(
                "{user} is {}, and tensor {tensor:?} from {} is {}",
                form(taken),
                source.from,
                form(given)
            ));
        }
        Some(place)
    }

    fn check_used(&mut self) {
        let unused = self.tensors.iter().filter(|source| !source.used);
        let unused = unused.map(|source| {
            let Source { name, from, .. } = source;
            format!("tensor {name:?} from {from} is used by no step and no output")
        });
        self.mistakes.extend(unused);
    }

    fn check_runs(&mut self, interfaces: &[Result<Interface, String>]) {
        let runs = interfaces.iter().flatten().map(|interface| interface.runs);
        let runs = runs.fold(0, usize::saturating_add);
        if interfaces.is_empty() {
            self.mistakes.push("there are no steps".to_owned());
        }
        if runs > MOST_RUNS {
            self.mistakes.push(format!(
                "one request runs {runs} models where at most {MOST_RUNS} are allowed"
            ));
        }
    }

    fn expect<'s>(
        &mut self,
        found: Option<&'s TensorSpec>,
        step: &str,
        kind: &str,
        own: &str,
        specs: &[TensorSpec],
    ) -> Option<&'s TensorSpec> {
        if found.is_none() {
            let specs: Vec<String> = specs.iter().map(ToString::to_string).collect();
            self.mistakes.push(format!(
                "{step}: the model has no {kind} {own:?}; it has {}",
                specs.join(", ")
            ));
        }
        found
    }

    fn find(&self, tensor: &str) -> Option<(usize, &Source<'a>)> {
        let mut tensors = self.tensors.iter().enumerate();
        tensors.find(|(_, source)| source.name == tensor)
    }
}

/// Whether some tensor is both.
fn fits(given: &TensorSpec, taken: &TensorSpec) -> bool {
    let mut dimensions = given.dimensions.iter().zip(&taken.dimensions);
    given.dtype == taken.dtype
        && given.dimensions.len() == taken.dimensions.len()
        && dimensions.all(|(given, taken)| match (given.size, taken.size) {
            (Some(given), Some(taken)) => given == taken,
            _ => true,
        })
}

/// A tensor's type and shape, without its name.
fn form(spec: &TensorSpec) -> String {
    let shape = crate::tensor::Shape::new(&spec.protocol_shape());
    format!("{} {shape}", spec.dtype)
}

#[cfg(test)]
mod tests;
