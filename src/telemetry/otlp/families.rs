//! Gathered metrics as OTLP has them: what `/metrics` tells, under the same names.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::exemplar::Value as ExemplarValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, Gauge, Histogram, HistogramDataPoint, Metric,
    NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
};

use super::{scope, text};
use crate::telemetry::family::{Buckets, Family, Kind, Sample, Value};

/// What is sent.
pub(super) type Message = ExportMetricsServiceRequest;

/// Metrics from `start` to `now`, in wall-clock nanoseconds, without saying whose.
pub(super) fn message(families: &[Family], start: u64, now: u64) -> Message {
    let told = families.iter().filter(|family| !family.samples.is_empty());
    let scope_metrics = ScopeMetrics {
        scope: Some(scope()),
        metrics: told.map(|family| metric(family, start, now)).collect(),
        ..ScopeMetrics::default()
    };
    Message {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(family: &Family, start: u64, now: u64) -> Metric {
    let samples = family.samples.iter();
    let numbers = || samples.clone().filter_map(|one| number(one, start, now));
    let all_so_far = AggregationTemporality::Cumulative.into();
    let data = match family.metric.kind {
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers().collect(),
            aggregation_temporality: all_so_far,
            is_monotonic: true,
        }),
        Kind::Gauge => Data::Gauge(Gauge {
            data_points: numbers().collect(),
        }),
        Kind::Histogram => Data::Histogram(Histogram {
            data_points: samples
                .clone()
                .filter_map(|one| histogram(one, start, now))
                .collect(),
            aggregation_temporality: all_so_far,
        }),
    };
    Metric {
        name: family.metric.name.to_owned(),
        description: family.metric.help.to_owned(),
        unit: unit(family.metric.name).to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

/// The unit that a name ends with, in UCUM's words; empty for a plain count.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    let units = [
        ("_rows_per_second", "{row}/s"),
        ("_seconds", "s"),
        ("_bytes", "By"),
        ("_ratio", "1"),
        ("_us", "us"),
    ];
    let found = units.iter().find(|(end, _)| name.ends_with(end));
    found.map_or("", |(_, unit)| unit)
}

fn attributes(sample: &Sample) -> Vec<KeyValue> {
    let labels = sample.labels.iter();
    labels.map(|(name, value)| text(name, value)).collect()
}

fn number(sample: &Sample, start: u64, now: u64) -> Option<NumberDataPoint> {
    let Value::Number(number) = sample.value else {
        return None;
    };
    Some(NumberDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start,
        time_unix_nano: now,
        value: Some(Number::AsDouble(number)),
        ..NumberDataPoint::default()
    })
}

fn histogram(sample: &Sample, start: u64, now: u64) -> Option<HistogramDataPoint> {
    let Value::Histogram(buckets) = &sample.value else {
        return None;
    };
    let bounds = buckets.buckets.iter().map(|(bound, _)| *bound);
    let counts = buckets.buckets.iter().map(|(_, count)| *count);
    Some(HistogramDataPoint {
        attributes: attributes(sample),
        start_time_unix_nano: start,
        time_unix_nano: now,
        count: counts.clone().sum(),
        sum: Some(buckets.sum),
        bucket_counts: counts.collect(),
        // The last is infinite, which is understood.
        explicit_bounds: bounds.filter(|bound| bound.is_finite()).collect(),
        exemplars: exemplars(buckets),
        ..HistogramDataPoint::default()
    })
}

fn exemplars(buckets: &Buckets) -> Vec<Exemplar> {
    let exemplars = buckets.exemplars.values().map(|exemplar| Exemplar {
        time_unix_nano: exemplar.wall_nanoseconds,
        trace_id: exemplar.context.trace.to_be_bytes().to_vec(),
        span_id: exemplar.context.span.to_be_bytes().to_vec(),
        value: Some(ExemplarValue::AsDouble(exemplar.value)),
        ..Exemplar::default()
    });
    exemplars.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_the_names() {
        for (name, expected) in [
            ("jitney_queue_seconds", "s"),
            ("jitney_device_seconds_total", "s"),
            ("jitney_cache_bytes", "By"),
            ("jitney_capacity_used_ratio", "1"),
            ("jitney_headroom_rows_per_second", "{row}/s"),
            ("nv_inference_queue_duration_us", "us"),
            ("jitney_requests_total", ""),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }
}
