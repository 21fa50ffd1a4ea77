//! How a version is served: what its policy and its dimensions say, once the model has been tried.

use std::sync::Arc;

use super::Loader;
use super::failure::LoadFailure;
use crate::backend::{Artifact, Executor};
use crate::clock::Clock;
use crate::model::{BatchAxis, Batching, ModelPolicy, Signature, WarmUpPolicy};
use crate::serving::facade::Facade;
use crate::serving::graph::Interface;
use crate::serving::inputs::InputCheck;
use crate::serving::optional;
use crate::serving::padding::Padding;
use crate::serving::ragged::Ragged;
use crate::serving::stacking::Stacking;
use crate::serving::stateful::{self, Stateful};
use crate::serving::trial::{GUESS, Trial, Verdict};

/// How a version is served, once its model has been looked at and tried.
#[derive(Clone)]
pub(super) struct Plan {
    /// With the policy's gaps filled in from the model.
    pub(super) artifact: Artifact,
    /// What the model takes and gives.
    pub(super) signature: Signature,
    /// How inputs are made up.
    pub(super) warm_up: WarmUpPolicy,
    /// What of it is not the clients', if the model is stateful.
    pub(super) stateful: Option<Arc<Stateful>>,
    pub(super) batching: Batching,
    pub(super) stacking: Arc<Stacking>,
    /// The model's own names of the outputs that answers are made of.
    pub(super) output_names: Vec<Arc<str>>,
    /// What clients send and see.
    pub(super) client: Signature,
    /// Between that and the model's own, where the configuration says other shapes.
    pub(super) facade: Option<Facade>,
}

impl Plan {
    pub(super) fn check(&self) -> InputCheck {
        let stacking = Arc::clone(&self.stacking);
        let check = InputCheck::new(&self.artifact.id.model, self.client.clone(), stacking);
        let check = check.leaving_out(&self.artifact.policy.tensors);
        check.behind(self.facade.clone())
    }

    pub(super) fn trial<'a>(&'a self, clock: &'a dyn Clock) -> Trial<'a> {
        Trial {
            policy: &self.warm_up,
            tensors: &self.artifact.policy.tensors,
            stacking: &self.stacking,
            left_out: &[],
            guess: GUESS,
            clock,
        }
    }

    /// How many kinds of batches each instance is warmed up with.
    pub(super) fn buckets(&self, clock: &dyn Clock) -> usize {
        let most = self.artifact.policy.batch.max_batch_size;
        let buckets = self.trial(clock).buckets(&self.signature, most);
        // One that cannot be made up says so when it is.
        let buckets = buckets.map_or(0, |buckets| buckets.len());
        buckets * optional::rounds(&self.artifact.policy, &self.signature)
    }

    /// What clients and ensembles see of it.
    pub(super) fn interface(self) -> Interface {
        let policy = self.artifact.policy;
        Interface {
            signature: self.client,
            max_batch_size: match self.batching {
                Batching::Rows => policy.batch.max_batch_size,
                Batching::Alone(_) => 1,
            },
            batching: self.batching,
            spare: policy.spare().map(str::to_owned).collect(),
            together: self.stacking.together(),
            runs: 1,
        }
    }
}

impl Loader {
    /// Looks at the model and tries what its policy and its dimensions say.
    pub(super) fn plan(
        &self,
        executor: &mut dyn Executor,
        artifact: &Artifact,
    ) -> Result<Plan, LoadFailure> {
        let mut artifact = artifact.clone();
        let mut signature = executor.signature().clone();
        let batch = &mut artifact.policy.batch;
        let batch_axis = batch.axis;
        // A model whose first dimension is fixed takes just that many rows.
        if let (BatchAxis::First, Some(rows), None) =
            (batch.axis, signature.fixed_rows(), &artifact.policy.ragged)
        {
            signature.vary_rows();
            batch.sizes = vec![rows];
            batch.max_batch_size = batch.max_batch_size.min(rows);
        }
        let mut stacking = Stacking {
            batched: true,
            sizes: artifact.policy.batch.sizes.clone(),
            padding: None,
            ragged: Ragged::of(&mut artifact.policy, &signature).map_err(LoadFailure::Ragged)?,
        };
        if let Some(policy) = &artifact.policy.padding {
            let padding = Padding::resolve(policy, &signature).map_err(LoadFailure::Padding)?;
            optional::check_padding(&artifact.policy, &signature, &padding)?;
            stacking.padding = Some(padding);
        }
        let warm_up = made_up(&artifact.policy, &signature, true);
        let trial = Trial {
            policy: &warm_up,
            tensors: &artifact.policy.tensors,
            stacking: &stacking,
            left_out: &[],
            guess: GUESS,
            clock: self.clock.as_ref(),
        };
        let batching = match &stacking.ragged {
            Some(ragged) => ragged.batching(executor, &artifact.policy, &trial)?,
            None => batching(&signature, executor, &artifact, &trial)?,
        };
        let batching = optional::batching(batching, executor, &artifact.policy, &trial)?;
        if let Some(padding) = &stacking.padding {
            check_padding(executor, &artifact, &batching, &trial, padding)?;
        }
        stacking.batched = batching.is_rows();
        let stateful = stateful(&artifact, &signature, stacking.batched)?;
        let laid = stacking.ragged.as_ref();
        let sent = laid.map_or(&signature, |ragged| &ragged.client);
        let sent = stateful.as_ref().map_or(sent, |it| &it.client);
        let names = sent.outputs.iter().map(|spec| spec.name.as_str().into());
        let output_names = names.collect();
        let seen = Facade::resolve(&artifact.policy.tensors, batch_axis, sent)
            .map_err(LoadFailure::Tensors)?;
        let (client, facade) = match seen {
            Some((seen, facade)) => (seen, Some(facade)),
            None => (sent.clone(), None),
        };
        if stacking.padding.is_some() && facade.as_ref().is_some_and(Facade::reshapes) {
            let message = "inputs or outputs have a reshape; take one of the two out";
            return Err(LoadFailure::Padding(message.to_owned()));
        }
        check_labels(&artifact, &client)?;
        Ok(Plan {
            warm_up: made_up(&artifact.policy, &signature, stacking.batched),
            artifact,
            signature,
            stateful,
            batching,
            stacking: Arc::new(stacking),
            output_names,
            client,
            facade,
        })
    }
}

