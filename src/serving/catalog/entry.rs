//! What the repository's index says of a version: where it stands, and why.

use std::sync::Arc;

use crate::serving::progress::LoadProgress;

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
    pub(in crate::serving) fn under_way(mut self, progress: Option<LoadProgress>) -> Self {
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
