//! What versions share: the response cache, the calls in progress and those refused, devices, and the
//! process.

use crate::serving::CacheUsage;
use crate::telemetry::family::{Family, Told, VERSION, counter, gauge};
use crate::telemetry::process::Process;
use crate::telemetry::source::Snapshot;

/// Those that are told, in this order.
pub(super) static METRICS: &[Told] = &[
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
        "jitney_connections",
        &[],
        "Connections of clients that are open",
        |snapshot, family| family.add(&[], snapshot.door.connections() as f64),
    ),
    counter(
        "jitney_connections_displaced_total",
        &[],
        "Connections without a call that were ended to make room for others (max_connections, open files)",
        |snapshot, family| family.add(&[], snapshot.door.displacements() as f64),
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

fn process(snapshot: &Snapshot, family: &mut Family, value: impl Fn(&Process) -> f64) {
    if let Some(process) = &snapshot.process {
        family.add(&[], value(process));
    }
}

fn usage(snapshot: &Snapshot) -> CacheUsage {
    snapshot.cache.map(|(usage, _)| usage).unwrap_or_default()
}
