//! How a model is taken: what is missing is fetched, its configuration read, and a view made.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;

use super::RemoteError;
use super::cache::{Cache, Made};
use super::digest::Digest;
use super::fetch::fetch;
use super::mirror::Mirror;
use super::object::{Object, Unit};
use super::record::{Entry, Record};
use super::state::Taken;
use crate::model::{BackendPolicy, ModelPolicy};
use crate::repository::{Fetched, ModelFolder};

/// Objects that are fetched at the same time, of all models together.
pub(super) const FETCHES: usize = 8;
/// What a version has, unless it is simulated; without it, it is still being uploaded.
const MODEL: &str = ".onnx";

impl Mirror {
    /// Takes these objects of a model, or those of them that are served: what is doubted is fetched anew, and
    /// believed if it cannot be.
    pub(super) async fn take(
        &self,
        model: &str,
        objects: Vec<Object>,
        fetched: &Fetched,
    ) -> Result<Taken, RemoteError> {
        self.set_up().await?;
        let before = self.record(model);
        if before.has_doubts() {
            let mut known = before.clone();
            known.entries.retain(|entry| !entry.doubted);
            match self.take_knowing(model, &objects, &known, fetched).await {
                Err(error) => {
                    tracing::warn!(model, %error, "not fetched anew; what came before is taken");
                }
                taken => return taken,
            }
        }
        self.take_knowing(model, &objects, &before, fetched).await
    }

    /// The same with what is known of them.
    async fn take_knowing(
        &self,
        model: &str,
        objects: &[Object],
        before: &Record,
        fetched: &Fetched,
    ) -> Result<Taken, RemoteError> {
        let known = &before.digests();
        let (root, versions): (Vec<Object>, Vec<Object>) = objects
            .iter()
            .cloned()
            .partition(|object| object.unit() == Unit::Root);
        let mut made = self.gather(model, root, known, fetched).await?;
        let policy = self.policy(model, &made).await?;
        let there = whole(&versions, policy.as_ref());
        if there.is_empty() {
            return Err(RemoteError::Incomplete {
                url: self.url.clone(),
                model: model.to_owned(),
            });
        }
        // A configuration that is wrong is taken too, to be explained.
        let chosen = policy.map_or_else(Vec::new, |policy| policy.versions.choose(&there));
        let wanted = versions.into_iter().filter(|object| match object.unit() {
            Unit::Version(version) => chosen.contains(&version),
            Unit::Root => false,
        });
        let wanted = wanted.collect();
        made.extend(self.gather(model, wanted, known, fetched).await?);
        self.keep(model, objects, made, there, before).await
    }

    /// What was taken of a model last.
    fn record(&self, model: &str) -> Record {
        let state = self.state();
        let known = state.models.get(model);
        let taken = known.and_then(|known| known.taken.as_ref());
        match taken {
            Some(taken) => taken.record.clone(),
            None => Record::read(&self.records, model).unwrap_or_default(),
        }
    }

    /// Brings objects to the desk: from the cache where it has them, else from the store.
    async fn gather(
        &self,
        model: &str,
        objects: Vec<Object>,
        known: &HashMap<Object, Digest>,
        fetched: &Fetched,
    ) -> Result<Vec<Made>, RemoteError> {
        let wanted = objects.into_iter().map(|object| {
            let digest = known.get(&object).cloned();
            (object, digest)
        });
        let wanted: Vec<(Object, Option<Digest>)> = wanted.collect();
        let (mut made, missing) = self.blocking(move |cache| found(cache, wanted)).await?;
        if missing.is_empty() {
            return Ok(made);
        }
        let guard = self.cache.enter(self.clock.as_ref()).await?;
        let sizes: Vec<u64> = missing.iter().map(|object| object.size).collect();
        fetched.expect(sizes.iter().sum());
        let reserve = move |cache: &Cache| cache.reserve(&guard, &sizes);
        let places = self.blocking(reserve).await?;
        let fetches = missing
            .into_iter()
            .zip(places)
            .map(async |(object, place)| {
                let location = self.location(&format!("{model}/{}", object.path))?;
                let place = Arc::new(place);
                // It is never closed.
                let _one = self.fetches.acquire().await;
                let copy = Arc::clone(&place);
                let digest = fetch(self.store.as_ref(), &location, &object, copy, fetched).await?;
                let path = object.path;
                Ok::<_, RemoteError>(Made {
                    path,
                    digest,
                    place,
                })
            });
        let fetched = stream::iter(fetches).buffer_unordered(FETCHES);
        made.extend(fetched.try_collect::<Vec<Made>>().await?);
        Ok(made)
    }

