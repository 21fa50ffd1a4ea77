//! Rates, and what there is capacity for.

use crate::telemetry::family::{Told, VERSION, gauge};

/// Those that are told, in this order.
pub(super) static METRICS: &[Told] = &[
    gauge(
        "jitney_capacity_used_ratio",
        &[],
        "Rows that come over those that can be answered within the objective, where most is used; above 1 it is too much",
        |snapshot, family| {
            if let Some(used) = snapshot.load.used() {
                family.add(&[], used);
            }
        },
    ),
    gauge(
        "jitney_device_capacity_used_ratio",
        &["device"],
        "The same of each device",
        |snapshot, family| {
            for (device, used) in &snapshot.load.devices {
                family.add(&[device], *used);
            }
        },
    ),
    gauge(
        "jitney_offered_rows_per_second",
        VERSION,
        "Rows that came in the last ten seconds, whatever became of them",
        |snapshot, family| family.each_load(snapshot, |load| load.offered),
    ),
    gauge(
        "jitney_sustainable_rows_per_second",
        VERSION,
        "Rows that it can answer within its latency objective, by what its batches were seen to take",
        |snapshot, family| family.each_load(snapshot, |load| load.sustainable),
    ),
    gauge(
        "jitney_headroom_rows_per_second",
        VERSION,
        "How many more it could, alone on its devices",
        |snapshot, family| family.each_load(snapshot, |load| load.headroom()),
    ),
    gauge(
        "jitney_latency_objective_seconds",
        VERSION,
        "The time within which its requests are to be answered",
        |snapshot, family| {
            family.each(snapshot, |version, _| version.objective().as_secs_f64());
        },
    ),
];
