//! A metric, and what it is worth at one moment.

use std::collections::BTreeMap;

use super::load::VersionLoad;
use super::source::Snapshot;
use crate::serving::{DeviceCounts, Exemplar, Histogram, Statistics, Version};

/// How a metric's value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up, or back to zero.
    Counter,
    /// Anywhere.
    Gauge,
    /// Counts of values by their size.
    Histogram,
}

impl Kind {
    /// The exposition formats' word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What is measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its whole name; our own counters end with `_total`.
    pub name: &'static str,
    /// How its value moves.
    pub kind: Kind,
    /// What it is, without a full stop.
    pub help: &'static str,
    /// The labels that tell its samples apart.
    pub labels: &'static [&'static str],
}

/// A metric, and how its values are gathered.
pub(super) struct Told {
    pub(super) metric: Metric,
    pub(super) gather: fn(&Snapshot, &mut Family),
}

/// Labels of what is told of each version.
pub(super) const VERSION: &[&str] = &["model", "version"];
/// Labels of what is told of each version on each device.
pub(super) const ON_DEVICE: &[&str] = &["model", "version", "device"];

pub(super) const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    gather: fn(&Snapshot, &mut Family),
) -> Told {
    let kind = Kind::Counter;
    let metric = Metric {
        name,
        kind,
        help,
        labels,
    };
    Told { metric, gather }
}

pub(super) const fn histogram(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    gather: fn(&Snapshot, &mut Family),
) -> Told {
    let mut told = counter(name, labels, help, gather);
    told.metric.kind = Kind::Histogram;
    told
}

pub(super) const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    gather: fn(&Snapshot, &mut Family),
) -> Told {
    let mut told = counter(name, labels, help, gather);
    told.metric.kind = Kind::Gauge;
    told
}

/// A label's name and its value, escaped.
pub type Label = (String, String);

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// By the metric's labels, in their order.
    pub labels: Vec<Label>,
    /// The value.
    pub value: Value,
}

/// What a metric is worth.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A counter's or a gauge's.
    Number(f64),
    /// A histogram's.
    Histogram(Buckets),
}

/// Counts of values by their size.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets {
    /// Upper bounds, and how many values are in each bucket alone; the last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
    /// All values together.
    pub sum: f64,
    /// By the place of a bucket, a request of it that is in a trace.
    pub exemplars: BTreeMap<usize, Exemplar>,
}

impl<const N: usize> From<&Histogram<N>> for Buckets {
    fn from(histogram: &Histogram<N>) -> Self {
        Self {
            buckets: histogram.buckets().collect(),
            sum: histogram.sum(),
            exemplars: BTreeMap::new(),
        }
    }
}

/// A metric's values at one moment.
#[derive(Clone, Debug)]
pub struct Family {
    /// What they are values of.
    pub metric: &'static Metric,
    /// The values.
    pub samples: Vec<Sample>,
}

impl Family {
    pub(super) fn gathered(told: &'static Told, snapshot: &Snapshot) -> Self {
        let mut family = Self {
            metric: &told.metric,
            samples: Vec::new(),
        };
        (told.gather)(snapshot, &mut family);
        family
    }

    /// Adds a value for each version.
    pub(super) fn each(
        &mut self,
        snapshot: &Snapshot,
        value: impl Fn(&Version, &Statistics) -> f64,
    ) {
        for (version, statistics) in &snapshot.versions {
            let number = version.id.version.to_string();
            let value = value(version, statistics);
            self.add(&[&version.id.model, &number], value);
        }
    }

    /// Adds values for each version, with one label more.
    pub(super) fn each_by<L: AsRef<str>>(
        &mut self,
        snapshot: &Snapshot,
        values: impl Fn(&Version, &Statistics) -> Vec<(L, f64)>,
    ) {
        for (version, statistics) in &snapshot.versions {
            let number = version.id.version.to_string();
            for (label, value) in values(version, statistics) {
                self.add(&[&version.id.model, &number, label.as_ref()], value);
            }
        }
    }

    /// Adds a histogram for each version.
    pub(super) fn each_histogram(
        &mut self,
        snapshot: &Snapshot,
        of: impl Fn(&Statistics) -> Buckets,
    ) {
        for (version, statistics) in &snapshot.versions {
            let number = version.id.version.to_string();
            let value = Value::Histogram(of(statistics));
            self.put(&[&version.id.model, &number], value);
        }
    }

    /// Adds a value for each device of each version.
    pub(super) fn each_device(&mut self, snapshot: &Snapshot, of: impl Fn(&DeviceCounts) -> Value) {
        for (version, statistics) in &snapshot.versions {
            let number = version.id.version.to_string();
            let devices = statistics.by_device.iter();
            for counts in devices.filter(|counts| !counts.device.is_empty()) {
                let labels = [version.id.model.as_ref(), &number, &counts.device];
                self.put(&labels, of(counts));
            }
        }
    }

    /// Adds a value for each version whose capacity is known.
    pub(super) fn each_load(&mut self, snapshot: &Snapshot, value: impl Fn(&VersionLoad) -> f64) {
        for load in &snapshot.load.versions {
            let number = load.id.version.to_string();
            self.add(&[&load.id.model, &number], value(load));
        }
    }

    /// Adds a value, with the values of the metric's labels.
    pub(super) fn add(&mut self, labels: &[&str], value: f64) {
        self.put(labels, Value::Number(value));
    }

    fn put(&mut self, labels: &[&str], value: Value) {
        let names = self.metric.labels.iter();
        let labels = names.zip(labels);
        self.samples.push(Sample {
            labels: labels
                .map(|(name, label)| ((*name).to_owned(), escaped(label)))
                .collect(),
            value,
        });
    }
}

/// As both formats have it between quotes.
pub(super) fn escaped(label: &str) -> String {
    let label = label.replace('\\', r"\\").replace('"', r#"\""#);
    label.replace('\n', r"\n")
}
