//! Versions: where each stands, how far a load is, its executors, and what it takes.

use crate::scheduler::Learned;
use crate::serving::{IndexEntry, LoadProgress, Version};
use crate::telemetry::family::{ON_DEVICE, Told, VERSION, counter, gauge};
use crate::telemetry::source::Snapshot;

/// Those that are told, in this order.
pub(super) static METRICS: &[Told] = &[
    gauge(
        "jitney_model_state",
        &["model", "version", "state"],
        "1 for the state in which it is: LOADING, READY or UNAVAILABLE",
        |snapshot, family| {
            for entry in &snapshot.index {
                let version = version_of(entry);
                family.add(&[&entry.model, &version, entry.state.name()], 1.0);
            }
        },
    ),
    gauge(
        "jitney_model_load_failed",
        VERSION,
        "1 if the last try to load it failed, though an earlier one may serve",
        |snapshot, family| {
            for entry in &snapshot.index {
                let version = version_of(entry);
                family.add(&[&entry.model, &version], f64::from(u8::from(entry.failed)));
            }
        },
    ),
    gauge(
        "jitney_model_load_phase",
        &["model", "version", "phase"],
        "1 for what a load under way is doing: fetch, turn and memory (waiting for either), compile, warm_up",
        |snapshot, family| {
            for (entry, progress) in loads(snapshot) {
                let version = version_of(entry);
                family.add(&[&entry.model, &version, progress.phase.name()], 1.0);
            }
        },
    ),
    gauge(
        "jitney_model_load_progress_ratio",
        VERSION,
        "The share of a load that is done, by what it took before; of its phase, the first time; not told where neither is known",
        |snapshot, family| {
            for (entry, progress) in loads(snapshot) {
                if let Some(share) = progress.share {
                    family.add(&[&entry.model, &version_of(entry)], share);
                }
            }
        },
    ),
    gauge(
        "jitney_model_load_remaining_seconds",
        VERSION,
        "What is left of the same, by estimate",
        |snapshot, family| {
            for (entry, progress) in loads(snapshot) {
                if let Some(left) = progress.left {
                    family.add(&[&entry.model, &version_of(entry)], left.as_secs_f64());
                }
            }
        },
    ),
    gauge(
        "jitney_version_loaded_timestamp_seconds",
        VERSION,
        "When the version was made ready, in seconds since the Unix epoch",
        |snapshot, family| {
            family.each(snapshot, |version, _| {
                version.loaded_wall_nanoseconds as f64 * 1e-9
            });
        },
    ),
    gauge(
        "jitney_queued_requests",
        VERSION,
        "Requests waiting",
        |snapshot, family| family.each(snapshot, |version, _| version.queued() as f64),
    ),
    gauge(
        "jitney_executors",
        VERSION,
        "Executors that there are, whether they can run a batch or not",
        |snapshot, family| family.each(snapshot, |version, _| version.devices.len() as f64),
    ),
    gauge(
        "jitney_executors_alive",
        VERSION,
        "Executors that can run a batch",
        |snapshot, family| {
            family.each(snapshot, |version, _| version.executors_alive() as f64);
        },
    ),
    counter(
        "jitney_worker_deaths_total",
        &["model", "version", "device", "reason"],
        "Processes of the version that ended: crashed, killed, hung, device_lost or exited",
        |snapshot, family| {
            for (version, _) in &snapshot.versions {
                let number = version.id.version.to_string();
                for ((device, cause), count) in version.casualties().deaths {
                    let labels = [&*version.id.model, &number, &*device, cause.name()];
                    family.add(&labels, count as f64);
                }
            }
        },
    ),
    counter(
        "jitney_executor_hangs_total",
        ON_DEVICE,
        "Executors in threads of the server that hung",
        |snapshot, family| family.each_by(snapshot, |version, _| hangs(version)),
    ),
    gauge(
        "jitney_version_taken_out",
        VERSION,
        "1 if the version is left alone because its processes die",
        |snapshot, family| {
            family.each(snapshot, |version, _| {
                f64::from(u8::from(version.casualties().taken_out.is_some()))
            });
        },
    ),
    gauge(
        "jitney_learned_batch_seconds",
        &["model", "version", "device"],
        "The part of a batch's learned time that does not depend on its rows",
        |snapshot, family| family.each_by(snapshot, |version, _| learned(version, |one| one.fixed)),
    ),
    gauge(
        "jitney_learned_row_seconds",
        &["model", "version", "device"],
        "The part of a batch's learned time that each row adds",
        |snapshot, family| {
            family.each_by(snapshot, |version, _| learned(version, |one| one.per_row));
        },
    ),
    gauge(
        "jitney_model_memory_bytes",
        &["model", "version", "device"],
        "Memory that the version was found to take, where a budget has it measured",
        |snapshot, family| family.each_by(snapshot, |version, _| memory(version)),
    ),
];

/// What is being loaded, and how far it is.
fn loads(snapshot: &Snapshot) -> impl Iterator<Item = (&IndexEntry, &LoadProgress)> {
    let entries = snapshot.index.iter();
    entries.filter_map(|entry| Some((entry, entry.progress.as_ref()?)))
}

/// Empty if there is no version to speak of.
fn version_of(entry: &IndexEntry) -> String {
    let number = entry.version;
    number.map_or(String::new(), |number| number.to_string())
}

fn learned(version: &Version, nanoseconds: impl Fn(&Learned) -> f64) -> Vec<(String, f64)> {
    let times = version.service_times();
    times
        .map(|(device, learned)| (device, nanoseconds(&learned) * 1e-9))
        .collect()
}

fn hangs(version: &Version) -> Vec<(String, f64)> {
    let hangs = version.casualties().hangs.into_iter();
    hangs
        .map(|(device, count)| (device.to_string(), count as f64))
        .collect()
}

fn memory(version: &Version) -> Vec<(String, f64)> {
    let memory = version.memory.iter();
    memory
        .map(|(device, bytes)| (device.clone(), *bytes as f64))
        .collect()
}
