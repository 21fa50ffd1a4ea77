//! The same under the names that Triton's users have in their dashboards.
//!
//! What is not known here is left out rather than told as 0: the use, power, energy and clocks of GPUs
//! (NVML's), the use of the processor, and summaries of latency.

use std::time::Duration;

use super::family::{Family, Told, VERSION, counter, gauge};
use super::source::Snapshot;
use crate::device::{DeviceId, Memory};
use crate::serving::Statistics;
use crate::status::Code;

const GPU: &[&str] = &["gpu_uuid"];

/// Those that are told, in this order.
pub(super) static METRICS: &[Told] = &[
    counter(
        "nv_inference_request_success",
        VERSION,
        "Requests answered with success, from the cache or not",
        |snapshot, family| family.each(snapshot, |_, counts| counts.success.count as f64),
    ),
    counter(
        "nv_inference_request_failure",
        &["model", "version", "reason"],
        "Requests answered with an error: REJECTED, CANCELED, BACKEND, OTHER",
        |snapshot, family| family.each_by(snapshot, |_, counts| failures(counts)),
    ),
    counter(
        "nv_inference_count",
        VERSION,
        "Rows that ran with success",
        |snapshot, family| family.each(snapshot, |_, counts| counts.rows as f64),
    ),
    counter(
        "nv_inference_exec_count",
        VERSION,
        "Batches that ran with success",
        |snapshot, family| family.each(snapshot, |_, counts| counts.batches as f64),
    ),
    counter(
        "nv_inference_request_duration_us",
        VERSION,
        "Microseconds of requests that succeeded, from arrival to answer",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.success.total)),
    ),
    counter(
        "nv_inference_queue_duration_us",
        VERSION,
        "Microseconds that requests which ran spent in the queue",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.queue.total)),
    ),
    counter(
        "nv_inference_compute_input_duration_us",
        VERSION,
        "Microseconds that stacking their inputs took",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.stack.total)),
    ),
    counter(
        "nv_inference_compute_infer_duration_us",
        VERSION,
        "Microseconds that running their batches took",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.execute.total)),
    ),
    counter(
        "nv_inference_compute_output_duration_us",
        VERSION,
        "Microseconds that slicing their outputs took",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.slice.total)),
    ),
    gauge(
        "nv_inference_pending_request_count",
        VERSION,
        "Requests waiting",
        |snapshot, family| family.each(snapshot, |version, _| version.queued() as f64),
    ),
    counter(
        "nv_cache_num_hits_per_model",
        VERSION,
        "Requests answered from the response cache",
        |snapshot, family| family.each(snapshot, |_, counts| counts.cache_hit.count as f64),
    ),
    counter(
        "nv_cache_num_misses_per_model",
        VERSION,
        "Requests that the response cache had no answer for",
        |snapshot, family| family.each(snapshot, |_, counts| counts.cache_miss.count as f64),
    ),
    counter(
        "nv_cache_hit_duration_per_model",
        VERSION,
        "Microseconds that requests answered from the response cache took",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.cache_hit.total)),
    ),
    counter(
        "nv_cache_miss_duration_per_model",
        VERSION,
        "Microseconds that looking for answers in vain and keeping them took",
        |snapshot, family| family.each(snapshot, |_, counts| us(counts.cache_miss.total)),
    ),
    gauge(
        "nv_gpu_memory_total_bytes",
        GPU,
        "Memory of a GPU",
        |snapshot, family| gpus(snapshot, family, |memory| memory.total_bytes),
    ),
    gauge(
        "nv_gpu_memory_used_bytes",
        GPU,
        "Memory of a GPU that is taken",
        |snapshot, family| gpus(snapshot, family, used),
    ),
    gauge(
        "nv_cpu_memory_total_bytes",
        &[],
        "Memory of the host",
        |snapshot, family| host(snapshot, family, |memory| memory.total_bytes),
    ),
    gauge(
        "nv_cpu_memory_used_bytes",
        &[],
        "Memory of the host that is taken",
        |snapshot, family| host(snapshot, family, used),
    ),
];

fn us(duration: Duration) -> f64 {
    // Whole ones, as integers are what parsers expect.
    duration.as_micros() as f64
}

/// Errors by Triton's reasons.
fn failures(counts: &Statistics) -> Vec<(&'static str, f64)> {
    let reason = |code: &Code| match code {
        Code::ResourceExhausted | Code::Unavailable | Code::DeadlineExceeded => "REJECTED",
        Code::Cancelled => "CANCELED",
        Code::Internal => "BACKEND",
        _ => "OTHER",
    };
    let total = |wanted: &'static str| {
        let errors = counts.errors.iter();
        let of_it = errors.filter(|(code, _)| reason(code) == wanted);
        let count: u64 = of_it.map(|(_, count)| *count).sum();
        (wanted, count as f64)
    };
    ["REJECTED", "CANCELED", "BACKEND", "OTHER"]
        .map(total)
        .to_vec()
}

fn used(memory: &Memory) -> u64 {
    memory.total_bytes.saturating_sub(memory.free_bytes)
}

fn gpus(snapshot: &Snapshot, family: &mut Family, bytes: impl Fn(&Memory) -> u64) {
    for (device, memory) in &snapshot.devices {
        if let Some(uuid) = device.uuid() {
            family.add(&[&uuid], bytes(memory) as f64);
        }
    }
}

fn host(snapshot: &Snapshot, family: &mut Family, bytes: impl Fn(&Memory) -> u64) {
    let mut devices = snapshot.devices.iter();
    let host = devices.find(|(device, _)| device.id() == DeviceId::Cpu);
    if let Some((_, memory)) = host {
        family.add(&[], bytes(memory) as f64);
    }
}
