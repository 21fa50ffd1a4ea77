//! A version that serves, as it is at this moment.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::View;
use super::counted::{Bucket, Recent, Total, histogram};
use crate::model::{Batching, Dimension, TensorSpec};
use crate::serving::{Statistics, Version};
use crate::telemetry::{Load, Point, VersionLoad, milliseconds};

/// A version that serves.
#[derive(Serialize)]
pub(super) struct Serving {
    inputs: Vec<Tensor>,
    outputs: Vec<Tensor>,
    batching: Rows,
    /// The models that an ensemble is made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    made_of: Vec<String>,
    /// Sequences that are going on, if it is stateful.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequences: Option<usize>,
    /// Where its instances are, one entry each.
    devices: Vec<String>,
    executors_alive: usize,
    memory_bytes: BTreeMap<String, u64>,
    objective_ms: f64,
    queue_depth: usize,
    queue_limit: usize,
    service_times: Vec<Learned>,
    capacity: Option<Capacity>,
    recent: Recent,
    total: Total,
    batch_rows: Vec<Bucket>,
    padding_ratio: Vec<Bucket>,
    #[serde(skip_serializing_if = "Option::is_none")]
    points: Option<Vec<PointTold>>,
}

#[derive(Serialize)]
struct Tensor {
    name: String,
    datatype: &'static str,
    shape: Vec<i64>,
    /// What the model calls its dimensions; empty where it does not say.
    dimensions: Vec<String>,
}

#[derive(Serialize)]
struct Rows {
    max_batch_size: usize,
    /// Why requests run alone, if they do.
    alone: Option<String>,
}

/// What a batch of n rows is expected to take: `fixed_ms` + n `per_row_ms`.
#[derive(Serialize)]
struct Learned {
    device: String,
    fixed_ms: f64,
    per_row_ms: f64,
    batches: u64,
}

#[derive(Serialize)]
struct Capacity {
    offered_rows_per_second: f64,
    sustainable_rows_per_second: f64,
    headroom_rows_per_second: f64,
    used_ratio: f64,
}

#[derive(Serialize)]
struct PointTold {
    unix_ms: u64,
    requests_per_second: f64,
    errors_per_second: f64,
    rows_per_second: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    queue_depth: usize,
    capacity_used_ratio: Option<f64>,
}

impl Serving {
    pub(super) fn told(version: &Version, view: &View, points: bool, load: &Load) -> Self {
        let (before, now, passed) = seen(version, view);
        let tensors = |specs: &[TensorSpec]| specs.iter().map(Tensor::told).collect();
        let ensemble = version.policy.ensemble.as_ref();
        let models = ensemble.map(|ensemble| ensemble.models());
        let own = load.versions.iter().find(|own| own.id == version.id);
        let points = points.then(|| view.metrics.points(&version.id));
        Self {
            inputs: tensors(&version.signature.inputs),
            outputs: tensors(&version.signature.outputs),
            batching: Rows::told(version),
            made_of: models.into_iter().flatten().map(str::to_owned).collect(),
            sequences: (version.policy.sequence.is_some()).then(|| version.live_sequences()),
            devices: version.devices.clone(),
            executors_alive: version.executors_alive(),
            memory_bytes: version.memory.iter().cloned().collect(),
            objective_ms: milliseconds(version.objective()),
            queue_depth: version.queued(),
            queue_limit: version.policy.queue.max_queue_size,
            service_times: learned(version),
            capacity: own.map(Capacity::told),
            batch_rows: histogram(&before, &now, |on| &on.batch_rows),
            padding_ratio: histogram(&before, &now, |on| &on.padding),
            recent: Recent::told(&before, &now, passed),
            total: Total::told(&now),
            points: points.map(|points| points.iter().map(PointTold::told).collect()),
        }
    }
}

/// What it had done some ten seconds ago, has done now, and how long ago that was.
fn seen(version: &Version, view: &View) -> (Statistics, Statistics, Duration) {
    view.metrics.recent(version).unwrap_or_else(|| {
        let now = version.statistics();
        (now.clone(), now, Duration::ZERO)
    })
}

/// By device, the share of the last ten seconds in which it had batches of this version.
pub(super) fn device_seconds(version: &Version, view: &View) -> Vec<(String, f64)> {
    let (before, now, passed) = seen(version, view);
    let passed = passed.as_secs_f64().max(1e-9);
    let counts = now.by_device.iter().enumerate();
    let share = counts.map(|(group, on)| {
        let before = before.by_device.get(group);
        let had = before.map_or(Duration::ZERO, |before| before.device_time);
        let took = on.device_time.saturating_sub(had);
        (on.device.to_string(), took.as_secs_f64() / passed)
    });
    share.filter(|(device, _)| !device.is_empty()).collect()
}

fn learned(version: &Version) -> Vec<Learned> {
    let times = version.service_times();
    times
        .map(|(device, learned)| Learned {
            device,
            fixed_ms: learned.fixed / 1e6,
            per_row_ms: learned.per_row / 1e6,
            batches: learned.batches,
        })
        .collect()
}

impl Tensor {
    fn told(spec: &TensorSpec) -> Self {
        let symbol = |dimension: &Dimension| dimension.symbol.clone();
        Self {
            name: spec.name.clone(),
            datatype: spec.dtype.name(),
            shape: spec.protocol_shape(),
            dimensions: spec.dimensions.iter().map(symbol).collect(),
        }
    }
}

impl Rows {
    fn told(version: &Version) -> Self {
        Self {
            max_batch_size: version.max_batch_size(),
            alone: match &version.batching {
                Batching::Rows => None,
                Batching::Alone(reason) => Some(reason.clone()),
            },
        }
    }
}

impl Capacity {
    fn told(load: &VersionLoad) -> Self {
        Self {
            offered_rows_per_second: load.offered,
            sustainable_rows_per_second: load.sustainable,
            headroom_rows_per_second: load.headroom(),
            used_ratio: load.used(),
        }
    }
}

impl PointTold {
    fn told(point: &Point) -> Self {
        Self {
            unix_ms: point.wall_milliseconds,
            requests_per_second: point.requests,
            errors_per_second: point.errors,
            rows_per_second: point.rows,
            p50_ms: point.p50.map(|seconds| seconds * 1e3),
            p99_ms: point.p99.map(|seconds| seconds * 1e3),
            queue_depth: point.queued,
            capacity_used_ratio: point.used,
        }
    }
}
