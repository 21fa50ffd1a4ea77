//! Labels that a model's configuration gives its metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::{Family, Label, VERSION};
use crate::serving::{Statistics, Version};

/// The tags of each version that has some, by the values of [`VERSION`].
#[derive(Debug, Default)]
pub(super) struct Tags(BTreeMap<(String, String), Vec<Label>>);

impl Tags {
    pub(super) fn of(versions: &[(Arc<Version>, Statistics)]) -> Self {
        let versions = versions.iter().map(|(version, _)| version);
        let tagged = versions.filter(|version| !version.policy.notes.metric_tags.is_empty());
        Self(tagged.map(|version| tags(version)).collect())
    }

    /// Marks what is told of a version with its tags.
    pub(super) fn mark(&self, family: &mut Family) {
        if self.0.is_empty() || !family.metric.labels.starts_with(VERSION) {
            return;
        }
        for sample in &mut family.samples {
            let [(_, model), (_, version), ..] = sample.labels.as_slice() else {
                continue;
            };
            let tags = self.0.get(&(model.clone(), version.clone()));
            sample.labels.extend(tags.into_iter().flatten().cloned());
        }
    }
}

fn tags(version: &Version) -> ((String, String), Vec<Label>) {
    let id = (version.id.model.to_string(), version.id.version.to_string());
    (id, version.policy.notes.metric_tags.clone())
}
