//! A story in a form that programs read.

use serde::Serialize;

use super::{Anchor, Decision, milliseconds};
use crate::model::VersionId;
use crate::telemetry::Story;

/// A request that was slow or failed.
#[derive(Clone, Debug, Serialize)]
pub struct SlowRequest {
    /// The model; empty if none of the name was there.
    pub model: String,
    /// The version that answered; 0 if none did.
    pub version: u64,
    /// For a step of an ensemble, its name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub step: String,
    /// The client's name for it.
    pub id: String,
    /// How it ended.
    pub code: &'static str,
    /// Its rows.
    pub rows: usize,
    /// When its call was there, in milliseconds since the Unix epoch.
    pub arrived_unix_ms: f64,
    /// From then to the end.
    pub total_ms: f64,
    /// Within what time it was to be answered.
    pub objective_ms: f64,
    /// Whether the answer came from the response cache.
    pub cached: bool,
    /// Its trace, if it is in one.
    pub trace_id: Option<String>,
    /// What it went through, in order.
    pub stages: Vec<StageTold>,
    /// The batch that it was in.
    pub batch: Option<Decision>,
    /// The steps, if an ensemble answered.
    pub steps: Vec<SlowRequest>,
}

/// A part of a request's way.
#[derive(Clone, Debug, Serialize)]
pub struct StageTold {
    /// Its name.
    pub stage: &'static str,
    /// When it began, after the call was there.
    pub start_ms: f64,
    /// How long it took.
    pub duration_ms: f64,
}

impl SlowRequest {
    /// What `story` says.
    pub fn told(story: &Story, anchor: Anchor) -> Self {
        let id = VersionId {
            model: story.model.as_str().into(),
            version: story.version,
        };
        let trip = story.trip.as_deref();
        let stages = story
            .stages
            .iter()
            .map(|(stage, start, duration)| StageTold {
                stage: stage.name(),
                start_ms: milliseconds(*start),
                duration_ms: milliseconds(*duration),
            });
        Self {
            model: story.model.clone(),
            version: story.version,
            step: story.step.clone(),
            id: story.id.clone(),
            code: story.code.map_or("OK", |code| code.name()),
            rows: story.rows,
            arrived_unix_ms: story.wall_nanoseconds as f64 / 1e6,
            total_ms: milliseconds(story.total),
            objective_ms: milliseconds(story.objective),
            cached: story.cached,
            trace_id: story
                .context
                .map(|context| format!("{:032x}", context.trace)),
            stages: stages.collect(),
            batch: trip.map(|trip| Decision::told(&id, trip, anchor)),
            steps: story
                .steps
                .iter()
                .map(|step| Self::told(step, anchor))
                .collect(),
        }
    }
}
