//! The repository looked at again and again: what changed and rests is loaded, what is gone forgotten.

use std::sync::Arc;
use std::time::Duration;

use super::{Reconciler, blocking};
use crate::clock::Clock;

impl Reconciler {
    /// Looks at the repository every `interval`, for ever; at a store that is away less and less often.
    pub async fn watch(self: Arc<Self>, clock: Arc<dyn Clock>, interval: Duration) {
        loop {
            let pause = self.repository.pause(interval);
            clock.sleep_until(clock.now() + pause).await;
            // One that fails has said so, and changes nothing.
            if self.repository.look().await.is_err() {
                continue;
            }
            match self.names().await {
                Ok(names) => self.sweep(names).await,
                Err(error) => tracing::error!(%error, "the repository cannot be read"),
            }
        }
    }

    /// One look of watching: loads what changed and rests, forgets what is gone.
    async fn sweep(self: &Arc<Self>, names: Vec<String>) {
        for entry in self.catalog.index() {
            if !names.iter().any(|name| **name == *entry.model) {
                tracing::info!(model = %entry.model, "gone from the repository");
                self.no_longer_missing(&entry.model);
                self.known_models().remove(&entry.model);
                self.parts.forget(&entry.model);
                self.catalog.forget(&entry.model);
            }
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
        let Ok(now) = blocking(move || repository.fingerprint(&model)).await else {
            return false;
        };
        let known = self.known(name);
        let mut known = known.lock().await;
        let rests = self.repository.is_whole() || known.seen.as_ref() == Some(&now);
        let tried = known.tried.as_ref() == Some(&now);
        known.seen = Some(now);
        rests && !tried && self.repository.is_due(name)
    }
}
