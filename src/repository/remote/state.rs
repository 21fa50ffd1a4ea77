//! What a mirror knows of its store: what rests, what was taken, what failed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::cache::View;
use super::object::{Listing, Object};
use super::pace;
use super::record::Record;
use super::resting::{Look, Units};
use crate::clock::Moment;

/// The first pause after a model could not be taken.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// One model.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) units: Units,
    /// Why its objects cannot be files, if they cannot.
    pub(super) refused: Option<String>,
    pub(super) taken: Option<Taken>,
    /// Failures in a row to take what rests, and when to try again.
    failures: u32,
    again: Moment,
}

/// What is handed out of a model.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) record: Record,
    pub(super) view: Arc<View>,
    /// Whether some of it is to be fetched anew.
    pub(super) doubted: bool,
}

impl Model {
    /// Notes that it could not be taken.
    pub(super) fn failed(&mut self, now: Moment) {
        self.failures = self.failures.saturating_add(1);
        self.again = now + pace::pause(FIRST_PAUSE, self.failures, pace::chance());
    }

    pub(super) fn took(&mut self, taken: Taken) {
        self.failures = 0;
        self.again = Moment::ORIGIN;
        self.taken = Some(taken);
    }

    fn is_there(&self) -> bool {
        self.refused.is_some() || self.units.resting().is_some()
    }
}

/// Every model, and how looking goes.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) models: BTreeMap<String, Model>,
    /// Looks that failed in a row.
    pub(super) failures: u32,
}

impl State {
    /// Takes in what was listed, of one model or of all; gives the names of those that are gone.
    pub(super) fn look(&mut self, look: Look, listing: Listing, of: Option<&str>) -> Vec<String> {
        let Listing(mut found) = listing;
        let known = self.models.keys().chain(found.keys()).cloned();
        let known: BTreeSet<String> = match of {
            Some(model) => known.filter(|name| name == model).collect(),
            None => known.collect(),
        };
        let mut gone = Vec::new();
        for name in known {
            let model = self.models.entry(name.clone()).or_default();
            match found.remove(&name).unwrap_or_else(|| Ok(BTreeMap::new())) {
                Ok(units) => {
                    model.units.look(look, units);
                    model.refused = None;
                }
                Err(reason) => model.refused = Some(reason),
            }
            if model.refused.is_none() && model.units.is_gone() {
                self.models.remove(&name);
                gone.push(name);
            }
        }
        gone
    }

    /// The models that can be taken, or that have to be explained.
    pub(super) fn names(&self) -> Vec<String> {
        let there = self.models.iter().filter(|(_, model)| model.is_there());
        there.map(|(name, _)| name.clone()).collect()
    }

    /// Those of which something is still on its way.
    pub(super) fn restless(&self) -> Vec<String> {
        let restless = self
            .models
            .iter()
            .filter(|(_, model)| !model.units.all_rest());
        restless.map(|(name, _)| name.clone()).collect()
    }

    /// The objects of a model that rest.
    pub(super) fn resting(&self, model: &str) -> Option<Vec<Object>> {
        self.models.get(model)?.units.resting()
    }

    /// Whether it is time to try to take a model again.
    pub(super) fn is_due(&self, model: &str, now: Moment) -> bool {
        self.models
            .get(model)
            .is_none_or(|model| now >= model.again)
    }
}
