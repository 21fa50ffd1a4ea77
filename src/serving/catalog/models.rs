//! The snapshot that requests read: the models by name, their versions by number, and what is told of
//! those that are not there.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::entry::ModelState;
use super::version::Version;
use crate::serving::progress::LoadProgress;
use crate::status::{Code, Status};

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) state: ModelState,
    pub(super) reason: String,
    pub(super) failed: bool,
    pub(super) version: Option<Arc<Version>>,
}

impl Slot {
    /// Its reason, or how far it is.
    pub(super) fn reason_with(&self, progress: Option<LoadProgress>) -> String {
        match progress {
            Some(progress) if self.reason.is_empty() => progress.to_string(),
            _ => self.reason.clone(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) versions: BTreeMap<u64, Slot>,
    /// Why there is no version, or why the last load failed.
    pub(super) reason: String,
    /// Whether it failed.
    pub(super) failed: bool,
}

impl Model {
    /// Why a request that names no version finds none.
    pub(super) fn nothing_serves(&self, name: &str, progress: Option<LoadProgress>) -> Status {
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
pub(super) struct Models {
    pub(super) named: HashMap<Arc<str>, Model>,
    /// Whether those that are to serve from the start are in it. Until then any name may yet come.
    pub(super) listed: bool,
}

impl Models {
    pub(super) fn get(&self, name: &str) -> Result<(&Arc<str>, &Model), Status> {
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

pub(super) fn not_ready(model: &str, version: &str, state: ModelState, reason: &str) -> Status {
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
