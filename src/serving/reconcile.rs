//! Brings what is served to what the repository says: load, warm, swap, drain.
//!
//! A version is loaded beside the one that serves and takes its place only when it is warm; one
//! that does not load leaves the old one serving and says why in the index.

mod ensembles;
mod model;
mod version;
mod watching;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::{JoinSet, spawn_blocking};

use self::ensembles::Parts;
use super::catalog::{Catalog, IndexEntry, ModelState};
use super::loading::Loader;
use super::supplied::Supplied;
use crate::allocator::release_at_rest;
use crate::model::check_name;
pub use crate::repository::Repository;
use crate::repository::{Fingerprint, RemoteError, RepositoryError, Upload, Uploads};
use crate::status::{Code, Status};

/// Who decides what is loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Control {
    /// Everything in the repository when the server starts, and nothing after.
    #[default]
    Start,
    /// Clients, by the model repository extension.
    Explicit,
    /// The repository, looked at again and again.
    Watch,
}

/// How long the memory of a version that is unloaded may take to come back: its queue is served.
const ROOM: Duration = Duration::from_secs(5);

/// Changes that clients have asked for, and that go on if they go away.
const CHANGES: usize = 64;

/// How often those are told of in the log that take longer.
const TELLS: Duration = Duration::from_secs(10);

/// What the reconciler knows of one model. Locked while the model is changed, so that changes to
/// one model come one after the other, and those to different models side by side.
#[derive(Debug, Default)]
struct Known {
    loaded: HashMap<u64, Fingerprint>,
    /// What watching saw last, to tell a folder that is still being copied from one that rests.
    seen: Option<Fingerprint>,
    /// What was tried last, so that watching does not try the same again.
    tried: Option<Fingerprint>,
    /// Why its files could not be looked at the last time, if they could not.
    refused: Option<String>,
    /// The files that it serves, if they came with a load.
    upload: Option<Upload>,
}

/// Brings what is served to what the repository says.
pub struct Reconciler {
    repository: Arc<Repository>,
    catalog: Arc<Catalog>,
    loader: Arc<Loader>,
    control: Control,
    known: Mutex<HashMap<Arc<str>, Arc<AsyncMutex<Known>>>>,
    parts: Parts,
    /// Loads that may run at once.
    places: Arc<Semaphore>,
    /// Changes that clients have asked for.
    changes: Arc<Semaphore>,
    /// Whether a model may be unloaded to make room for another.
    unload_least_used: bool,
    /// Models that were to serve from the start and do not yet; none before the start.
    missing: Mutex<Option<HashSet<String>>>,
    /// Files that came with loads.
    uploads: Arc<Uploads>,
}

impl std::fmt::Debug for Reconciler {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Reconciler").finish_non_exhaustive()
    }
}

impl Reconciler {
    /// A reconciler that loads up to `load_threads` versions at once and, if it may, unloads the least
    /// recently used models where memory is short.
    pub fn new(
        repository: Repository,
        catalog: Arc<Catalog>,
        loader: Loader,
        control: Control,
        load_threads: usize,
        unload_least_used: bool,
        uploads: Arc<Uploads>,
    ) -> Arc<Self> {
        Arc::new(Self {
            repository: Arc::new(repository),
            catalog,
            loader: Arc::new(loader),
            control,
            known: Mutex::default(),
            parts: Parts::default(),
            places: Arc::new(Semaphore::new(load_threads.max(1))),
            changes: Arc::new(Semaphore::new(CHANGES)),
            unload_least_used,
            missing: Mutex::new(None),
            uploads,
        })
    }

    /// Loads every model of the repository, or those named in explicit mode, and waits for all.
    ///
    /// A repository in a store is waited for, with looks that are about `interval` apart.
    pub async fn start(self: &Arc<Self>, named: &[String], interval: Duration) {
        self.repository.first_look(interval).await;
        let names = match self.control {
            Control::Explicit => named.to_vec(),
            Control::Start | Control::Watch => self.names().await.unwrap_or_else(|error| {
                tracing::error!(%error, "the repository cannot be read");
                Vec::new()
            }),
        };
        self.catalog.list(&names);
        let failed = self.load_side_by_side(names).await;
        *self.missing() = Some(failed);
        self.catalog.changes().note();
    }

    /// Whether everything that was to serve from the start does, with an executor alive.
    ///
    /// A model that comes later and does not load is not a reason to send clients elsewhere.
    pub fn is_ready(&self) -> bool {
        let none_missing = self.missing().as_ref().is_some_and(HashSet::is_empty);
        none_missing
            && self
                .catalog
                .serving()
                .iter()
                .all(|version| self.catalog.is_ready(&version.id.model, ""))
    }

    /// Loads or reloads a model because a client asks, with what it brings for that. Once begun it is seen through,
    /// whether or not this future is.
    pub async fn load(self: &Arc<Self>, model: &str, supplied: Supplied) -> Result<(), Status> {
        let (own, model) = (Arc::clone(self), model.to_owned());
        self.see_through(async move { own.load_now(&model, supplied).await })
            .await
    }

    async fn load_now(&self, model: &str, supplied: Supplied) -> Result<(), Status> {
        // Clients look for these words.
        let failed = |status: Status| status.about(format_args!("failed to load {model:?}"));
        self.allow("load")?;
        check_name(model).map_err(|error| failed(Status::invalid(error.to_string())))?;
        if supplied.files.is_empty() {
            let looked = self.repository.look_at(model).await;
            looked.map_err(|error| failed(unreadable(&error)))?;
        }
        self.bring_up(model, supplied).await.map_err(failed)?;
        self.follow(&[model.to_owned()]).await;
        Ok(())
    }

