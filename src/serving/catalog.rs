//! What is served at this moment: models, their versions, and where each stands.
//!
//! Requests read a snapshot without a lock; the reconciler alone writes.

mod entry;
mod models;
mod ready;
mod version;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

pub use self::entry::{IndexEntry, ModelState};
use self::models::{Model, Models, Slot, not_ready};
pub use self::version::Version;
use super::changes::Changes;
use super::progress::{LoadProgress, Loads, Underway};
use crate::clock::Clock;
use crate::model::VersionId;
use crate::status::Status;

/// What is served at this moment.
#[derive(Debug, Default)]
pub struct Catalog {
    models: ArcSwap<Models>,
    /// Held while a changed copy of the models is made.
    writing: Mutex<()>,
    changes: Changes,
    loads: Loads,
}

impl Catalog {
    /// The version a request names: its number, or empty for the newest that serves.
    pub fn resolve(&self, model: &str, version: &str) -> Result<Arc<Version>, Status> {
        let models = self.models.load();
        let (name, found) = models.get(model)?;
        let slot = if version.is_empty() {
            let mut newest_first = found.versions.values().rev();
            newest_first.find(|slot| slot.version.is_some())
        } else {
            found.versions.get(&number(name, version)?)
        };
        match slot {
            Some(Slot {
                version: Some(version),
                ..
            }) => Ok(Arc::clone(version)),
            Some(slot) => {
                let reason = slot.reason_with(self.loads.of(name));
                Err(not_ready(name, version, slot.state, &reason))
            }
            None if version.is_empty() => Err(found.nothing_serves(name, self.loads.of(name))),
            None => Err(Status::not_found(format!(
                "model {name:?} has no version {version}; it has {}",
                join(found.versions.keys())
            ))),
        }
    }

    /// Every model and version known, by name and number.
    pub fn index(&self) -> Vec<IndexEntry> {
        let models = self.models.load();
        let mut entries = Vec::new();
        let loads = self.loads.all();
        for (name, model) in &models.named {
            let load = loads.iter().find(|(model, _)| model == name);
            let load = || load.map(|(_, progress)| progress.clone());
            entries.extend(model.versions.iter().map(|(version, slot)| {
                let down = slot.version.as_ref().and_then(|version| version.down());
                IndexEntry {
                    model: Arc::clone(name),
                    version: Some(*version),
                    state: match down {
                        Some(_) => ModelState::Unavailable,
                        None => slot.state,
                    },
                    reason: down.unwrap_or_else(|| reason_of(model, slot).to_owned()),
                    failed: slot.failed || model.failed,
                    progress: None,
                }
                .under_way(load())
            }));
            if model.versions.is_empty() {
                entries.push(
                    IndexEntry {
                        model: Arc::clone(name),
                        version: None,
                        state: ModelState::Unavailable,
                        reason: model.reason.clone(),
                        failed: model.failed,
                        progress: None,
                    }
                    .under_way(load()),
                );
            }
        }
        entries.sort_by(|a, b| (&a.model, a.version).cmp(&(&b.model, b.version)));
        entries
    }

    /// Every version that serves, by name and number.
    pub fn serving(&self) -> Vec<Arc<Version>> {
        let models = self.models.load();
        let slots = models
            .named
            .values()
            .flat_map(|model| model.versions.values());
        let mut versions: Vec<Arc<Version>> =
            slots.filter_map(|slot| slot.version.clone()).collect();
        versions.sort_by(|a, b| a.id.cmp(&b.id));
        versions
    }

    /// Whether this version serves, but for being left alone because its workers die.
    pub(super) fn is_taken_out(&self, id: &VersionId) -> bool {
        let versions = self.versions(&id.model).unwrap_or_default();
        let mut versions = versions.iter();
        versions.any(|version| version.id == *id && version.is_taken_out())
    }

    /// The versions of one model that serve; an error if the model is not known.
    pub fn versions(&self, model: &str) -> Result<Vec<Arc<Version>>, Status> {
        let models = self.models.load();
        let (_, found) = models.get(model)?;
        let slots = found.versions.values();
        Ok(slots.filter_map(|slot| slot.version.clone()).collect())
    }

    /// The names of all models known, whether they serve or not.
    pub fn models(&self) -> Vec<Arc<str>> {
        self.models.load().named.keys().cloned().collect()
    }

