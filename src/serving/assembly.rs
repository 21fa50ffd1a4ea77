//! From an ensemble as it lies in the repository to a version that serves: nothing is loaded, for its
//! models are there, but everything has to fit.

use std::sync::Arc;

use super::catalog::{Catalog, Version};
use super::ensemble::Ensemble;
use super::graph::{Graph, Interface};
use super::inputs::InputCheck;
use super::runner::Runner;
use super::stacking::Stacking;
use super::statistics::Ledger;
use crate::backend::Artifact;
use crate::clock::wall_nanoseconds;
use crate::model::{BatchAxis, Batching, EnsemblePolicy, EnsembleStep, Signature};

/// An ensemble that fits together.
pub struct Assembly {
    artifact: Artifact,
    graph: Graph,
    max_in_flight: usize,
    interface: Interface,
}

impl Assembly {
    /// Puts together the ensemble at `artifact` out of models that look as `interface` says, or says
    /// everything that is wrong with it.
    pub fn new(
        artifact: &Artifact,
        policy: &EnsemblePolicy,
        interface: impl Fn(&EnsembleStep) -> Result<Interface, String>,
    ) -> Result<Self, String> {
        let parts: Vec<_> = policy.steps.iter().map(interface).collect();
        let graph = Graph::new(policy, &parts).map_err(|mistakes| mistakes.join("; "))?;
        let parts: Vec<(&EnsembleStep, Interface)> = policy
            .steps
            .iter()
            .zip(parts.into_iter().flatten())
            .collect();
        let signature = Signature {
            inputs: policy.inputs.clone(),
            outputs: policy.outputs.clone(),
        };
        let batching = batching(artifact.policy.batch.axis, &signature, &parts)?;
        let own = artifact.policy.batch.max_batch_size;
        let rows = parts.iter().map(|(_, part)| part.max_batch_size).min();
        let mut artifact = artifact.clone();
        artifact.policy.batch.max_batch_size = rows.map_or(own, |rows| rows.min(own));
        Ok(Self {
            graph,
            max_in_flight: policy.max_in_flight,
            interface: Interface {
                max_batch_size: match batching {
                    Batching::Rows => artifact.policy.batch.max_batch_size,
                    Batching::Alone(_) => 1,
                },
                signature,
                batching,
                spare: Vec::new(),
                together: None,
                runs: parts.iter().map(|(_, part)| part.runs).sum(),
            },
            artifact,
        })
    }

    /// The same, out of what is served.
    pub(super) fn of_served(
        artifact: &Artifact,
        policy: &EnsemblePolicy,
        catalog: &Catalog,
    ) -> Result<Self, String> {
        Self::new(artifact, policy, |step| {
            let number = step
                .version
                .map_or(String::new(), |version| version.to_string());
            let version = catalog.resolve(&step.model, &number);
            version
                .map(|version| version.interface())
                .map_err(|status| status.message)
        })
    }

    /// What a client sees of it.
    pub fn interface(&self) -> &Interface {
        &self.interface
    }

    pub(super) fn into_version(self) -> Version {
        let Interface {
            signature,
            batching,
            runs,
            ..
        } = self.interface;
        let stacking = Stacking {
            batched: batching.is_rows(),
            ..Stacking::default()
        };
        let id = self.artifact.id;
        Version {
            output_names: signature
                .outputs
                .iter()
                .map(|spec| spec.name.as_str().into())
                .collect(),
            check: InputCheck::new(&id.model, signature.clone(), Arc::new(stacking)),
            id,
            whole: signature.clone(),
            signature,
            batching,
            cached: None,
            sequences: None,
            site: None,
            policy: self.artifact.policy,
            devices: Vec::new(),
            loaded_wall_nanoseconds: wall_nanoseconds(),
            memory: Vec::new(),
            runs,
            runner: Runner::Ensemble(Ensemble::new(self.graph, self.max_in_flight)),
            ledger: Arc::<Ledger>::default(),
        }
    }
}

/// Whether the first dimension counts rows: if it does in every model, and in what goes in and out.
fn batching(
    axis: BatchAxis,
    signature: &Signature,
    parts: &[(&EnsembleStep, Interface)],
) -> Result<Batching, String> {
    let mut alone = parts
        .iter()
        .filter_map(|(step, part)| match &part.batching {
            Batching::Rows => None,
            Batching::Alone(reason) => {
                Some(format!("{} runs requests alone: {reason}", step.model))
            }
        });
    let found = alone
        .next()
        .map_or_else(|| signature.batching(), Batching::Alone);
    match (axis, found) {
        (BatchAxis::Unbatched, _) => Ok(Batching::Alone(
            "model.toml says batch_axis = \"none\"".to_owned(),
        )),
        (BatchAxis::First, Batching::Alone(reason)) => Err(format!(
            "model.toml says batch_axis = \"first\", but {reason}"
        )),
        (_, found) => Ok(found),
    }
}
