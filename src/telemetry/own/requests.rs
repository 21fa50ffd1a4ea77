//! Requests and the batches in which they ran: how many, how long, and what they cost.

use crate::serving::Statistics;
use crate::telemetry::family::{
    Buckets, ON_DEVICE, Told, VERSION, Value, counter, gauge, histogram,
};

/// Those that are told, in this order.
pub(super) static METRICS: &[Told] = &[
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
];

/// None before anything has succeeded.
fn cost(counts: &Statistics, price_per_hour: f64) -> Option<f64> {
    let devices = counts.by_device.iter();
    let seconds: f64 = devices.map(|on| on.device_time.as_secs_f64()).sum();
    let thousands = counts.success.count as f64 / 1000.0;
    (thousands > 0.0).then(|| seconds / 3600.0 * price_per_hour / thousands)
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