    /// Whom to watch to learn of changes, those of executors among them.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Has a load known of for as long as what this gives is there.
    pub(super) fn begin(&self, model: &str, clock: &Arc<dyn Clock>) -> Underway<'_> {
        self.loads.begin(model, Arc::clone(clock))
    }

    /// The loads that are under way, by model.
    pub fn loads(&self) -> Vec<(Arc<str>, LoadProgress)> {
        self.loads.all()
    }

    /// Takes in the names of the models that are to serve; before that no name is known to be wrong.
    pub(super) fn list(&self, names: &[String]) {
        self.write(|models| {
            for name in names {
                let model = models.named.entry(Arc::from(name.as_str())).or_default();
                "not loaded yet".clone_into(&mut model.reason);
            }
            models.listed = true;
        });
    }

    /// Says where a version stands, leaving the one that serves in place.
    pub(super) fn note(&self, id: &VersionId, state: ModelState, reason: &str) {
        self.change(&id.model, |model| {
            let slot = model.versions.entry(id.version).or_insert(Slot {
                state,
                reason: String::new(),
                failed: false,
                version: None,
            });
            slot.failed = state == ModelState::Unavailable;
            if slot.version.is_none() {
                slot.state = state;
            }
            reason.clone_into(&mut slot.reason);
        });
    }

    /// Puts a version into service in place of the one of its number.
    pub(super) fn install(&self, version: Arc<Version>) {
        let id = version.id.clone();
        let mut old = None;
        self.change(&id.model, |model| {
            model.reason.clear();
            model.failed = false;
            let slot = Slot {
                state: ModelState::Ready,
                reason: String::new(),
                failed: false,
                version: Some(Arc::clone(&version)),
            };
            old = model.versions.insert(id.version, slot);
        });
        // Not before: whoever finds it closed looks again, and has to find the new one.
        close(old);
    }

    /// Takes a version out of service; it finishes what it has.
    pub(super) fn retire(&self, id: &VersionId, reason: &str) {
        let mut old = None;
        self.change(&id.model, |model| {
            let slot = Slot {
                state: ModelState::Unavailable,
                reason: reason.to_owned(),
                failed: false,
                version: None,
            };
            old = model.versions.insert(id.version, slot);
        });
        close(old);
    }

    /// Says why a model could not be loaded; nothing if it was.
    pub(super) fn note_model(&self, name: &Arc<str>, reason: &str) {
        self.change(name, |model| {
            reason.clone_into(&mut model.reason);
            model.failed = !reason.is_empty();
        });
    }

    /// Says that a model has no version because nobody wants one.
    pub(super) fn note_unloaded(&self, name: &Arc<str>) {
        self.change(name, |model| {
            "unloaded".clone_into(&mut model.reason);
            model.failed = false;
        });
    }

    /// Forgets versions that are no longer in the repository and do not serve.
    pub(super) fn forget_versions_but(&self, name: &Arc<str>, there: &[u64]) {
        self.change(name, |model| {
            model
                .versions
                .retain(|version, slot| slot.version.is_some() || there.contains(version));
        });
    }

    /// Forgets a model that is no longer in the repository.
    pub(super) fn forget(&self, name: &str) {
        self.write(|models| {
            if let Some(model) = models.named.remove(name) {
                model
                    .versions
                    .into_values()
                    .for_each(|slot| close(Some(slot)));
            }
        });
    }

    fn change(&self, name: &Arc<str>, change: impl FnOnce(&mut Model)) {
        self.write(|models| change(models.named.entry(Arc::clone(name)).or_default()));
    }

    fn write(&self, change: impl FnOnce(&mut Models)) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut models = Models::clone(&self.models.load());
        change(&mut models);
        self.models.store(Arc::new(models));
        self.changes.note();
    }
}

/// A request that holds this version already is answered; a new one finds the next version.
fn close(slot: Option<Slot>) {
    if let Some(version) = slot.and_then(|slot| slot.version) {
        version.close();
    }
}

/// What there is to say of a version: its own reason, or why a serving one was not replaced.
fn reason_of<'a>(model: &'a Model, slot: &'a Slot) -> &'a str {
    if slot.reason.is_empty() && slot.version.is_some() {
        &model.reason
    } else {
        &slot.reason
    }
}

fn number(model: &str, version: &str) -> Result<u64, Status> {
    version.parse().map_err(|_| {
        let version: String = version.chars().take(32).collect();
        Status::invalid(format!(
            "model {model:?}: version {version:?} is not a number; leave it empty for the newest"
        ))
    })
}

fn join<'a>(versions: impl Iterator<Item = &'a u64>) -> String {
    let versions: Vec<String> = versions.map(ToString::to_string).collect();
    if versions.is_empty() {
        "none".to_owned()
    } else {
        versions.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Code;

    #[test]
    fn a_name_is_wrong_once_all_names_are_known() {
        let catalog = Catalog::default();
        let code = |name| catalog.resolve(name, "").unwrap_err().code;
        assert_eq!(code("digits"), Code::Unavailable);
        assert_eq!(code("faces"), Code::Unavailable);
        catalog.list(&["digits".to_owned()]);
        assert_eq!(code("digits"), Code::Unavailable);
        assert_eq!(code("faces"), Code::NotFound);
        assert_eq!(catalog.index()[0].reason, "not loaded yet");
    }
}
