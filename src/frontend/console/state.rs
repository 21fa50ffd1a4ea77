//! The server as it is at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::View;
use super::asked::Asked;
use super::version::{Serving, device_seconds};
use crate::clock::Moment;
use crate::device::SharedDevice;
use crate::serving::{IndexEntry, LoadProgress, Version};
use crate::telemetry::{Load, milliseconds};

/// The server as it is at this moment.
#[derive(Serialize)]
pub(super) struct ServerState {
    server: Server,
    capacity_used_ratio: Option<f64>,
    in_flight: InFlight,
    devices: Vec<Device>,
    models: Vec<Model>,
}

#[derive(Serialize)]
struct Server {
    name: String,
    version: &'static str,
    ready: bool,
    uptime_ms: f64,
    unix_ms: f64,
    /// Whether models are loaded and unloaded from the console.
    controls: bool,
    grpc_port: u16,
}

#[derive(Serialize)]
struct InFlight {
    calls: usize,
    most_calls: usize,
    bytes: usize,
    most_bytes: usize,
}

#[derive(Serialize)]
struct Device {
    device: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    uuid: Option<String>,
    total_bytes: Option<u64>,
    free_bytes: Option<u64>,
    /// The share of what it could do that is used.
    capacity_used_ratio: Option<f64>,
    /// The share of the last ten seconds in which it had batches.
    busy_ratio: f64,
}

#[derive(Serialize)]
struct Model {
    model: String,
    version: Option<u64>,
    state: &'static str,
    reason: String,
    /// If it is being loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    loading: Option<Loading>,
    /// If it serves.
    #[serde(flatten)]
    serving: Option<Serving>,
}

/// How far a load is.
#[derive(Serialize)]
struct Loading {
    phase: &'static str,
    /// The share that is done, and what is left by estimate, where that is known.
    done_ratio: Option<f64>,
    left_ms: Option<f64>,
    took_ms: f64,
}

impl Loading {
    fn told(progress: &LoadProgress) -> Self {
        Self {
            phase: progress.phase.name(),
            done_ratio: progress.share,
            left_ms: progress.left.map(milliseconds),
            took_ms: milliseconds(progress.took),
        }
    }
}

impl ServerState {
    /// Of all models, or of the one that is asked for.
    pub(super) fn told(view: &View, asked: &Asked, versions: &[Arc<Version>]) -> Self {
        let load = view.metrics.load();
        let engine = &view.api.engine;
        let held = view.layer.in_flight();
        let index = engine.catalog().index().into_iter();
        let entries = index.filter(|entry| asked.is_of(&entry.model));
        Self {
            server: Server::told(view),
            capacity_used_ratio: load.used(),
            in_flight: InFlight {
                calls: held.calls,
                most_calls: view.limits.max_requests,
                bytes: held.bytes,
                most_bytes: view.limits.max_in_flight_bytes,
            },
            devices: devices(view, &load),
            models: entries
                .map(|entry| Model::told(entry, view, asked, versions, &load))
                .collect(),
        }
    }
}

impl Server {
    fn told(view: &View) -> Self {
        let now = view.api.engine.clock().now();
        Self {
            name: view.api.server_name.to_string(),
            version: env!("CARGO_PKG_VERSION"),
            ready: view.api.readiness.is_ready(),
            uptime_ms: milliseconds(now - Moment::ORIGIN),
            unix_ms: view.anchor().unix_ms(now),
            controls: view.console.controls,
            grpc_port: view.console.grpc_port,
        }
    }
}

impl Model {
    fn told(
        entry: IndexEntry,
        view: &View,
        asked: &Asked,
        versions: &[Arc<Version>],
        load: &Load,
    ) -> Self {
        let mut versions = versions.iter();
        let version = versions.find(|version| {
            version.id.model == entry.model && Some(version.id.version) == entry.version
        });
        Self {
            serving: version.map(|version| Serving::told(version, view, asked.points, load)),
            loading: entry.progress.as_ref().map(Loading::told),
            model: entry.model.to_string(),
            version: entry.version,
            state: entry.state.name(),
            reason: entry.reason,
        }
    }
}

/// Those of the machine, and those that only versions know: simulated ones.
fn devices(view: &View, load: &Load) -> Vec<Device> {
    let mut busy: BTreeMap<String, f64> = BTreeMap::new();
    for version in view.api.engine.catalog().serving() {
        for device in &version.devices {
            busy.entry(device.clone()).or_default();
        }
        for (device, share) in device_seconds(&version, view) {
            *busy.entry(device).or_default() += share;
        }
    }
    let known = view.metrics.devices().iter();
    let mut told: Vec<Device> = known
        .map(|device| known_device(device, &mut busy, load))
        .collect();
    told.extend(busy.into_iter().map(|(device, busy)| Device {
        capacity_used_ratio: load.devices.get(&device).copied(),
        name: "simulated".to_owned(),
        device,
        uuid: None,
        total_bytes: None,
        free_bytes: None,
        busy_ratio: busy,
    }));
    told
}

fn known_device(device: &SharedDevice, busy: &mut BTreeMap<String, f64>, load: &Load) -> Device {
    let id = device.id().to_string();
    let memory = device.memory().ok();
    Device {
        name: device.name().to_owned(),
        uuid: device.uuid(),
        total_bytes: memory.map(|memory| memory.total_bytes),
        free_bytes: memory.map(|memory| memory.free_bytes),
        capacity_used_ratio: load.devices.get(&id).copied(),
        busy_ratio: busy.remove(&id).unwrap_or_default(),
        device: id,
    }
}
