//! The repository looked at again and again: what changed and rests is loaded, what is gone forgotten.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::{Reconciler, blocking};
use crate::clock::Clock;
use crate::repository::RepositoryError;

impl Reconciler {
    /// Looks at the repository every `interval`, for ever; at a store that is away less and less often.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, interval: Duration) {
        let mut missed = Missed::default();
        loop {
            let pause = self.repository.pause(interval);
            clock.sleep_until(clock.now() + pause).await;
            // One that fails has said so, and changes nothing.
            if self.repository.look().await.is_err() {
                continue;
            }
            match self.names().await {
                Ok(names) => self.sweep(names, &mut missed).await,
                Err(error) => tracing::error!(%error, "the repository cannot be read"),
            }
        }
    }

    /// One look of watching: loads what changed and rests, forgets what is gone.
    async fn sweep(self: &Arc<Self>, names: Vec<String>, missed: &mut Missed) {
        let known = self.catalog.models();
        for model in missed.look(known, &names, self.repository.is_whole()) {
            tracing::info!(%model, "gone from the repository");
            self.no_longer_missing(&model);
            self.known_models().remove(&model);
            self.parts.forget(&model);
            self.catalog.forget(&model);
        }
        let mut changed = Vec::new();
        for name in names {
            if self.changed_and_rests(&name).await {
                changed.push(name);
            }
        }
        self.load_side_by_side(changed.clone()).await;
        self.follow(&changed).await;
    }

    async fn changed_and_rests(&self, name: &str) -> bool {
        let repository = Arc::clone(&self.repository);
        let model = name.to_owned();
        let now = match blocking(move || repository.fingerprint(&model)).await {
            Ok(now) => now,
            Err(error) => {
                self.note_refused(name, &error).await;
                return false;
            }
        };
        let known = self.known(name);
        let mut known = known.lock().await;
        if known.refused.take().is_some() {
            // What is told of it holds no longer, be it as it was before.
            known.tried = None;
        }
        let rests = self.repository.is_whole() || known.seen.as_ref() == Some(&now);
        let tried = known.tried.as_ref() == Some(&now);
        known.seen = Some(now);
        rests && !tried && self.repository.is_due(name)
    }

    /// Says why a model's files cannot be looked at, once; what serves of it serves on.
    async fn note_refused(&self, name: &str, error: &RepositoryError) {
        if is_on_its_way(error) {
            return;
        }
        let reason = error.to_string();
        let known = self.known(name);
        let mut known = known.lock().await;
        if known.refused.as_ref() != Some(&reason) {
            tracing::error!(
                model = name,
                reason,
                "not looked at; what serves of it stays"
            );
            self.catalog.note_model(&Arc::from(name), &reason);
            known.refused = Some(reason);
        }
    }
}

/// Whether a model or a file of it came or went while it was looked at; the next look tells more.
fn is_on_its_way(error: &RepositoryError) -> bool {
    match error {
        RepositoryError::NoModel { .. } => true,
        RepositoryError::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}

/// Models that were not there in the last look. One that is moved away to make place for another of its
/// name is not gone.
#[derive(Debug, Default)]
struct Missed(HashSet<Arc<str>>);

impl Missed {
    /// Those of the known models that are gone: that are not there, and were not there in the look before.
    /// One look is enough where a look sees everything `at_once`.
    fn look(&mut self, known: Vec<Arc<str>>, names: &[String], at_once: bool) -> Vec<Arc<str>> {
        let names: HashSet<&str> = names.iter().map(String::as_str).collect();
        let absent = known.into_iter().filter(|model| !names.contains(&**model));
        let (gone, missed) = absent.partition(|model| at_once || self.0.contains(model));
        self.0 = missed;
        let gone: HashSet<Arc<str>> = gone;
        gone.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_gone_when_two_looks_in_a_row_miss_it() {
        let mut missed = Missed::default();
        let mut look = |names: &[&str], at_once| {
            let known = vec![Arc::from("a"), Arc::from("b")];
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            missed.look(known, &names, at_once)
        };
        assert!(look(&["a"], false).is_empty());
        // It was away for a moment.
        assert!(look(&["a", "b"], false).is_empty());
        assert!(look(&["a"], false).is_empty());
        assert_eq!(look(&["a"], false), ["b".into()]);
        assert_eq!(look(&["b"], true), ["a".into()]);
    }
}
