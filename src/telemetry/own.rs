//! Metrics under our own names.

use super::family::{Told, VERSION, counter, gauge};
use super::source::Snapshot;
use crate::serving::{CacheUsage, Statistics, Version};

/// Those that are told, in this order.
pub(super) static METRICS: &[Told] = &[
    gauge(
        "jitney_build_info",
        &["server_version"],
        "1, with the version of the server",
        |_, family| family.add(&[env!("CARGO_PKG_VERSION")], 1.0),
    ),
    counter(
        "jitney_requests_total",
        &["model", "version", "code"],
        "Requests answered, by what they were told: OK, or the code of an error",
        |snapshot, family| family.each_by(snapshot, |_, counts| outcomes(counts)),
    ),
    counter(
        "jitney_request_seconds_total",
        VERSION,
        "Time of requests that succeeded, from arrival to answer",
        |snapshot, family| family.each(snapshot, |_, counts| counts.success.total.as_secs_f64()),
    ),
    counter(
        "jitney_stage_seconds_total",
        &["model", "version", "stage"],
        "Time that requests which succeeded spent in the queue, stack, execute and slice stages",
        |snapshot, family| family.each_by(snapshot, |_, counts| stages(counts)),
    ),
    counter(
        "jitney_rows_total",
        VERSION,
        "Rows that ran with success",
        |snapshot, family| family.each(snapshot, |_, counts| counts.rows as f64),
    ),
    counter(
        "jitney_batches_total",
        VERSION,
        "Batches that ran with success",
        |snapshot, family| family.each(snapshot, |_, counts| counts.batches as f64),
    ),
    gauge(
        "jitney_queued_requests",
        VERSION,
        "Requests waiting",
        |snapshot, family| family.each(snapshot, |version, _| version.queued() as f64),
    ),
    gauge(
        "jitney_executors_alive",
        VERSION,
        "Executors that can run a batch",
        |snapshot, family| {
            family.each(snapshot, |version, _| version.executors_alive() as f64);
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
    counter(
        "jitney_cache_hits_total",
        VERSION,
        "Requests answered from the response cache",
        |snapshot, family| family.each(snapshot, |_, counts| counts.cache_hit.count as f64),
    ),
    counter(
        "jitney_cache_misses_total",
        VERSION,
        "Requests that the response cache had no answer for",
        |snapshot, family| family.each(snapshot, |_, counts| counts.cache_miss.count as f64),
    ),
    gauge(
        "jitney_cache_entries",
        &[],
        "Answers in the response cache",
        |snapshot, family| family.add(&[], usage(snapshot).entries as f64),
    ),
    gauge(
        "jitney_cache_bytes",
        &[],
        "Bytes that the answers in the response cache take",
        |snapshot, family| family.add(&[], usage(snapshot).bytes as f64),
    ),
    gauge(
        "jitney_cache_limit_bytes",
        &[],
        "Bytes that they may take",
        |snapshot, family| {
            let limit = snapshot.cache.map_or(0, |(_, limit)| limit);
            family.add(&[], limit as f64);
        },
    ),
    counter(
        "jitney_cache_evictions_total",
        &[],
        "Answers that had to leave the response cache for others",
        |snapshot, family| family.add(&[], usage(snapshot).evictions as f64),
    ),
    gauge(
        "jitney_in_flight_calls",
        &[],
        "Calls in progress",
        |snapshot, family| family.add(&[], snapshot.in_flight.calls as f64),
    ),
    gauge(
        "jitney_in_flight_bytes",
        &[],
        "Bytes of the requests in progress",
        |snapshot, family| family.add(&[], snapshot.in_flight.bytes as f64),
    ),
    gauge(
        "jitney_device_memory_bytes",
        &["device", "state"],
        "Memory of a device, used and free",
        |snapshot, family| {
            for (device, memory) in &snapshot.devices {
                let device = device.id().to_string();
                let used = memory.total_bytes.saturating_sub(memory.free_bytes);
                family.add(&[&device, "used"], used as f64);
                family.add(&[&device, "free"], memory.free_bytes as f64);
            }
        },
    ),
];

fn outcomes(counts: &Statistics) -> Vec<(&'static str, f64)> {
    let errors = counts.errors.iter();
    let errors = errors.map(|(code, count)| (code.name(), *count as f64));
    std::iter::once(("OK", counts.success.count as f64))
        .chain(errors)
        .collect()
}

fn stages(counts: &Statistics) -> Vec<(&'static str, f64)> {
    let stages = [
        ("queue", counts.queue),
        ("stack", counts.stack),
        ("execute", counts.execute),
        ("slice", counts.slice),
    ];
    let seconds = stages.map(|(stage, count)| (stage, count.total.as_secs_f64()));
    seconds.to_vec()
}

fn learned(
    version: &Version,
    nanoseconds: impl Fn(&crate::scheduler::Learned) -> f64,
) -> Vec<(String, f64)> {
    let times = version.service_times();
    times
        .map(|(device, learned)| (device, nanoseconds(&learned) * 1e-9))
        .collect()
}

fn memory(version: &Version) -> Vec<(String, f64)> {
    let memory = version.memory.iter();
    memory
        .map(|(device, bytes)| (device.clone(), *bytes as f64))
        .collect()
}

fn usage(snapshot: &Snapshot) -> CacheUsage {
    snapshot.cache.map(|(usage, _)| usage).unwrap_or_default()
}
