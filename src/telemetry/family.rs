//! A metric, and what it is worth at one moment.

use super::source::Snapshot;
use crate::serving::{Statistics, Version};

/// How a metric's value moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Up, or back to zero.
    Counter,
    /// Anywhere.
    Gauge,
}

impl Kind {
    /// The exposition formats' word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
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

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// By the metric's labels, in their order, and whatever the model's policy adds; escaped.
    pub labels: Vec<(String, String)>,
    /// The value.
    pub value: f64,
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

    /// Adds a value, with the values of the metric's labels.
    pub(super) fn add(&mut self, labels: &[&str], value: f64) {
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
fn escaped(label: &str) -> String {
    let label = label.replace('\\', r"\\").replace('"', r#"\""#);
    label.replace('\n', r"\n")
}
