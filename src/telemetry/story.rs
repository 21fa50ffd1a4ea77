//! A request's journey told in words and numbers, free of what served it, so that it can be kept.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Moment, wall_nanoseconds};
use crate::serving::{Journey, Leg, Stage, TraceContext, Trip};
use crate::status::Code;

/// Characters of a client's name for a request that are kept: it may be as long as a message.
const MOST_ID: usize = 128;

/// What one request went through.
#[derive(Clone, Debug)]
pub struct Story {
    /// The model that was asked; empty if there is none of the name.
    pub model: String,
    /// The version that answered.
    pub version: u64,
    /// For a step of an ensemble, its name.
    pub step: String,
    /// The client's name for the request.
    pub id: String,
    /// How it ended, if not well.
    pub code: Option<Code>,
    /// Its rows.
    pub rows: usize,
    /// Wall-clock nanoseconds since the Unix epoch when its call was there.
    pub wall_nanoseconds: u64,
    /// From then to the end.
    pub total: Duration,
    /// The time within which it was to be answered.
    pub objective: Duration,
    /// What it went through, in order: from when after its call was there, and for how long.
    pub stages: Vec<(Stage, Duration, Duration)>,
    /// The batch that it was in.
    pub trip: Option<Arc<Trip>>,
    /// Whether its answer came from the response cache.
    pub cached: bool,
    /// The steps, if an ensemble answered.
    pub steps: Vec<Story>,
    /// Where it is in a trace.
    pub context: Option<TraceContext>,
    /// When its call was there, by the server's clock.
    pub arrived: Moment,
}

impl Story {
    /// How many spans it is in a trace, without its batch.
    pub(super) fn spans(journey: &Journey, encoded: Option<Moment>) -> usize {
        let steps = journey.steps.iter();
        // Nothing is to be decoded of a step.
        let steps: usize = steps.map(|leg| Self::spans(&leg.journey, None) - 1).sum();
        1 + journey.stages().count() + usize::from(encoded.is_some()) + steps
    }

    /// A line for those who want to read of each; nobody does unless asked.
    pub(super) fn log(&self) {
        let trace = self.context.filter(|context| context.sampled);
        let trace_id = trace.map(|context| format!("{:032x}", context.trace));
        tracing::debug!(
            model = self.model,
            version = self.version,
            id = self.id,
            code = self.code.map_or("OK", Code::name),
            took_ms = self.total.as_secs_f64() * 1e3,
            trace_id,
            "slow or failed"
        );
    }

    /// Of a request that ended at `end`, which is now.
    pub(super) fn of(journey: Journey, code: Option<Code>, encoded: Option<Moment>) -> Self {
        let end = encoded.unwrap_or(journey.answered);
        Self::told(journey, code, encoded, (end, wall_nanoseconds()))
    }

    /// By a moment of both clocks.
    fn told(
        journey: Journey,
        code: Option<Code>,
        encoded: Option<Moment>,
        (moment, wall): (Moment, u64),
    ) -> Self {
        let end = encoded.unwrap_or(journey.answered);
        let arrived = journey.arrived;
        let mut stages: Vec<_> = journey
            .stages()
            .map(|(stage, from, until)| (stage, from - arrived, until - from))
            .collect();
        if let Some(encoded) = encoded {
            let (from, until) = (journey.answered, encoded);
            stages.push((Stage::Encode, from - arrived, until - from));
        }
        let before = u64::try_from((moment - arrived).as_nanos()).unwrap_or(u64::MAX);
        let version = journey.version.as_deref();
        let step = |leg: Leg| {
            let mut told = Self::told(leg.journey, leg.code, None, (moment, wall));
            told.step = leg.name;
            told
        };
        Self {
            model: version.map_or(String::new(), |version| version.id.model.to_string()),
            version: version.map_or(0, |version| version.id.version),
            step: String::new(),
            objective: version.map_or(Duration::ZERO, |version| version.objective()),
            id: journey.id.chars().take(MOST_ID).collect(),
            code,
            rows: journey.rows,
            wall_nanoseconds: wall.saturating_sub(before),
            total: end - arrived,
            stages,
            trip: journey.trip,
            cached: journey.cached,
            steps: journey.steps.into_iter().map(step).collect(),
            context: journey.context,
            arrived,
        }
    }
}
