//! What is served at this moment: models, their versions, and where each stands.
//!
//! Requests read a snapshot without a lock; the reconciler alone writes.

mod ready;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::breaker::Casualties;
use super::cache::Cached;
use super::changes::Changes;
use super::ensemble::Ensemble;
use super::graph::Interface;
use super::inputs::InputCheck;
use super::journey::Trip;
use super::lane::Demand;
use super::order::Order;
use super::profile::{Profile, profile};
use super::progress::{LoadProgress, Loads, Underway};
use super::runner::Runner;
use super::sequences::Sequences;
use super::site::Site;
use super::statistics::{Ledger, Statistics};
use crate::clock::Clock;
use crate::model::{Batching, ModelPolicy, Signature, VersionId};
use crate::scheduler::Learned;
use crate::status::{Code, Status};

/// Where nobody says within what time requests are to be answered.
const DEFAULT_OBJECTIVE: Duration = Duration::from_secs(1);

/// A loaded version.
#[derive(Debug)]
pub struct Version {
    /// Which version this is.
    pub id: VersionId,
    /// What clients send and see.
    pub signature: Signature,
    /// What the model itself takes and gives: more, if it is stateful.
    pub whole: Signature,
    /// Whether requests share runs, and why not.
    pub batching: Batching,
    /// How it is served.
    pub policy: ModelPolicy,
    /// Where its instances are.
    pub devices: Vec<String>,
    /// Wall-clock nanoseconds since the Unix epoch when it was made ready.
    pub loaded_wall_nanoseconds: u64,
    /// Memory that it was found to take, by device; empty if that was not measured.
    pub memory: Vec<(String, u64)>,
    /// Models that run for one request: 1, but for ensembles.
    pub(super) runs: usize,
    pub(super) runner: Runner,
    /// Where its first instance is; an ensemble is nowhere.
    pub(super) site: Option<Arc<Site>>,
    pub(super) output_names: Vec<Arc<str>>,
    pub(super) check: InputCheck,
    /// Its sequences, if it is stateful.
    pub(super) sequences: Option<Arc<Sequences>>,
    /// Whose answer leaves when, if that matters.
    pub(super) order: Option<Arc<Order>>,
    pub(super) ledger: Arc<Ledger>,
    /// Its answers that are given again, if it has them cached.
    pub(super) cached: Option<Cached>,
}

impl Version {
    /// The most rows that one request, and one batch, may have; 1 if requests run alone.
    pub fn max_batch_size(&self) -> usize {
        match self.batching {
            Batching::Rows => self.policy.batch.max_batch_size,
            Batching::Alone(_) => 1,
        }
    }

    /// What was learned of its batches on each device that has run one.
    pub fn service_times(&self) -> impl Iterator<Item = (String, Learned)> {
        let mut names: Vec<String> = Vec::new();
        for device in &self.devices {
            if !names.contains(device) {
                names.push(device.clone());
            }
        }
        let learned = self.runner.learned();
        let known = names.into_iter().zip(learned);
        known.filter_map(|(device, learned)| Some((device, learned?)))
    }

    /// The last batches, oldest first; of an ensemble there are none.
    pub fn recent(&self) -> Vec<Arc<Trip>> {
        self.ledger.recent()
    }

    /// What is asked of it and what it can do; none of an ensemble, whose models' that is.
    pub fn demand(&self) -> Option<Demand> {
        match &self.runner {
            Runner::Lane(lane) => Some(lane.demand(self.objective())),
            Runner::Ensemble(_) => None,
        }
    }

    /// The time within which its requests are to be answered.
    pub fn objective(&self) -> Duration {
        let queue = &self.policy.queue;
        let stated = queue.latency_objective.or(queue.default_deadline);
        stated.unwrap_or(DEFAULT_OBJECTIVE)
    }

    /// Requests waiting for an executor; those of an ensemble wait for its models'.
    pub fn queued(&self) -> usize {
        match &self.runner {
            Runner::Lane(lane) => lane.queued(),
            Runner::Ensemble(_) => 0,
        }
    }

    /// Executors that can run a batch; an ensemble has none of its own.
    pub fn executors_alive(&self) -> usize {
        match &self.runner {
            Runner::Lane(lane) => lane.executors_alive(),
            Runner::Ensemble(_) => 0,
        }
    }

    /// Why none of its executors can run a batch, if that is so.
    pub fn down(&self) -> Option<String> {
        match &self.runner {
            Runner::Lane(lane) => lane.down(),
            Runner::Ensemble(_) => None,
        }
    }

    /// What went wrong with its executors.
    pub fn casualties(&self) -> Casualties {
        match &self.runner {
            Runner::Lane(lane) => lane.breaker.casualties(),
            Runner::Ensemble(_) => Casualties::default(),
        }
    }

    /// Whether it is left alone because its workers die.
    pub(super) fn is_taken_out(&self) -> bool {
        match &self.runner {
            Runner::Lane(lane) => lane.breaker.taken_out().is_some(),
            Runner::Ensemble(_) => false,
        }
    }

    /// Its graph, if it is an ensemble.
    pub fn ensemble(&self) -> Option<&Ensemble> {
        match &self.runner {
            Runner::Lane(_) => None,
            Runner::Ensemble(ensemble) => Some(ensemble),
        }
    }

    /// What a client sees of it.
    pub(super) fn interface(&self) -> Interface {
        Interface {
            signature: self.signature.clone(),
            batching: self.batching.clone(),
            max_batch_size: self.max_batch_size(),
            spare: self.policy.spare().map(str::to_owned).collect(),
            together: None,
            runs: self.runs,
        }
    }

