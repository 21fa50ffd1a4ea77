//! Where the values come from.

use std::sync::Arc;

use super::family::Family;
use super::{open_metrics, own, text, triton};
use crate::device::{Memory, SharedDevice};
use crate::serving::{CacheUsage, Engine, ResponseCache, Statistics, Version};

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What a client asks for by its `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// The `Content-Type` of the format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => text::CONTENT_TYPE,
            Self::OpenMetrics => open_metrics::CONTENT_TYPE,
        }
    }
}

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
    triton: bool,
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
}

impl Metrics {
    /// Metrics of what `engine` serves, on these devices; under Triton's names too, or not.
    pub fn new(
        engine: Engine,
        responses: Option<Arc<ResponseCache>>,
        devices: Vec<SharedDevice>,
        triton: bool,
    ) -> Self {
        Self {
            engine,
            responses,
            devices,
            triton,
        }
    }

    /// Every metric's values now.
    pub fn scrape(&self, format: Format, in_flight: InFlight) -> String {
        let families = self.families(in_flight);
        match format {
            Format::Text => text::written(&families),
            Format::OpenMetrics => open_metrics::written(families),
        }
    }

    fn families(&self, in_flight: InFlight) -> Vec<Family> {
        let snapshot = self.snapshot(in_flight);
        let triton = triton::METRICS.iter().filter(|_| self.triton);
        let told = own::METRICS.iter().chain(triton);
        told.map(|told| Family::gathered(told, &snapshot)).collect()
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
        }
    }
}
