//! One decision of the scheduler, told: who left, with whom, why, and what became of it.

use std::cmp::Reverse;
use std::sync::Arc;

use serde::Serialize;

use super::{Anchor, milliseconds};
use crate::clock::Moment;
use crate::model::VersionId;
use crate::serving::{Member, Trip, Version};

/// One batch that left.
#[derive(Clone, Debug, Serialize)]
pub struct Decision {
    /// The model.
    pub model: String,
    /// Its version.
    pub version: u64,
    /// Counts the version's batches from 1.
    pub number: u64,
    /// When it left, in milliseconds since the Unix epoch.
    pub left_unix_ms: f64,
    /// Why it left then.
    pub reason: &'static str,
    /// Where it ran.
    pub device: String,
    /// What it failed with.
    pub failed: Option<&'static str>,
    /// Rows of its members.
    pub rows: usize,
    /// Rows that ran, with those that were added.
    pub run_rows: usize,
    /// The share of what ran that was added.
    pub padding_ratio: f64,
    /// Requests that stayed in the queue.
    pub stayed: usize,
    /// Stacking its inputs.
    pub stack_ms: f64,
    /// The backend's run.
    pub execute_ms: f64,
    /// Slicing its outputs.
    pub slice_ms: f64,
    /// From when it left to its end.
    pub total_ms: f64,
    /// The device's time that it had.
    pub device_ms: f64,
    /// Who travelled.
    pub members: Vec<Traveller>,
}

/// A request of a batch.
#[derive(Clone, Debug, Serialize)]
pub struct Traveller {
    /// Its rows.
    pub rows: usize,
    /// How long it was queued.
    pub waited_ms: f64,
    /// How long before its deadline it left; none without one.
    pub slack_ms: Option<f64>,
    /// Its priority; 1 is the most urgent.
    pub priority: u32,
    /// Its trace, if it is in one.
    pub trace_id: Option<String>,
}

impl Decision {
    /// `trip` of a version.
    pub fn told(id: &VersionId, trip: &Trip, anchor: Anchor) -> Self {
        Self {
            model: id.model.to_string(),
            version: id.version,
            number: trip.number,
            left_unix_ms: anchor.unix_ms(trip.left),
            reason: trip.reason.name(),
            device: trip.device.to_string(),
            failed: trip.failed.map(|code| code.name()),
            rows: trip.rows,
            run_rows: trip.run_rows,
            padding_ratio: trip.padding(),
            stayed: trip.stayed,
            stack_ms: milliseconds(trip.stacked - trip.left),
            execute_ms: milliseconds(trip.ran - trip.stacked),
            slice_ms: milliseconds(trip.ended - trip.ran),
            total_ms: milliseconds(trip.took()),
            device_ms: milliseconds(trip.device_time),
            members: trip
                .members
                .iter()
                .map(|member| Traveller::told(member, trip.left))
                .collect(),
        }
    }
}

impl Traveller {
    fn told(member: &Member, left: Moment) -> Self {
        Self {
            rows: member.rows,
            waited_ms: milliseconds(left - member.arrived),
            slack_ms: member
                .deadline
                .map(|deadline| milliseconds(deadline - left)),
            priority: member.level.saturating_add(1),
            trace_id: member
                .context
                .map(|context| format!("{:032x}", context.trace)),
        }
    }
}

/// The last decisions of these versions, at most `last`, newest first.
pub fn decisions(versions: &[Arc<Version>], last: usize, anchor: Anchor) -> Vec<Decision> {
    let trips = versions.iter().flat_map(|version| {
        let recent = version.recent().into_iter();
        recent.map(move |trip| (&version.id, trip))
    });
    let mut trips: Vec<_> = trips.collect();
    trips.sort_by_key(|(_, trip)| Reverse(trip.left));
    trips.truncate(last);
    let told = trips
        .iter()
        .map(|(id, trip)| Decision::told(id, trip, anchor));
    told.collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::scheduler::Reason;
    use crate::status::Code;

    #[test]
    fn a_batch_is_told_with_who_waited_how_long_and_had_how_much_time_left() {
        let at = |milliseconds| Moment::ORIGIN + Duration::from_millis(milliseconds);
        let member = Member {
            awaited: true,
            rows: 2,
            arrived: at(60),
            deadline: Some(at(175)),
            level: 4,
            context: None,
        };
        let trip = Trip {
            number: 7,
            left: at(100),
            stacked: at(101),
            ran: at(121),
            ended: at(124),
            reason: Reason::Due,
            rows: 3,
            run_rows: 4,
            own_tokens: 3,
            run_tokens: 4,
            stayed: 5,
            members: vec![
                member,
                Member {
                    awaited: true,
                    rows: 1,
                    arrived: at(100),
                    deadline: None,
                    level: 0,
                    context: None,
                },
            ],
            failed: Some(Code::Internal),
            ..Trip::default()
        };
        let id = VersionId {
            model: Arc::from("m"),
            version: 3,
        };
        let told = Decision::told(&id, &trip, Anchor::at(at(100)));
        assert_eq!(
            (told.model.as_str(), told.version, told.number),
            ("m", 3, 7)
        );
        assert_eq!((told.reason, told.failed), ("due", Some("INTERNAL")));
        assert_eq!((told.rows, told.run_rows, told.stayed), (3, 4, 5));
        assert_eq!(told.padding_ratio, 0.25);
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}");
        near(told.stack_ms, 1.0);
        near(told.execute_ms, 20.0);
        near(told.slice_ms, 3.0);
        near(told.total_ms, 24.0);
        near(told.members[0].waited_ms, 40.0);
        near(told.members[0].slack_ms.unwrap(), 75.0);
        assert_eq!(told.members[0].priority, 5);
        assert_eq!(
            (told.members[1].waited_ms, told.members[1].slack_ms),
            (0.0, None)
        );
    }
}