    /// What the model's configuration says; none if it is wrong.
    async fn policy(&self, model: &str, root: &[Made]) -> Result<Option<ModelPolicy>, RemoteError> {
        let (model, root) = (model.to_owned(), root.to_vec());
        self.blocking(move |cache| {
            let place = cache.lay_out(&model, &root, &[])?;
            let folder = ModelFolder::read(&place.path.join(&model), &model);
            Ok(folder.ok().map(|folder| folder.policy))
        })
        .await
    }

    /// Puts what was gathered into the cache, and writes down what it is.
    async fn keep(
        &self,
        model: &str,
        objects: &[Object],
        made: Vec<Made>,
        versions: Vec<u64>,
        before: &Record,
    ) -> Result<Taken, RemoteError> {
        let digests: HashMap<&str, &Digest> = made
            .iter()
            .map(|made| (made.path.as_str(), &made.digest))
            .collect();
        let entries = objects.iter().map(|object| Entry {
            digest: digests
                .get(object.path.as_str())
                .map(|digest| (*digest).clone()),
            object: object.clone(),
            doubted: before.doubts(object),
        });
        let record = Record {
            entries: entries.collect(),
        };
        let guard = self.cache.enter(self.clock.as_ref()).await?;
        let (model, records) = (model.to_owned(), self.records.clone());
        self.blocking(move |cache| {
            let view = Arc::new(cache.put(&guard, &model, made, &versions)?);
            let draft = cache.draft()?;
            if let Err(error) = record.write(&records, &model, &draft.path) {
                tracing::warn!(model, %error, "a restart will not know what is in the cache");
            }
            Ok(Taken {
                record,
                view,
                doubted: false,
            })
        })
        .await
    }

    /// Waits, but not for ever, for another server that holds the cache's lock, if this one has never had it.
    pub(super) async fn set_up(&self) -> Result<(), RemoteError> {
        if self.cache.is_set_up() {
            return Ok(());
        }
        let guard = self.cache.enter(self.clock.as_ref()).await?;
        self.blocking(move |cache| cache.set_up(&guard)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cache) -> Result<T, RemoteError> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let cache = Arc::clone(&self.cache);
        let done = spawn_blocking(move || work(&cache)).await;
        done.unwrap_or_else(|panic| Err(RemoteError::Panicked(panic.to_string())))
    }
}

/// Which of these the cache has, on the desk, and which it has not.
fn found(
    cache: &Cache,
    wanted: Vec<(Object, Option<Digest>)>,
) -> Result<(Vec<Made>, Vec<Object>), RemoteError> {
    let (mut made, mut missing) = (Vec::new(), Vec::new());
    for (object, digest) in wanted {
        let place = match &digest {
            Some(digest) => cache.find(digest)?,
            None => None,
        };
        match (digest, place) {
            (Some(digest), Some(place)) => made.push(Made {
                path: object.path,
                digest,
                place,
            }),
            _ => missing.push(object),
        }
    }
    Ok((made, missing))
}

/// The versions of which everything that is needed to load them is there.
fn whole(objects: &[Object], policy: Option<&ModelPolicy>) -> Vec<u64> {
    let simulated =
        policy.is_none_or(|policy| matches!(policy.backend, BackendPolicy::Simulated(_)));
    let needed = objects
        .iter()
        .filter(|object| simulated || object.path.ends_with(MODEL));
    let versions: HashSet<u64> = needed
        .filter_map(|object| match object.unit() {
            Unit::Version(version) => Some(version),
            Unit::Root => None,
        })
        .collect();
    let mut versions: Vec<u64> = versions.into_iter().collect();
    versions.sort_unstable();
    versions
}
