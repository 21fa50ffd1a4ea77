//! Brings what is served to what the repository says: load, warm, swap, drain.
//!
//! A version is loaded beside the one that serves and takes its place only when it is warm; one
//! that does not load leaves the old one serving and says why in the index.

mod ensembles;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::{JoinSet, spawn_blocking};

use super::budget::OverBudget;
use super::catalog::{Catalog, IndexEntry, ModelState, Version};
use super::loading::{LoadFailure, Loader};
use super::progress::{Phase, Progress};
use super::supplied::Supplied;
use crate::backend::Artifact;
use crate::clock::Clock;
use crate::model::{VersionId, check_name};
pub use crate::repository::Repository;
use crate::repository::{
    Fingerprint, MOST_NESTED, ModelFolder, RemoteError, RepositoryError, Upload, Uploads,
};
use crate::status::{Code, Status};
use ensembles::Parts;

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

    /// Loads or reloads a model because a client asks, with what it brings for that.
    pub async fn load(&self, model: &str, supplied: Supplied) -> Result<(), Status> {
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
    /// other ensemble is.
    pub async fn unload(&self, model: &str, parts: bool) -> Result<(), Status> {
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

    /// Loads what the repository says of one model, after the models that it is made of. No lock is
    /// held while those are waited for.
    async fn bring_up(&self, model: &str, supplied: Supplied) -> Result<(), Status> {
        let load = self.catalog.begin(model, &self.loader.clock);
        let progress = &load.progress;
        let needs = self.needs(model, progress).await;
        for part in needs.iter().flatten() {
            self.bring_up_part(part).await;
        }
        let needs = needs.map(drop);
        self.bring_up_itself(model, needs, supplied, progress).await
    }

    async fn bring_up_itself(
        &self,
        model: &str,
        needs: Result<(), RepositoryError>,
        supplied: Supplied,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let known = self.known(model);
        let mut known = known.lock().await;
        let name: Arc<str> = Arc::from(model);
        let start = self.loader.clock.now();
        let result = match supplied.is_empty() {
            true => self.reload(&name, &mut known, needs, progress).await,
            false => self.reload_as(&name, &mut known, supplied, progress).await,
        };
        if let Err(status) = &result {
            let took_ms = self.loader.took_ms(start);
            tracing::error!(model, reason = status.message, took_ms, "not loaded");
        } else {
            self.no_longer_missing(model);
        }
        result
    }

    async fn reload(
        &self,
        name: &Arc<str>,
        known: &mut Known,
        needs: Result<(), RepositoryError>,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let folder = match self.folder(name, progress).await {
            Ok((folder, fingerprint)) => {
                known.seen = Some(fingerprint.clone());
                known.tried = Some(fingerprint);
                self.parts.note(name, folder.policy.ensemble.as_ref());
                needs.map(|()| folder)
            }
            Err(error) => Err(error),
        };
        let folder = match folder {
            Ok(folder) => folder,
            Err(RepositoryError::NoModel { .. }) if known.loaded.is_empty() => {
                // A client can ask for any name; none of them may cost memory.
                self.known_models().remove(name);
                self.parts.forget(name);
                let reason = format!("there is no model {name:?} in the repository");
                if self.catalog.versions(name).is_ok() {
                    self.catalog.note_model(name, &reason);
                }
                return Err(Status::not_found(reason));
            }
            Err(error) => {
                self.catalog.note_model(name, &error.to_string());
                return Err(unreadable(&error));
            }
        };
        let result = self.install(name, known, folder, progress).await;
        if result.is_ok() {
            known.upload = None;
        }
        result
    }

    /// Loads a model as a client says, with its files if some came.
    async fn reload_as(
        &self,
        name: &Arc<str>,
        known: &mut Known,
        supplied: Supplied,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let (repository, uploads) = (Arc::clone(&self.repository), Arc::clone(&self.uploads));
        let model = name.to_string();
        let read = blocking(move || {
            let Supplied { config, files } = supplied;
            let config = config.unwrap_or_default();
            if files.is_empty() {
                return Ok((repository.read_as(&model, &config)?, None));
            }
            let (folder, upload) = uploads.take(&model, &config, &files)?;
            Ok((folder, Some(upload)))
        })
        .await;
        let (folder, upload) = match read {
            Ok(read) => read,
            Err(error) => {
                self.forget_stranger(name, known);
                return Err(not_taken(&error));
            }
        };
        self.parts.note(name, folder.policy.ensemble.as_ref());
        let before = known.loaded.clone();
        let result = self.install(name, known, folder, progress).await;
        if result.is_ok() || known.loaded != before {
            known.upload = upload;
        } else {
            let came = upload.is_some();
            drop(upload);
            if came && known.loaded.is_empty() {
                self.catalog.forget(name);
            }
            self.forget_stranger(name, known);
        }
        result
    }

    /// A client can ask for any name; none that nothing is known of may cost memory.
    fn forget_stranger(&self, name: &Arc<str>, known: &Known) {
        if known.loaded.is_empty() && self.catalog.versions(name).is_err() {
            self.known_models().remove(name);
        }
    }

    /// The model's folder and what it looks like, brought here if it is elsewhere.
    async fn folder(
        &self,
        name: &str,
        progress: &Progress,
    ) -> Result<(ModelFolder, Fingerprint), RepositoryError> {
        self.repository.bring(name, &progress.fetched).await?;
        let repository = Arc::clone(&self.repository);
        let model = name.to_owned();
        blocking(move || {
            let fingerprint = repository.fingerprint(&model)?;
            Ok((repository.read(&model)?, fingerprint))
        })
        .await
    }

    async fn install(
        &self,
        name: &Arc<str>,
        known: &mut Known,
        folder: ModelFolder,
        progress: &Arc<Progress>,
    ) -> Result<(), Status> {
        let wanted = folder.policy.versions.choose(&folder.versions());
        if wanted.is_empty() {
            let reason = folder.nothing_to_serve();
            self.catalog.note_model(name, &reason);
            return Err(Status::new(Code::FailedPrecondition, reason));
        }
        let mut failures = Vec::new();
        for version in &wanted {
            let id = VersionId {
                model: Arc::clone(name),
                version: *version,
            };
            let fingerprint = folder.fingerprint(*version);
            // What an ensemble is made of may have changed, and nothing is loaded for it.
            let fixed = folder.policy.ensemble.is_none() && !self.catalog.is_taken_out(&id);
            if fixed && known.loaded.get(version) == Some(&fingerprint) {
                self.catalog.note(&id, ModelState::Ready, "");
                continue;
            }
            let artifact = folder.artifact(id);
            let key = self.loader.key(&artifact, &fingerprint);
            progress.of_version(*version, self.loader.past(&key));
            match self.load_version(artifact, &key, progress).await {
                Ok(()) => drop(known.loaded.insert(*version, fingerprint)),
                Err(reason) => failures.push(reason),
            }
        }
        self.catalog.note_model(name, "");
        let result = if failures.is_empty() {
            self.retire_all_but(name, &wanted);
            known.loaded.retain(|version, _| wanted.contains(version));
            Ok(())
        } else {
            Err(Status::new(Code::FailedPrecondition, failures.join("; ")))
        };
        self.catalog.forget_versions_but(name, &folder.versions());
        result
    }

    async fn load_version(
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
            let loaded = spawn_blocking(move || {
                let _place = place;
                let loaded = loader.load(&own, &notes);
                if let Ok(version) = &loaded {
                    loader.note(&key, version, &notes);
                }
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

    fn retire_all_but(&self, name: &Arc<str>, wanted: &[u64]) {
        for version in self.catalog.versions(name).unwrap_or_default() {
            if !wanted.contains(&version.id.version) {
                self.catalog.retire(&version.id, "superseded");
                tracing::info!(model = %version.id.model, version = version.id.version, "superseded");
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

/// Why what a client brought is not loaded.
fn not_taken(error: &RepositoryError) -> Status {
    let code = match error {
        RepositoryError::Refused(_) | RepositoryError::Configuration(_) => Code::InvalidArgument,
        RepositoryError::Crowded { .. } => Code::ResourceExhausted,
        RepositoryError::NoModel { .. } => Code::NotFound,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
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
    spawn_blocking(work)
        .await
        .unwrap_or_else(|panic| Err(RepositoryError::Panicked(panic.to_string())))
}
