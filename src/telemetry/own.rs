//! Metrics under our own names.

use super::family::Family;
use super::family::{Buckets, ON_DEVICE, Told, VERSION, Value, counter, gauge, histogram};
use super::process::Process;
use super::source::Snapshot;
use crate::serving::{CacheUsage, IndexEntry, LoadProgress, Statistics, Version};

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
        "jitney_requests_in_time_total",
        VERSION,
        "Requests answered with success within the version's latency objective",
        |snapshot, family| family.each(snapshot, |_, counts| counts.in_time as f64),
    ),
    counter(
        "jitney_requests_not_in_time_total",
        VERSION,
        "Requests that were answered later, refused, or failed, by no fault of their clients",
        |snapshot, family| family.each(snapshot, |_, counts| counts.not_in_time as f64),
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
    counter(
        "jitney_deadlines_refused_early_total",
        VERSION,
        "Requests told before their deadline that it could not be met; the rest of DEADLINE_EXCEEDED missed it",
        |snapshot, family| family.each(snapshot, |_, counts| counts.refused_early as f64),
    ),
    histogram(
        "jitney_request_duration_seconds",
        VERSION,
        "From a call's headers to its written answer, of all requests that somebody waited for",
        |snapshot, family| {
            family.each_histogram(snapshot, |counts| Buckets {
                exemplars: counts.exemplars.clone(),
                ..Buckets::from(&counts.total_times)
            });
        },
    ),
    histogram(
        "jitney_decode_seconds",
        VERSION,
        "From a call's headers to a request that is understood, while its body comes",
        |snapshot, family| family.each_histogram(snapshot, |counts| (&counts.decode_times).into()),
    ),
    histogram(
        "jitney_queue_seconds",
        VERSION,
        "Waiting for a batch, of requests that ran",
        |snapshot, family| family.each_histogram(snapshot, |counts| (&counts.queue_times).into()),
    ),
    histogram(
        "jitney_encode_seconds",
        VERSION,
        "Writing the answers of requests that succeeded",
        |snapshot, family| family.each_histogram(snapshot, |counts| (&counts.encode_times).into()),
    ),
    histogram(
        "jitney_stack_seconds",
        ON_DEVICE,
        "Stacking a batch's inputs",
        |snapshot, family| family.each_device(snapshot, |on| Value::Histogram((&on.stack).into())),
    ),
    histogram(
        "jitney_execute_seconds",
        ON_DEVICE,
        "Running a batch",
        |snapshot, family| {
            family.each_device(snapshot, |on| Value::Histogram((&on.execute).into()))
        },
    ),
    histogram(
        "jitney_slice_seconds",
        ON_DEVICE,
        "Slicing a batch's outputs",
        |snapshot, family| family.each_device(snapshot, |on| Value::Histogram((&on.slice).into())),
    ),
    histogram(
        "jitney_batch_rows",
        ON_DEVICE,
        "Rows of a batch, without those that were added to fill it up",
        |snapshot, family| {
            family.each_device(snapshot, |on| Value::Histogram((&on.batch_rows).into()));
        },
    ),
    histogram(
        "jitney_batch_padding_ratio",
        ON_DEVICE,
        "The share of a batch that was added to fill it up",
        |snapshot, family| {
            family.each_device(snapshot, |on| Value::Histogram((&on.padding).into()))
        },
    ),
    counter(
        "jitney_executor_busy_seconds_total",
        ON_DEVICE,
        "Time in which executors had batches, each counted by itself",
        |snapshot, family| {
            family.each_device(snapshot, |on| Value::Number(on.busy.as_secs_f64()));
        },
    ),
    counter(
        "jitney_device_seconds_total",
        ON_DEVICE,
        "Time that the version had of a device: of the time in which several batches ran there, its part",
        |snapshot, family| {
            family.each_device(snapshot, |on| Value::Number(on.device_time.as_secs_f64()));
        },
    ),
    gauge(
        "jitney_cost_per_thousand_requests",
        VERSION,
        "What a thousand requests that succeeded have cost so far, at the price of a device's hour",
        |snapshot, family| {
            if let Some(price) = snapshot.device_price {
                for (version, counts) in &snapshot.versions {
                    if let Some(cost) = cost(counts, price) {
                        let number = version.id.version.to_string();
                        family.add(&[&version.id.model, &number], cost);
                    }
                }
            }
        },
    ),
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
    counter(
        "jitney_calls_refused_total",
        &["reason"],
        "Calls refused before anything was done: unauthenticated, denied (role), cross_origin (a browser's), client_rate, client_concurrency",
        |snapshot, family| snapshot.door.tell_refused(family),
    ),
    counter(
        "jitney_write_timeouts_total",
        &["outcome"],
        "Clients that took nothing of an answer (write_timeout_ms): a call of HTTP/2 was ended, or a connection",
        |snapshot, family| snapshot.door.tell_stalled(family),
    ),
    counter(
        "jitney_tls_handshakes_total",
        &["outcome"],
        "TLS handshakes: done, failed, slow (handshake_timeout_ms), or crowded out by newer ones (max_handshakes)",
        |snapshot, family| snapshot.door.tell_handshakes(family),
    ),
    gauge(
        "jitney_tls_certificate_not_after_seconds",
        &[],
        "Until when the certificate in use is good, in seconds since the Unix epoch",
        |snapshot, family| snapshot.door.tell_certificate(family),
    ),
    counter(
        "jitney_trace_spans_total",
        &["outcome"],
        "Spans of traces: sent, or dropped because too many waited or the receiver did not take them",
        |snapshot, family| {
            if let Some((sent, dropped)) = snapshot.spans {
                family.add(&["sent"], sent as f64);
                family.add(&["dropped"], dropped as f64);
            }
        },
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
    counter(
        "process_cpu_seconds_total",
        &[],
        "Processor time that the server has taken",
        |snapshot, family| process(snapshot, family, |process| process.cpu_seconds),
    ),
    gauge(
        "process_resident_memory_bytes",
        &[],
        "Memory of the host that it has",
        |snapshot, family| process(snapshot, family, |process| process.resident_bytes as f64),
    ),
    gauge("process_threads", &[], "Its threads", |snapshot, family| {
        process(snapshot, family, |process| process.threads as f64)
    }),
    gauge(
        "process_open_fds",
        &[],
        "Files and sockets that it has open",
        |snapshot, family| process(snapshot, family, |process| process.open_files as f64),
    ),
    gauge(
        "process_max_fds",
        &[],
        "Files and sockets that it may have open",
        |snapshot, family| process(snapshot, family, |process| process.most_files as f64),
    ),
    gauge(
        "process_start_time_seconds",
        &[],
        "When it started, in seconds since the Unix epoch",
        |snapshot, family| process(snapshot, family, |process| process.started),
    ),
];

/// None before anything has succeeded.
fn cost(counts: &Statistics, price_per_hour: f64) -> Option<f64> {
    let devices = counts.by_device.iter();
    let seconds: f64 = devices.map(|on| on.device_time.as_secs_f64()).sum();
    let thousands = counts.success.count as f64 / 1000.0;
    (thousands > 0.0).then(|| seconds / 3600.0 * price_per_hour / thousands)
}

fn process(snapshot: &Snapshot, family: &mut Family, value: impl Fn(&Process) -> f64) {
    if let Some(process) = &snapshot.process {
        family.add(&[], value(process));
    }
}

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

fn usage(snapshot: &Snapshot) -> CacheUsage {
    snapshot.cache.map(|(usage, _)| usage).unwrap_or_default()
}
