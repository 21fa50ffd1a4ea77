//! A store's models, as folders of the cache.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use object_store::ObjectStore;
use object_store::path::Path;
use tokio::sync::Semaphore;
use url::Url;

use super::cache::Cache;
use super::object::{Listing, Object, Unit};
use super::record::Record;
use super::resting::{Look, Units};
use super::state::State;
use super::taking::FETCHES;
use super::{RemoteError, RemoteSettings, pace, store};
use crate::clock::{Clock, Moment, wall_nanoseconds};
use crate::repository::{Fetched, Fingerprint, ModelFolder, RepositoryError};

/// Between looks at the start, where nothing has to rest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

/// A store's models, as folders of the cache.
pub(crate) struct Mirror {
    pub(super) url: String,
    pub(super) store: Arc<dyn ObjectStore>,
    prefix: Path,
    pub(super) cache: Arc<Cache>,
    /// Where the cache has what was taken from this store.
    pub(super) records: PathBuf,
    settings: RemoteSettings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fetches: Semaphore,
    state: Mutex<State>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut about = formatter.debug_struct("Mirror");
        about.field("url", &self.url).finish_non_exhaustive()
    }
}

impl Mirror {
    /// The mirror of what `url` names; asks nothing of it yet.
    pub(crate) fn open(
        url: &Url,
        settings: RemoteSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RemoteError> {
        let name = url.as_str().trim_end_matches('/').to_owned();
        let (store, prefix) = store::open(url).map_err(|source| RemoteError::Settings {
            url: name.clone(),
            source,
        })?;
        Self::of(name, store, prefix, settings, clock)
    }

    pub(super) fn of(
        url: String,
        store: Arc<dyn ObjectStore>,
        prefix: Path,
        settings: RemoteSettings,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RemoteError> {
        let cache = Cache::open(&settings.cache_dir, settings.cache_bytes)?;
        Ok(Self {
            records: cache.record(&url),
            url,
            store,
            prefix,
            cache: Arc::new(cache),
            settings,
            clock,
            fetches: Semaphore::new(FETCHES),
            state: Mutex::default(),
        })
    }

    /// Looks at the store for the first time, until it answers or the cache can stand in for it, and
    /// for as long as what is new needs to come to rest. Before that it waits for the cache, as long as
    /// another server holds that.
    pub(crate) async fn first_look(&self, interval: Duration) {
        while let Err(error) = self.set_up().await {
            tracing::error!(%error, "the cache cannot be used yet");
            self.sleep(interval).await;
        }
        while let Err(error) = self.look().await {
            let cached = self.remember(&Record::models(&self.records));
            if cached > 0 {
                tracing::warn!(%error, models = cached, "SERVING FROM THE CACHE: the store is away");
                return;
            }
            self.sleep(self.pause(interval)).await;
        }
        let pause = interval.min(self.settings.rest).max(SHORTEST_PAUSE);
        let until = self.clock.now() + self.settings.rest + 2 * pause;
        while !self.state().restless().is_empty() && self.clock.now() < until {
            self.sleep(pause).await;
            // One that fails has said so.
            let _ = self.look().await;
        }
        if self.state().models.is_empty() {
            tracing::warn!(url = self.url, "there is no model in the store yet");
        }
        for model in self.state().restless() {
            tracing::warn!(
                model,
                "still changes in the store: what rests of it is taken"
            );
        }
    }

    /// Looks at everything in the store. What it says of that goes to the log once, when it changes.
    pub(crate) async fn look(&self) -> Result<(), RemoteError> {
        let listed = self.list(&self.prefix, None).await;
        let mut state = self.state();
        match &listed {
            Ok(()) if state.failures > 0 => {
                tracing::info!(url = self.url, "the store answers again");
                state.failures = 0;
            }
            Ok(()) => {}
            Err(error) => {
                if state.failures == 0 {
                    tracing::error!(%error, "the store cannot be read; what is loaded is served on");
                }
                state.failures = state.failures.saturating_add(1);
            }
        }
        listed
    }

    /// Looks at one model until it rests, or not for longer than that takes. If the store is away,
    /// what is known of the model has to do.
    pub(crate) async fn look_at(&self, model: &str) -> Result<(), RemoteError> {
        let prefix = self.location(model)?;
        for last in [false, true] {
            if let Err(error) = self.list(&prefix, Some(model)).await {
                let known = self.state().resting(model).is_some();
                if known || self.remember(&[model.to_owned()]) > 0 {
                    tracing::warn!(model, %error, "taken as it is known: the store is away");
                    return Ok(());
                }
                return Err(error);
            }
            if last || !self.state().restless().iter().any(|name| name == model) {
                break;
            }
            self.sleep(self.settings.rest).await;
        }
        Ok(())
    }

    /// How long to wait before the next look.
    pub(crate) fn pause(&self, interval: Duration) -> Duration {
        pace::pause(interval, self.state().failures, pace::chance())
    }

    /// The models that can be taken, sorted.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state().names()
    }

    /// Changes when what rests of a model does.
    pub(crate) fn fingerprint(&self, model: &str) -> Fingerprint {
        let resting = self.state().resting(model).unwrap_or_default();
        Fingerprint::listed(resting.into_iter().map(|object| {
            let modified = Duration::from_nanos(object.modified.unsigned_abs());
            let modified = std::time::SystemTime::UNIX_EPOCH + modified;
            (object.path.into(), object.size, modified, object.e_tag)
        }))
    }

    /// Whether it is time to take a model, after that failed.
    pub(crate) fn is_due(&self, model: &str) -> bool {
        self.state().is_due(model, self.clock.now())
    }

    /// A model's folder, as it was taken last.
    pub(crate) fn read(&self, model: &str) -> Option<Result<ModelFolder, RepositoryError>> {
        let taken = self.state().models.get(model)?.taken.clone()?;
        let folder = ModelFolder::read(&taken.view.folder, model);
        Some(folder.map(|folder| folder.leased(Arc::clone(&taken.view.lease))))
    }

    /// The same, served by this ModelConfig in JSON.
    pub(crate) fn read_as(
        &self,
        model: &str,
        config: &str,
    ) -> Option<Result<ModelFolder, RepositoryError>> {
        let taken = self.state().models.get(model)?.taken.clone()?;
        let folder = ModelFolder::read_as(&taken.view.folder, model, config);
        Some(folder.map(|folder| folder.leased(Arc::clone(&taken.view.lease))))
    }

    /// Takes what rests of a model, if it is not what was taken last. If that fails, what was taken
    /// last stays.
    pub(crate) async fn bring(&self, model: &str, fetched: &Fetched) -> Result<(), RemoteError> {
        let Some(objects) = self.wanted(model)? else {
            return Ok(());
        };
        let taken = self.take(model, objects, fetched).await;
        let mut state = self.state();
        // It may be gone meanwhile.
        let Some(known) = state.models.get_mut(model) else {
            return Ok(());
        };
        match taken {
            Ok(taken) => known.took(taken),
            Err(error) => {
                known.failed(self.clock.now());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Lets the cache have a model's folder back; what was loaded from it keeps it for itself.
    pub(crate) fn release(&self, model: &str) {
        if let Some(model) = self.state().models.get_mut(model) {
            model.taken = None;
        }
    }

    /// What came of a version, or with none of what is beside the versions, may not be what the store has: it is
    /// fetched anew when the model is taken next, by this server or the next. Means what was taken under this lease, if
    /// one is named. Waits for the disk.
    pub(crate) fn doubt(&self, model: &str, version: Option<u64>, lease: Option<&Arc<File>>) {
        let unit = version.map_or(Unit::Root, Unit::Version);
        let record = {
            let mut state = self.state();
            let known = state.models.get_mut(model);
            let Some(taken) = known.and_then(|known| known.taken.as_mut()) else {
                return;
            };
            if lease.is_some_and(|lease| !Arc::ptr_eq(lease, &taken.view.lease)) {
                return;
            }
            taken.record.doubt(unit);
            taken.doubted = true;
            taken.record.clone()
        };
        let written = self
            .cache
            .draft()
            .and_then(|draft| record.write(&self.records, model, &draft.path));
        if let Err(error) = written {
            tracing::warn!(model, %error, "a restart will believe what is in the cache");
        }
    }

    /// What is to be taken; nothing if the model is not there or has been taken as it is.
    fn wanted(&self, model: &str) -> Result<Option<Vec<Object>>, RemoteError> {
        let mut state = self.state();
        let now = self.clock.now();
        let Some(known) = state.models.get_mut(model) else {
            return Ok(None);
        };
        if let Some(reason) = known.refused.clone() {
            known.failed(now);
            return Err(RemoteError::Name {
                url: self.url.clone(),
                reason,
            });
        }
        let Some(resting) = known.units.resting() else {
            return Err(RemoteError::Changing {
                url: self.url.clone(),
                model: model.to_owned(),
            });
        };
        let taken = known.taken.as_ref().filter(|taken| !taken.doubted);
        let taken = taken.map(|taken| taken.record.objects());
        Ok((taken.as_ref() != Some(&resting)).then_some(resting))
    }

    /// Lists what is below `prefix`, and takes it in; what fails changes nothing.
    async fn list(&self, prefix: &Path, of: Option<&str>) -> Result<(), RemoteError> {
        let most = self.settings.max_objects;
        let listed = self.store.list(Some(prefix)).take(most.saturating_add(1));
        let listed = listed.try_collect::<Vec<_>>().await;
        let listed = listed.map_err(|source| RemoteError::Store {
            url: self.url.clone(),
            source,
        })?;
        if listed.len() > most {
            let url = self.url.clone();
            return Err(RemoteError::TooMany { url, most });
        }
        let look = Look {
            now: self.clock.now(),
            wall: wall_nanoseconds(),
            rest: self.settings.rest,
        };
        let listing = Listing::of(&self.prefix, listed);
        for gone in self.state().look(look, listing, of) {
            Record::remove(&self.records, &gone);
        }
        Ok(())
    }

    /// Believes what is written down of these models; how many there are.
    fn remember(&self, models: &[String]) -> usize {
        let now = self.clock.now();
        let mut remembered = 0;
        for model in models {
            let Some(record) = Record::read(&self.records, model) else {
                continue;
            };
            let units = Units::remembered(&record.objects(), now);
            let mut state = self.state();
            state.models.entry(model.clone()).or_default().units = units;
            remembered += 1;
        }
        remembered
    }

    async fn sleep(&self, pause: Duration) {
        let until: Moment = self.clock.now() + pause;
        self.clock.sleep_until(until).await;
    }

    pub(super) fn location(&self, below: &str) -> Result<Path, RemoteError> {
        Path::parse(format!("{}/{below}", self.prefix)).map_err(|error| RemoteError::Store {
            url: self.url.clone(),
            source: error.into(),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
