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
use prost::Message as _;

use super::{scope, text};
use crate::telemetry::family::{Buckets, Family, Kind, Sample, Value};

/// What is sent.
pub(super) type Message = ExportMetricsServiceRequest;

/// Bytes of metrics in one message: together with a last piece less than the 4 MiB that receivers take.
const FULL: usize = 2 << 20;
/// Samples in one piece of a metric. The largest, histograms with an exemplar for each bucket, have 3 KB.
const PIECE: usize = 256;

/// Metrics from `start` to `now`, in wall-clock nanoseconds, without saying whose; in as many messages as
/// it takes for each to be taken.
pub(super) fn messages(families: &[Family], start: u64, now: u64) -> Vec<Message> {
    let (mut messages, mut metrics, mut bytes) = (Vec::new(), Vec::new(), 0);
    for family in families {
        for samples in family.samples.chunks(PIECE) {
            let metric = metric(family, samples, start, now);
            bytes += metric.encoded_len();
            metrics.push(metric);
            if bytes >= FULL {
                messages.push(message(std::mem::take(&mut metrics)));
                bytes = 0;
            }
        }
    }
    if !metrics.is_empty() {
        messages.push(message(metrics));
    }
    messages
}

fn message(metrics: Vec<Metric>) -> Message {
    let scope_metrics = ScopeMetrics {
        scope: Some(scope()),
        metrics,
        ..ScopeMetrics::default()
    };
    Message {
        resource_metrics: vec![ResourceMetrics {
            scope_metrics: vec![scope_metrics],
            ..ResourceMetrics::default()
        }],
    }
}

fn metric(family: &Family, samples: &[Sample], start: u64, now: u64) -> Metric {
    let samples = samples.iter();
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
    use crate::serving::{Exemplar as Served, TraceContext};
    use crate::telemetry::family::Metric as Told;

    const DURATION: Told = Told {
        name: "jitney_request_duration_seconds",
        kind: Kind::Histogram,
        help: "How long requests took",
        labels: &["model"],
    };

    #[test]
    fn no_message_is_longer_than_receivers_take() {
        let exemplar = |value| Served {
            context: TraceContext {
                trace: 1,
                span: 2,
                parent: 0,
                sampled: true,
            },
            value,
            wall_nanoseconds: 3,
        };
        let buckets = Buckets {
            buckets: (0..32).map(|bound| (f64::from(bound), 1)).collect(),
            sum: 7.0,
            exemplars: (0..32).map(|place| (place, exemplar(1.0))).collect(),
        };
        let samples = (0..3_000).map(|number| Sample {
            labels: vec![("model".to_owned(), format!("{number:0200}"))],
            value: Value::Histogram(buckets.clone()),
        });
        let family = Family {
            metric: &DURATION,
            samples: samples.collect(),
        };
        let messages = messages(&[family], 1, 2);
        assert!(messages.len() > 1);
        let mut points = Vec::new();
        for message in messages {
            let bytes = message.encoded_len();
            assert!((1 << 18..3 << 20).contains(&bytes), "{bytes}");
            let metrics = message.resource_metrics.into_iter();
            let scopes = metrics.flat_map(|metrics| metrics.scope_metrics);
            for metric in scopes.flat_map(|scope| scope.metrics) {
                let Some(Data::Histogram(histogram)) = metric.data else {
                    panic!("{metric:?}");
                };
                points.extend(
                    histogram
                        .data_points
                        .into_iter()
                        .map(|point| point.attributes),
                );
            }
        }
        // Each once, in their order.
        assert_eq!(points.len(), 3_000);
        assert!(points.is_sorted_by_key(|labels| format!("{labels:?}")));
        assert!(super::messages(&[], 1, 2).is_empty());
    }

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
