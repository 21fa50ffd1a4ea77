//! Ensembles: what they are made of is there before they are, and they are put together anew when
//! that changes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Control, ROOM, Reconciler, blocking};
use crate::backend::Artifact;
use crate::model::EnsemblePolicy;
use crate::repository::{MOST_NESTED, RepositoryError};
use crate::serving::assembly::Assembly;
use crate::serving::catalog::Version;
use crate::serving::progress::Progress;
use crate::serving::supplied::Supplied;

/// The models that each ensemble is made of, as its folder said when it was last read.
#[derive(Debug, Default)]
pub(super) struct Parts(Mutex<HashMap<Arc<str>, Vec<String>>>);

impl Parts {
    pub(super) fn note(&self, model: &Arc<str>, ensemble: Option<&EnsemblePolicy>) {
        let Some(ensemble) = ensemble else {
            return self.forget(model);
        };
        let parts = ensemble.models().into_iter().map(str::to_owned);
        self.lock().insert(Arc::clone(model), parts.collect());
    }

    pub(super) fn forget(&self, model: &str) {
        self.lock().remove(model);
    }

    /// Every ensemble that is made of one of these, or of such an ensemble; each after its own.
    fn made_of(&self, models: &[String]) -> Vec<String> {
        let known = self.lock();
        let mut found: Vec<String> = Vec::new();
        let mut changed: Vec<String> = models.to_vec();
        // In circles there is no end, but they do not serve.
        for _ in 0..=MOST_NESTED {
            let is_made_of_it = |parts: &Vec<String>| parts.iter().any(|one| changed.contains(one));
            let next = known.iter().filter(|(_, parts)| is_made_of_it(parts));
            changed = next.map(|(ensemble, _)| ensemble.to_string()).collect();
            found.retain(|ensemble| !changed.contains(ensemble));
            found.extend(changed.iter().cloned());
        }
        found
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Vec<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reconciler {
    /// The models that this one is made of, each after its own. What a store has can be read once it is
    /// here, so that ensembles of ensembles are found one storey after the other.
    pub(super) async fn needs(
        &self,
        model: &str,
        progress: &Progress,
    ) -> Result<Vec<String>, RepositoryError> {
        let mut brought: Vec<String> = Vec::new();
        let mut next = vec![model.to_owned()];
        while !next.is_empty() {
            for part in &next {
                // Why it cannot be brought is said when it is loaded.
                let _ = self.repository.bring(part, &progress.fetched).await;
            }
            brought.append(&mut next);
            next = self.needs_here(model).await?;
            next.retain(|part| !brought.contains(part));
        }
        self.needs_here(model).await
    }

    async fn needs_here(&self, model: &str) -> Result<Vec<String>, RepositoryError> {
        let (repository, model) = (Arc::clone(&self.repository), model.to_owned());
        blocking(move || repository.needs(&model)).await
    }

    /// Brings up a model that an ensemble needs, unless it serves. Where clients do not decide, it is
    /// brought up anyway: that is waited for, and not done twice.
    pub(super) async fn bring_up_part(&self, part: &str) {
        let serves = |versions: Vec<_>| !versions.is_empty();
        if self.catalog.versions(part).is_ok_and(serves) {
            return;
        }
        let tried = async || self.known(part).lock().await.tried.is_some();
        if self.control != Control::Explicit && tried().await {
            return;
        }
        // Why it fails is said in the index, in the log, and by the ensemble.
        let load = self.catalog.begin(part, &self.loader.clock);
        let _ = self
            .bring_up_itself(part, Ok(()), Supplied::default(), &load.progress)
            .await;
    }

    /// Puts together anew what is made of these models, which have changed.
    pub(super) async fn follow(&self, changed: &[String]) {
        for ensemble in self.parts.made_of(changed) {
            let serving = self.catalog.versions(&ensemble);
            let serves = serving.is_ok_and(|versions| !versions.is_empty());
            if serves || self.control != Control::Explicit {
                let _ = self.bring_up(&ensemble, Supplied::default()).await;
            }
        }
    }

    /// An ensemble out of what is served now.
    pub(super) fn put_together(
        &self,
        artifact: &Artifact,
        ensemble: &EnsemblePolicy,
    ) -> Result<Version, String> {
        let assembly = Assembly::of_served(artifact, ensemble, &self.catalog)?;
        Ok(assembly.into_version())
    }

    /// The models that nobody needs any more, now that these are unloaded; once those have finished what
    /// they have, or do not for long.
    pub(super) async fn parts_left(&self, unloaded: &[Arc<Version>]) -> Vec<String> {
        for ensemble in unloaded.iter().filter_map(|version| version.ensemble()) {
            let _ = tokio::time::timeout(ROOM, ensemble.is_left()).await;
        }
        let needed = parts_of(&self.catalog.serving());
        let mut left = parts_of(unloaded);
        left.retain(|part| !needed.contains(part));
        left
    }
}

/// The models that these are made of.
fn parts_of(versions: &[Arc<Version>]) -> Vec<String> {
    let ensembles = versions
        .iter()
        .filter_map(|version| version.policy.ensemble.as_ref());
    let models = ensembles.flat_map(EnsemblePolicy::models);
    models.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EnsembleStep;

    fn ensemble(parts: &[&str]) -> EnsemblePolicy {
        let step = |part: &&str| EnsembleStep {
            model: (*part).to_owned(),
            version: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        EnsemblePolicy {
            inputs: Vec::new(),
            outputs: Vec::new(),
            steps: parts.iter().map(step).collect(),
            max_in_flight: 1,
        }
    }

    #[test]
    fn what_is_made_of_what_changed_is_found_in_order() {
        let parts = Parts::default();
        let note = |name: &str, own: &[&str]| parts.note(&name.into(), Some(&ensemble(own)));
        note("top", &["a", "middle"]);
        note("middle", &["bottom", "b"]);
        note("bottom", &["a"]);
        note("other", &["c"]);
        let made_of = |model: &str| parts.made_of(&[model.to_owned()]);
        assert_eq!(made_of("a"), ["bottom", "middle", "top"]);
        assert_eq!(made_of("b"), ["middle", "top"]);
        assert!(made_of("top").is_empty());
        parts.note(&"bottom".into(), None);
        assert_eq!(made_of("a"), ["top"]);
        // A circle ends.
        note("x", &["y"]);
        note("y", &["x"]);
        assert_eq!(made_of("x").len(), 2);
    }
}
