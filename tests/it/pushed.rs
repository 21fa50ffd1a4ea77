//! Metrics that are pushed: the same that a scrape tells.

use std::collections::{BTreeMap, BTreeSet};

use jitney::config::RawServer;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};

use super::metrics::scrape;
use super::node::Node;
use super::receiver::{Receiver, value};
use super::repository::Repository;
use super::request::rows;

async fn node(repository: &Repository, receiver: &Receiver) -> Node {
    let settings = RawServer {
        otlp_endpoint: Some(receiver.url.clone()),
        otlp_protocol: receiver.url.ends_with('/').then(|| "http".to_owned()),
        otlp_metrics_interval_ms: Some("100".to_owned()),
        trace_ratio: Some("1".to_owned()),
        metrics_address: Some("127.0.0.1:0".to_owned()),
        ..RawServer::default()
    };
    Node::with(&repository.path(), settings).await
}

/// The values of a counter or a gauge, by the values of their labels.
fn numbers(metric: &Metric) -> BTreeMap<Vec<String>, f64> {
    let points = match metric.data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic);
            let cumulative = AggregationTemporality::Cumulative as i32;
            assert_eq!(sum.aggregation_temporality, cumulative);
            &sum.data_points
        }
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let points = points.iter().map(|point| {
        assert!(point.start_time_unix_nano < point.time_unix_nano);
        let labels = point.attributes.iter().map(|label| {
            let all = std::slice::from_ref(label);
            value(all, &label.key).unwrap()
        });
        let Some(Number::AsDouble(number)) = point.value else {
            panic!("{point:?}");
        };
        (labels.collect(), number)
    });
    points.collect()
}

fn number(pushed: &BTreeMap<String, Metric>, name: &str, labels: &[&str]) -> Option<f64> {
    let numbers = numbers(pushed.get(name)?);
    let labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
    numbers.get(&labels).copied()
}

async fn what_a_scrape_tells_is_pushed(http: bool) {
    let mut receiver = Receiver::start(http).await;
    let repository = Repository::of("", "");
    let node = node(&repository, &receiver).await;
    for seed in 0..3 {
        node.infer(rows("m", seed, 2)).await.unwrap();
    }
    // Spans are counted as they are sent.
    let pushed = loop {
        let pushed = receiver.metrics().await;
        let spans = number(&pushed, "jitney_trace_spans_total", &["sent"]);
        if spans == Some(27.0) {
            break pushed;
        }
    };
    for (name, labels, expected) in [
        ("jitney_rows_total", &["m", "1"][..], 6.0),
        ("jitney_batches_total", &["m", "1"], 3.0),
        ("jitney_requests_total", &["m", "1", "OK"], 3.0),
        ("jitney_executors_alive", &["m", "1"], 1.0),
        ("jitney_model_state", &["m", "1", "READY"], 1.0),
    ] {
        assert_eq!(number(&pushed, name, labels), Some(expected), "{name}");
    }
    let batches = &pushed["jitney_batch_rows"];
    let Some(Data::Histogram(histogram)) = &batches.data else {
        panic!("{batches:?}");
    };
    let point = &histogram.data_points[0];
    assert_eq!(value(&point.attributes, "device").unwrap(), "cpu");
    assert_eq!((point.count, point.sum), (3, Some(6.0)));
    assert!(point.explicit_bounds.is_sorted());
    assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
    let two = point.explicit_bounds.iter().position(|bound| *bound == 2.0);
    assert_eq!(point.bucket_counts[two.unwrap()], 3);
    let total = &pushed["jitney_request_duration_seconds"];
    assert_eq!(total.unit, "s");
    let Some(Data::Histogram(histogram)) = &total.data else {
        panic!("{total:?}");
    };
    // Each exemplar is a request that was told.
    receiver.rest();
    let told: BTreeSet<_> = receiver.spans.iter().map(|span| &span.span_id).collect();
    let exemplars = &histogram.data_points[0].exemplars;
    assert!(!exemplars.is_empty());
    assert!(
        exemplars
            .iter()
            .all(|exemplar| told.contains(&exemplar.span_id))
    );
    let (_, scraped) = scrape(&node, "*/*").await;
    let types = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<&str> = types.map(|line| line.split(' ').next().unwrap()).collect();
    // What is known a while after the first requests only may come between the two.
    let pushed: BTreeSet<&str> = pushed.keys().map(String::as_str).collect();
    assert!(pushed.is_subset(&names), "{:?}", pushed.difference(&names));
    assert!(pushed.len() > 30);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_scrape_tells_is_pushed_over_grpc() {
    what_a_scrape_tells_is_pushed(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_scrape_tells_is_pushed_over_http() {
    what_a_scrape_tells_is_pushed(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_knows_whose_metrics_they_are() {
    let mut receiver = Receiver::start(false).await;
    let repository = Repository::of("", "");
    let _node = node(&repository, &receiver).await;
    receiver.metrics().await;
    let name = value(&receiver.resource.attributes, "service.name");
    assert_eq!(name.as_deref(), Some("jitney"));
}