    /// Sequences that are going on; 0 if it is not stateful.
    pub fn live_sequences(&self) -> usize {
        let sequences = self.sequences.as_ref();
        sequences.map_or(0, |sequences| sequences.live())
    }

    /// Takes no more requests, and ends its sequences.
    fn close(&self) {
        self.runner.close();
        if let Some(sequences) = &self.sequences {
            sequences.close();
        }
    }

    /// Where its time goes, operator by operator: of up to so many batches of real requests, those that
    /// come within `patience`. Fails if it has no operators, or none run, or a profile is being made.
    pub async fn profile(
        &self,
        clock: &dyn Clock,
        batches: usize,
        patience: Duration,
    ) -> Result<Profile, Status> {
        let (Runner::Lane(lane), Some(site)) = (&self.runner, &self.site) else {
            let message = format!(
                "{} is an ensemble; profile the models of its steps",
                self.id
            );
            return Err(Status::new(Code::FailedPrecondition, message));
        };
        let profile = profile(lane, Arc::clone(site), clock, batches, patience);
        profile.await.map_err(|status| status.about(&self.id))
    }

    /// What it has done so far.
    pub fn statistics(&self) -> Statistics {
        self.ledger.read()
    }
}

impl Drop for Version {
    /// The last one who knew this version lets its executors end.
    fn drop(&mut self) {
        self.close();
    }
}

/// Where a version stands, in the words of the model repository extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed.
    Loading,
    /// Serving.
    Ready,
    /// Not serving.
    Unavailable,
}

impl ModelState {
    /// The protocol's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loading => "LOADING",
            Self::Ready => "READY",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// One line of the repository's index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    /// The model's name.
    pub model: Arc<str>,
    /// The version, if there is one to speak of.
    pub version: Option<u64>,
    /// Where it stands.
    pub state: ModelState,
    /// Why, if there is something to say.
    pub reason: String,
    /// Whether the last try to load it failed; an earlier one may serve.
    pub failed: bool,
    /// How far it is, if it is being loaded.
    pub progress: Option<LoadProgress>,
}

impl IndexEntry {
    /// The entry of what is being loaded, which says how far it is where there is nothing else to say.
    pub(super) fn under_way(mut self, progress: Option<LoadProgress>) -> Self {
        let Some(progress) = progress else {
            return self;
        };
        match (self.version, progress.version) {
            (Some(own), Some(other)) if own != other => return self,
            (Some(_), None) => return self,
            (None, _) => self.state = ModelState::Loading,
            (Some(_), Some(_)) => {}
        }
        if self.reason.is_empty() || self.version.is_none() {
            self.reason = progress.to_string();
        }
        self.progress = Some(progress);
        self
    }
}

#[derive(Clone, Debug)]
struct Slot {
    state: ModelState,
    reason: String,
    failed: bool,
    version: Option<Arc<Version>>,
}

impl Slot {
    /// Its reason, or how far it is.
    fn reason_with(&self, progress: Option<LoadProgress>) -> String {
        match progress {
            Some(progress) if self.reason.is_empty() => progress.to_string(),
            _ => self.reason.clone(),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Model {
    versions: BTreeMap<u64, Slot>,
    /// Why there is no version, or why the last load failed.
    reason: String,
    /// Whether it failed.
    failed: bool,
}

impl Model {
    /// Why a request that names no version finds none.
    fn nothing_serves(&self, name: &str, progress: Option<LoadProgress>) -> Status {
        match (self.versions.last_key_value(), progress) {
            (None, Some(progress)) => {
                not_ready(name, "", ModelState::Loading, &progress.to_string())
            }
            (Some((version, slot)), progress) if self.reason.is_empty() || progress.is_some() => {
                let reason = slot.reason_with(progress);
                not_ready(name, &version.to_string(), slot.state, &reason)
            }
            _ => not_ready(name, "", ModelState::Unavailable, &self.reason),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Models {
    named: HashMap<Arc<str>, Model>,
    /// Whether those that are to serve from the start are in it. Until then any name may yet come.
    listed: bool,
}

impl Models {
    fn get(&self, name: &str) -> Result<(&Arc<str>, &Model), Status> {
        let found = self.named.get_key_value(name);
        found.ok_or_else(|| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Status {
        if !self.listed {
            return Status::unavailable(
                "the server has just started and does not know its models yet",
            );
        }
        let mut names: Vec<&str> = self.named.keys().map(AsRef::as_ref).collect();
        names.sort_unstable();
        names.truncate(20);
        // A name can be as long as the message that brought it.
        let name: String = name.chars().take(64).collect();
        Status::not_found(format!(
            // Clients look for these words.
            "Request for unknown model {name:?}; there {}",
            match names.len() {
                0 => "are none".to_owned(),
                1 => format!("is {}", names.join(", ")),
                _ => format!("are {}", names.join(", ")),
            }
        ))
    }
}

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

fn not_ready(model: &str, version: &str, state: ModelState, reason: &str) -> Status {
    let version = if version.is_empty() {
        String::new()
    } else {
        format!(" version {version}")
    };
    let reason = if reason.is_empty() {
        "no version of it is loaded"
    } else {
        reason
    };
    Status::new(
        Code::Unavailable,
        format!("model {model:?}{version} is {}: {reason}", state.name()),
    )
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