    /// Unloads a model because a client asks, and with its `parts` the models that it is made of and no
    /// other ensemble is. Once begun it is seen through, whether or not this future is.
    pub async fn unload(self: &Arc<Self>, model: &str, parts: bool) -> Result<(), Status> {
        let (own, model) = (Arc::clone(self), model.to_owned());
        self.see_through(async move { own.unload_now(&model, parts).await })
            .await
    }

    /// Makes a change in a task of its own: half of one, left where its client went away, would stay so.
    async fn see_through(
        &self,
        change: impl Future<Output = Result<(), Status>> + Send + 'static,
    ) -> Result<(), Status> {
        let Ok(place) = Arc::clone(&self.changes).acquire_owned().await else {
            return Err(Status::unavailable("the server is leaving"));
        };
        let change = tokio::spawn(async move {
            let _place = place;
            change.await
        });
        let made = change.await;
        made.unwrap_or_else(|broken| Err(Status::internal(format!("not done: {broken}"))))
    }

    async fn unload_now(&self, model: &str, parts: bool) -> Result<(), Status> {
        self.allow("unload")?;
        // A client can ask for any name; none that is unknown may cost memory.
        self.catalog.versions(model)?;
        let mut leaving = vec![model.to_owned()];
        while let Some(model) = leaving.pop() {
            let served = self.catalog.versions(&model).unwrap_or_default();
            self.take_down(&model).await;
            if parts {
                leaving.extend(self.parts_left(&served).await);
            }
        }
        Ok(())
    }

    async fn take_down(&self, model: &str) {
        let known = self.known(model);
        let mut known = known.lock().await;
        self.no_longer_missing(model);
        known.loaded.clear();
        // Looked up under the lock: a load that was under way has put in its version by now.
        for version in self.catalog.versions(model).unwrap_or_default() {
            self.catalog.retire(&version.id, "unloaded");
            tracing::info!(model = %version.id.model, version = version.id.version, "unloaded");
        }
        self.repository.release(model);
        if known.upload.take().is_some() {
            // Its files are gone, so there is nothing to load again.
            self.catalog.forget(model);
        } else {
            self.catalog.note_unloaded(&Arc::from(model));
        }
    }

    /// Every model and version, those in the repository that were never loaded among them.
    pub async fn index(&self) -> Result<Vec<IndexEntry>, Status> {
        let mut entries = self.catalog.index();
        let names = self.names().await.map_err(|error| unreadable(&error))?;
        let loads = self.catalog.loads();
        for name in names {
            if !entries.iter().any(|entry| *entry.model == *name) {
                let load = loads.iter().find(|(model, _)| **model == *name);
                let load = load.map(|(_, progress)| progress.clone());
                let entry = IndexEntry {
                    model: name.into(),
                    version: None,
                    state: ModelState::Unavailable,
                    reason: "not loaded".to_owned(),
                    failed: false,
                    progress: None,
                };
                entries.push(entry.under_way(load));
            }
        }
        Ok(entries)
    }

    fn allow(&self, what: &str) -> Result<(), Status> {
        if self.control == Control::Explicit {
            return Ok(());
        }
        Err(Status::new(
            Code::FailedPrecondition,
            format!("{what} is not allowed: start the server with --model-control explicit"),
        ))
    }

    async fn names(&self) -> Result<Vec<String>, RepositoryError> {
        let repository = Arc::clone(&self.repository);
        blocking(move || repository.names()).await
    }

    /// Loads these, and gives those that failed; why is in the log and in the index.
    async fn load_side_by_side(self: &Arc<Self>, names: Vec<String>) -> HashSet<String> {
        let mut loads = JoinSet::new();
        for name in names {
            let this = Arc::clone(self);
            loads.spawn(async move {
                this.bring_up(&name, Supplied::default())
                    .await
                    .is_err()
                    .then_some(name)
            });
        }
        let mut failed = HashSet::new();
        let clock = &self.loader.clock;
        let mut tells = clock.sleep_until(clock.now() + TELLS);
        loop {
            tokio::select! {
                ended = loads.join_next() => match ended {
                    // One that panics has said so, and leaves its name missing.
                    Some(name) => failed.extend(name.ok().flatten()),
                    None => return failed,
                },
                () = &mut tells => {
                    self.tell_loads();
                    tells = clock.sleep_until(clock.now() + TELLS);
                }
            }
        }
    }

    /// Says how far those loads are that take long.
    fn tell_loads(&self) {
        for (model, progress) in self.catalog.loads() {
            if progress.took >= TELLS {
                tracing::info!(%model, version = progress.version, "loading: {progress}");
            }
        }
    }

    fn no_longer_missing(&self, model: &str) {
        if let Some(missing) = self.missing().as_mut() {
            missing.remove(model);
        }
    }

    fn missing(&self) -> MutexGuard<'_, Option<HashSet<String>>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, model: &str) -> Arc<AsyncMutex<Known>> {
        Arc::clone(self.known_models().entry(Arc::from(model)).or_default())
    }

    fn known_models(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<AsyncMutex<Known>>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(error: &RepositoryError) -> Status {
    let code = match error {
        // The store may be back soon.
        RepositoryError::Remote(RemoteError::Store { .. }) => Code::Unavailable,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// Runs what blocks on files away from the threads that serve.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RepositoryError> + Send + 'static,
) -> Result<T, RepositoryError> {
    let work = move || {
        let done = work();
        release_at_rest();
        done
    };
    spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(RepositoryError::Panicked(panic.to_string())))
}
