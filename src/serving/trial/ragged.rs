//! The trial of models whose requests are laid end to end.

use super::{GUESS, Trial, agree, row, run};
use crate::backend::{Executor, RunError};
use crate::model::Signature;
use crate::serving::ragged::Ragged;
use crate::tensor::Tensor;

/// How much shorter than the first the second request is, where that is not stated.
const SHORTER: i64 = 3;

impl Trial<'_> {
    /// A run of so many requests of one row.
    pub(super) fn laid(&self, ragged: &Ragged, rows: usize) -> Result<Vec<Tensor>, RunError> {
        let one = self.request(ragged, GUESS, 0)?;
        let requests: Vec<&[Tensor]> = std::iter::repeat_n(&one[..], rows).collect();
        ragged.whole(&requests).map_err(RunError::Failed)
    }

    /// A made-up request of one row, whose dimensions are of this size where they vary.
    fn request(&self, ragged: &Ragged, guess: i64, seed: u64) -> Result<Vec<Tensor>, RunError> {
        let left_out = ragged.sent(self.left_out);
        let trial = Trial {
            left_out: &left_out,
            guess,
            ..*self
        };
        trial.inputs(&ragged.client, 1, 1, seed)
    }

    /// Whether two requests of different lengths have the same answers together as alone; else the
    /// output that has not.
    pub(super) fn compare_requests(
        &self,
        executor: &mut dyn Executor,
        ragged: &Ragged,
    ) -> Result<Option<String>, RunError> {
        let signature = executor.signature().clone();
        let first = self.request(ragged, GUESS, 0)?;
        let second = self.request(ragged, GUESS - SHORTER, 1)?;
        let mut answers = |requests: &[&[Tensor]]| {
            let inputs = ragged.whole(requests).map_err(RunError::Failed)?;
            let outputs = run(executor, &inputs)?;
            Ok::<_, RunError>(shares(ragged, &signature, &outputs, requests))
        };
        let alone = [answers(&[&first])?, answers(&[&second])?].concat();
        let together = answers(&[&first, &second])?;
        let both = alone.iter().zip(&together);
        for (index, spec) in signature.outputs.iter().enumerate() {
            let differs = both.clone().any(|(alone, together)| {
                let found = together.get(index).and_then(Option::as_ref);
                let expected = alone.get(index).and_then(Option::as_ref);
                let both = found.zip(expected);
                !both.is_some_and(|(found, expected)| agree(found, expected))
            });
            if differs {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
    }
}

/// What each request has of each output; none where it cannot be cut.
fn shares(
    ragged: &Ragged,
    signature: &Signature,
    outputs: &[Tensor],
    requests: &[&[Tensor]],
) -> Vec<Vec<Option<Tensor>>> {
    let mut shares = vec![Vec::new(); requests.len()];
    for (position, _) in signature.outputs.iter().enumerate() {
        let cut = outputs
            .get(position)
            .and_then(|output| ragged.cut(position, output, requests.iter().copied()));
        for (number, share) in shares.iter_mut().enumerate() {
            share.push(match &cut {
                Some(cut) => cut.as_ref().ok().and_then(|cut| cut.get(number).cloned()),
                None => row(outputs, position, requests.len(), number),
            });
        }
    }
    shares
}