/// How inputs are made up: states as they begin.
fn made_up(policy: &ModelPolicy, signature: &Signature, batched: bool) -> WarmUpPolicy {
    match &policy.sequence {
        Some(sequence) => stateful::made_up(&policy.warm_up, sequence, signature, batched),
        None => policy.warm_up.clone(),
    }
}

fn stateful(
    artifact: &Artifact,
    signature: &Signature,
    batched: bool,
) -> Result<Option<Arc<Stateful>>, LoadFailure> {
    let Some(policy) = &artifact.policy.sequence else {
        return Ok(None);
    };
    let folder = artifact.folder.parent().unwrap_or(&artifact.folder);
    let stateful = Stateful::resolve(policy, signature, batched, folder);
    stateful
        .map(|stateful| Some(Arc::new(stateful)))
        .map_err(LoadFailure::Sequence)
}

fn check_labels(artifact: &Artifact, signature: &Signature) -> Result<(), LoadFailure> {
    let mut labels = artifact.policy.labels.0.iter();
    let unknown = labels.find(|labels| signature.output(&labels.output).is_none());
    let Some(unknown) = unknown else {
        return Ok(());
    };
    let outputs: Vec<String> = signature.outputs.iter().map(ToString::to_string).collect();
    Err(LoadFailure::Labels(format!(
        "there is no output {:?}; the model has {}",
        unknown.output,
        outputs.join(", ")
    )))
}

/// Whether requests share runs: what `model.toml` says, else what the dimensions say and a trial
/// confirms.
fn batching(
    signature: &Signature,
    executor: &mut dyn Executor,
    artifact: &Artifact,
    trial: &Trial<'_>,
) -> Result<Batching, LoadFailure> {
    let by_dimensions = signature.batching();
    match (artifact.policy.batch.axis, by_dimensions) {
        (BatchAxis::Unbatched, _) => Ok(Batching::Alone(
            "the configuration says so (batch_axis = \"none\", max_batch_size: 0)".to_owned(),
        )),
        (BatchAxis::First, Batching::Alone(reason)) => Err(LoadFailure::Axis(reason)),
        (BatchAxis::First, Batching::Rows) => Ok(Batching::Rows),
        (BatchAxis::Auto, Batching::Alone(reason)) => Ok(Batching::Alone(reason)),
        (BatchAxis::Auto, Batching::Rows) => Ok(tried(executor, artifact, trial)),
    }
}

fn tried(executor: &mut dyn Executor, artifact: &Artifact, trial: &Trial<'_>) -> Batching {
    match trial.rows_are_independent(executor) {
        Verdict::Independent => Batching::Rows,
        Verdict::Dependent(output) => Batching::Alone(format!(
            "output {output} of two rows together differs from each alone"
        )),
        Verdict::Unknown(error) => {
            tracing::warn!(
                model = %artifact.id, error,
                "rows were not tried: the model does not run on made-up inputs; \
                 warm_up.shapes in model.toml names shapes that it takes"
            );
            Batching::Rows
        }
    }
}

/// Padding was asked for: refuses it where it would change answers.
fn check_padding(
    executor: &mut dyn Executor,
    artifact: &Artifact,
    batching: &Batching,
    trial: &Trial<'_>,
    padding: &Padding,
) -> Result<(), LoadFailure> {
    if let Batching::Alone(reason) = batching {
        let message = format!("requests run alone: {reason}");
        return Err(LoadFailure::Padding(message));
    }
    match trial.padding_changes_nothing(executor, padding) {
        Verdict::Independent => Ok(()),
        Verdict::Dependent(output) => Err(LoadFailure::Padding(format!(
            "output {output} of a row changes when the row is padded; the model may need a mask, \
             another value, or an axis named for this output"
        ))),
        Verdict::Unknown(error) => {
            tracing::warn!(
                model = %artifact.id, error,
                "padding was not tried: the model does not run on made-up inputs"
            );
            Ok(())
        }
    }
}
