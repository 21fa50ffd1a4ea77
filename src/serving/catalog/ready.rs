//! Whether a model can answer, and every model that it is made of.

use super::Catalog;
use crate::serving::runner::Runner;

impl Catalog {
    /// Whether a request for this model, and version if it is not empty, would find an executor: in
    /// every one of its models, if it is an ensemble.
    pub fn is_ready(&self, model: &str, version: &str) -> bool {
        let mut parts = vec![(model.to_owned(), version.to_owned())];
        let mut looked_at = 0;
        while let Some((model, version)) = parts.get(looked_at) {
            let Ok(version) = self.resolve(model, version) else {
                return false;
            };
            match &version.runner {
                Runner::Lane(lane) if lane.executors_alive() == 0 => return false,
                Runner::Lane(_) => {}
                Runner::Ensemble(ensemble) => add_new(&mut parts, ensemble.parts()),
            }
            looked_at += 1;
        }
        true
    }
}

/// Takes in those that are not there yet.
fn add_new<'a>(
    parts: &mut Vec<(String, String)>,
    others: impl Iterator<Item = (&'a str, &'a str)>,
) {
    for (model, version) in others {
        let part = (model.to_owned(), version.to_owned());
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
}
