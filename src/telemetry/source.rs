//! Where the values come from.

use std::sync::Arc;
use std::time::Duration;

use super::door::DoorCounts;
use super::family::Family;
use super::load::{Load, Point, Report, Watcher};
use super::process::Process;
use super::tags::Tags;
use super::text::Format;
use super::tracer::Tracer;
use super::{own, triton};
use crate::device::{Memory, SharedDevice};
use crate::model::VersionId;
use crate::serving::{CacheUsage, Engine, IndexEntry, ResponseCache, Statistics, Version};

/// What the frontend holds at this moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InFlight {
    /// Calls in progress.
    pub calls: usize,
    /// Bytes of their requests.
    pub bytes: usize,
}

/// What can be told of the server.
#[derive(Clone)]
pub struct Metrics {
    engine: Engine,
    responses: Option<Arc<ResponseCache>>,
    devices: Vec<SharedDevice>,
    watcher: Arc<Watcher>,
    tracer: Option<Arc<Tracer>>,
    door: Arc<DoorCounts>,
    settings: Settings,
}

/// What is told, where that can be chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Settings {
    /// Whether metrics are told under Triton's names too.
    pub triton: bool,
    /// What a device costs an hour, in whatever currency.
    pub device_price_per_hour: Option<f64>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// Everything that is told, as it was at one moment.
pub(super) struct Snapshot {
    pub(super) versions: Vec<(Arc<Version>, Statistics)>,
    /// What the response cache holds, and may hold; none if there is none.
    pub(super) cache: Option<(CacheUsage, usize)>,
    pub(super) devices: Vec<(SharedDevice, Memory)>,
    pub(super) in_flight: InFlight,
    pub(super) load: Load,
    /// Every model that is known, and how it stands.
    pub(super) index: Vec<IndexEntry>,
    pub(super) process: Option<Process>,
    /// What a device costs an hour, if anybody has said.
    pub(super) device_price: Option<f64>,
    /// Spans that were sent, and dropped; none if nothing is traced.
    pub(super) spans: Option<(u64, u64)>,
    /// Who was let in.
    pub(super) door: Arc<DoorCounts>,
}

impl Metrics {
    /// Metrics of what `engine` serves, on these devices.
    pub fn new(
        engine: Engine,
        responses: Option<Arc<ResponseCache>>,
        devices: Vec<SharedDevice>,
        settings: Settings,
    ) -> Self {
        Self {
            watcher: Arc::new(Watcher::new(engine.clone())),
            engine,
            responses,
            devices,
            tracer: None,
            door: Arc::default(),
            settings,
        }
    }

    /// The same, with what becomes of spans.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Option<Arc<Tracer>>) -> Self {
        self.tracer = tracer;
        self
    }

    /// The same, with who is let in.
    #[must_use]
    pub fn with_door(mut self, door: Arc<DoorCounts>) -> Self {
        self.door = door;
        self
    }

    /// Looks at what the server does once a second, for ever: rates and capacity are told by it.
    pub async fn watch(self) {
        self.watcher.watch().await;
    }

    /// What is asked of the server, and what it can do.
    pub fn load(&self) -> Load {
        self.watcher.load()
    }

    /// What those are told who balance requests over servers, as it was within the last second.
    pub fn report(&self) -> Arc<Report> {
        self.watcher.report()
    }

    /// The devices of this machine.
    pub fn devices(&self) -> &[SharedDevice] {
        &self.devices
    }

    /// A version's last two minutes, a second each.
    pub fn points(&self, id: &VersionId) -> Vec<Point> {
        self.watcher.points(id)
    }

    /// What a version has done, and had done some ten seconds ago, and how long ago that was.
    pub fn recent(&self, version: &Version) -> Option<(Statistics, Statistics, Duration)> {
        self.watcher.recent(version)
    }

    /// Every metric's values now.
    pub fn scrape(&self, format: Format, in_flight: InFlight) -> String {
        let families = self.families(in_flight);
        format.written(&families)
    }

    pub(super) fn families(&self, in_flight: InFlight) -> Vec<Family> {
        let snapshot = self.snapshot(in_flight);
        let triton = triton::METRICS.iter().filter(|_| self.settings.triton);
        let told = own::metrics().chain(triton);
        let tags = Tags::of(&snapshot.versions);
        told.map(|told| {
            let mut family = Family::gathered(told, &snapshot);
            tags.mark(&mut family);
            family
        })
        .collect()
    }

    fn snapshot(&self, in_flight: InFlight) -> Snapshot {
        let serving = self.engine.catalog().serving().into_iter();
        let cache = self.responses.as_ref();
        let devices = self.devices.iter();
        Snapshot {
            versions: serving
                .map(|version| {
                    let statistics = version.statistics();
                    (version, statistics)
                })
                .collect(),
            cache: cache.map(|cache| (cache.usage(), cache.max_bytes())),
            devices: devices
                .filter_map(|device| Some((Arc::clone(device), device.memory().ok()?)))
                .collect(),
            in_flight,
            load: self.watcher.load(),
            index: self.engine.catalog().index(),
            process: Process::look(),
            device_price: self.settings.device_price_per_hour,
            spans: self.tracer.as_ref().map(|tracer| tracer.counts()),
            door: Arc::clone(&self.door),
        }
    }
}
