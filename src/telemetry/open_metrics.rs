//! OpenMetrics 1.0, for those who ask for it.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::family::{Family, Kind};

pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The suffix that the format asks of a counter's samples.
const TOTAL: &str = "_total";

pub(super) fn written(families: Vec<Family>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families)));
    let mut text = String::new();
    // Writing into memory does not fail.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let told = self.0.iter().filter(|family| !family.samples.is_empty());
        for family in told {
            let metric = family.metric;
            let (name, kind) = match metric.kind {
                Kind::Gauge => (metric.name, MetricType::Gauge),
                // A counter of another name than the format's is none to it.
                Kind::Counter => metric
                    .name
                    .strip_suffix(TOTAL)
                    .map_or((metric.name, MetricType::Unknown), |name| {
                        (name, MetricType::Counter)
                    }),
            };
            let samples = encoder.encode_descriptor(name, metric.help, None, kind)?;
            write(family, kind, samples)?;
        }
        Ok(())
    }
}

fn write(family: &Family, kind: MetricType, mut samples: MetricEncoder<'_>) -> fmt::Result {
    for sample in &family.samples {
        let mut one = samples.encode_family(&sample.labels)?;
        match kind {
            MetricType::Counter => one.encode_counter::<NoLabelSet, _, f64>(&sample.value, None)?,
            _ => one.encode_gauge(&sample.value)?,
        }
    }
    Ok(())
}
