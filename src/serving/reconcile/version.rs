//! One version loaded, once it has a place among the loads and room on its device, and put into
//! service.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{ROOM, Reconciler};
use crate::allocator::release_at_rest;
use crate::backend::{Artifact, LoadError};
use crate::model::VersionId;
use crate::serving::budget::OverBudget;
use crate::serving::catalog::{ModelState, Version};
use crate::serving::loading::LoadFailure;
use crate::serving::progress::{Phase, Progress};

impl Reconciler {
    pub(super) async fn load_version(
        &self,
        artifact: Artifact,
        key: &str,
        progress: &Arc<Progress>,
    ) -> Result<(), String> {
        let id = artifact.id.clone();
        self.catalog.note(&id, ModelState::Loading, "");
        let start = self.loader.clock.now();
        let loaded = match &artifact.policy.ensemble {
            Some(ensemble) => self.put_together(&artifact, ensemble),
            None => self.load_model(&artifact, key, progress).await,
        };
        let reason = match loaded {
            Ok(version) => {
                tell(&version, self.loader.took_ms(start));
                self.catalog.install(Arc::new(version));
                return Ok(());
            }
            Err(reason) => reason,
        };
        self.catalog.note(&id, ModelState::Unavailable, &reason);
        Err(format!("{id}: {reason}"))
    }

    async fn load_model(
        &self,
        artifact: &Artifact,
        key: &str,
        progress: &Arc<Progress>,
    ) -> Result<Version, String> {
        let loaded = loop {
            progress.enter(Phase::Turn, 0);
            let place = Arc::clone(&self.places).acquire_owned().await;
            let (loader, own) = (Arc::clone(&self.loader), artifact.clone());
            let (key, notes) = (key.to_owned(), Arc::clone(progress));
            let repository = Arc::clone(&self.repository);
            let loaded = spawn_blocking(move || {
                let _place = place;
                let loaded = loader.load(&own, &notes);
                match &loaded {
                    Ok(version) => loader.note(&key, version, &notes),
                    Err(LoadFailure::Load(LoadError::Model { .. } | LoadError::Remote(_))) => {
                        repository.doubt(&own);
                    }
                    Err(_) => {}
                }
                release_at_rest();
                loaded
            })
            .await;
            match loaded {
                Ok(Err(LoadFailure::Memory(over))) => {
                    progress.enter(Phase::Memory, 0);
                    if !self.make_room(&over, &artifact.id).await {
                        break Ok(Err(LoadFailure::Memory(over)));
                    }
                }
                loaded => break loaded,
            }
        };
        match loaded {
            Ok(loaded) => loaded.map_err(|failure| failure.to_string()),
            Err(panic) => Err(format!("loading panicked: {panic}")),
        }
    }

    /// Unloads the least recently used model that has memory where it is short. False if there is
    /// none, or none may be unloaded, or its memory does not come back.
    async fn make_room(&self, over: &OverBudget, id: &VersionId) -> bool {
        if !self.unload_least_used || over.needed > over.limit {
            return false;
        }
        let device = over.device.to_string();
        let mut candidates = self.catalog.serving();
        candidates.retain(|version| {
            let mut memory = version.memory.iter();
            version.id.model != id.model && memory.any(|(own, bytes)| *own == device && *bytes > 0)
        });
        candidates.sort_by_key(|version| version.statistics().last_run_milliseconds);
        for version in candidates {
            let known = self.known(&version.id.model);
            // One that is being changed itself is left alone: it may be waiting for this one.
            let Ok(mut known) = known.try_lock() else {
                continue;
            };
            known.loaded.remove(&version.id.version);
            let reason = format!("unloaded to make room for {id}");
            tracing::info!(model = %version.id.model, version = version.id.version, "{reason}");
            self.catalog.retire(&version.id, &reason);
            drop((known, version));
            let free = self.loader.budget.fits(over.device, over.needed);
            // If that was not enough, the next is tried.
            let _ = tokio::time::timeout(ROOM, free).await;
            return true;
        }
        false
    }
}

/// Says that a version serves, and where.
fn tell(loaded: &Version, took_ms: u64) {
    let (model, version, batching) = (&loaded.id.model, loaded.id.version, &loaded.batching);
    match &loaded.policy.ensemble {
        Some(ensemble) => {
            let models = ensemble.models().join(", ");
            tracing::info!(%model, version, took_ms, ?batching, models, "ready");
        }
        None => {
            let devices = loaded.devices.join(", ");
            tracing::info!(%model, version, took_ms, ?batching, devices, "ready");
        }
    }
}
