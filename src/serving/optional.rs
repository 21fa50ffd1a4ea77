//! Models of which requests may leave inputs out: what the graph has in their place is tried as what
//! requests bring is, for it may be the same for every row, or not.

use std::time::Duration;

use super::loading::LoadFailure;
use super::padding::Padding;
use super::trial::{Trial, Verdict};
use crate::backend::{Executor, RunError};
use crate::model::{BatchAxis, Batching, ModelPolicy, Signature};
use crate::scheduler::Load;

/// Positions of inputs that are left out together.
type LeftOut = Vec<usize>;

/// What is tried: all that may be left out, and each of it.
fn variants(policy: &ModelPolicy, signature: &Signature) -> Vec<LeftOut> {
    let names = policy.tensors.optional();
    let positions = names.filter_map(|name| signature.input(name));
    let all: LeftOut = positions.map(|(position, _)| position).collect();
    let mut variants: Vec<LeftOut> = all.iter().map(|position| vec![*position]).collect();
    if all.len() > 1 {
        variants.insert(0, all);
    }
    // Where nothing is left nobody could say how many rows there are.
    variants.retain(|left_out| left_out.len() < signature.inputs.len());
    variants
}

/// Whether requests share runs, with and without those inputs, if they do with all of them.
pub(super) fn batching(
    found: Batching,
    executor: &mut dyn Executor,
    policy: &ModelPolicy,
    trial: &Trial<'_>,
) -> Result<Batching, LoadFailure> {
    let signature = executor.signature().clone();
    let variants = variants(policy, &signature);
    // What does not run with all of them, or keeps no rows apart, says nothing of what is left out.
    if variants.is_empty()
        || !found.is_rows()
        || trial.rows_are_independent(executor) != Verdict::Independent
    {
        return Ok(found);
    }
    for left_out in &variants {
        let trial = Trial { left_out, ..*trial };
        let reason = match trial.rows_are_independent(executor) {
            Verdict::Independent => continue,
            Verdict::Dependent(output) => {
                format!("output {output} of two rows together differs from each alone")
            }
            Verdict::Unknown(error) => format!("the model does not run: {error}"),
        };
        let reason = format!("without {} {reason}", names(&signature, left_out));
        return match policy.batch.axis {
            BatchAxis::First => Err(LoadFailure::Optional(format!(
                "{reason}; what the graph has in its place has to do for every row (a first \
                 dimension of 1), or batch_axis = \"none\" (max_batch_size: 0)"
            ))),
            _ => Ok(Batching::Alone(reason)),
        };
    }
    Ok(found)
}

fn names(signature: &Signature, positions: &[usize]) -> String {
    let specs = positions.iter().filter_map(|at| signature.inputs.get(*at));
    let names: Vec<&str> = specs.map(|spec| spec.name.as_str()).collect();
    names.join(" and ")
}

/// What is padded has to be there: what the graph has in its place has a length of its own.
pub(super) fn check_padding(
    policy: &ModelPolicy,
    signature: &Signature,
    padding: &Padding,
) -> Result<(), LoadFailure> {
    let mut names = policy.tensors.optional();
    let padded = names.find(|name| {
        let found = signature.input(name);
        found.is_some_and(|(position, _)| padding.input_axis(position).is_some())
    });
    padded.map_or(Ok(()), |name| {
        Err(LoadFailure::Optional(format!(
            "input {name:?} is padded ([padding]), and what the graph has in its place is not; \
             take one of the two out"
        )))
    })
}

/// How often each kind of batch is warmed up: with every input, and without.
pub(super) fn rounds(policy: &ModelPolicy, signature: &Signature) -> usize {
    1 + usize::from(!variants(policy, signature).is_empty())
}

/// Warms a model up with all of its inputs, and without those that may be left out.
pub(super) fn warm_up(
    trial: &Trial<'_>,
    executor: &mut dyn Executor,
    policy: &ModelPolicy,
    warmed: &dyn Fn(),
) -> Result<Vec<(Load, Duration)>, RunError> {
    let rows = policy.batch.max_batch_size;
    let mut times = trial.warm_up(executor, rows, warmed)?;
    let left_out = variants(policy, executor.signature()).into_iter().next();
    if let Some(left_out) = &left_out {
        let trial = Trial { left_out, ..*trial };
        times.extend(trial.warm_up(executor, rows, warmed)?);
    }
    Ok(times)
}
