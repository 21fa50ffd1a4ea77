//! What is asked of the server, and how much more it could do: one number for whoever has to decide
//! whether there are enough devices.
//!
//! What a version could do comes from what its batches were seen to take: the largest batches that
//! still answer within its latency objective, on every executor, all the time. What is asked of it are
//! the rows that came within the last ten seconds, whatever became of them. The one over the other is
//! the share of its capacity that is used; where versions share a device, their shares add up.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::process::Process;
use crate::clock::Moment;
use crate::model::VersionId;
use crate::serving::{Engine, Statistics, Version};

/// The time that is looked back on.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// The time from one look to the next.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// Points that are remembered for a picture: two minutes of looks.
const POINTS: usize = 120;
/// More than this is told as this: nobody can do anything with infinity.
const MOST_USED: f64 = 100.0;

/// What is asked of the server, and what it can do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Of each version that has executors.
    pub versions: Vec<VersionLoad>,
    /// By device, the share of what it could do that is used.
    pub devices: BTreeMap<String, f64>,
}

impl Load {
    /// The share of its capacity that is used where most of it is; none before anything has run.
    pub fn used(&self) -> Option<f64> {
        self.devices.values().copied().reduce(f64::max)
    }
}

/// What is asked of a version, and what it can do.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionLoad {
    /// Which version.
    pub id: VersionId,
    /// Rows a second that came.
    pub offered: f64,
    /// Rows a second that it can answer, each within its objective.
    pub sustainable: f64,
}

impl VersionLoad {
    /// The share of what it could do that is used.
    pub fn used(&self) -> f64 {
        match self.offered > 0.0 {
            true => (self.offered / self.sustainable).min(MOST_USED),
            false => 0.0,
        }
    }

    /// Rows a second that may come beside those that do, if it is alone on its devices.
    pub fn headroom(&self) -> f64 {
        (self.sustainable - self.offered).max(0.0)
    }
}

/// What a version did at one moment, for pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Wall-clock milliseconds since the Unix epoch.
    pub wall_milliseconds: u64,
    /// Requests answered a second, with success or not, of the second before.
    pub requests: f64,
    /// Of these, those that were answered with an error.
    pub errors: f64,
    /// Rows a second that ran.
    pub rows: f64,
    /// Seconds that half of the requests took no longer than; none if there were none.
    pub p50: Option<f64>,
    /// The same of 99 of 100.
    pub p99: Option<f64>,
    /// Requests waiting.
    pub queued: usize,
    /// The share of what it could do that is used.
    pub used: Option<f64>,
}

/// What those are told who balance requests over servers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// See [`Load::used`].
    pub used: Option<f64>,
    /// See [`Load::devices`].
    pub devices: BTreeMap<String, f64>,
    /// Share of the processors that the server used in the last second.
    pub processor: f64,
    /// Share of the host's memory that it has.
    pub memory: f64,
    /// Requests a second of the last second, over all versions.
    pub requests: f64,
    /// Of these, those that were answered with an error.
    pub errors: f64,
    /// Requests waiting.
    pub queued: usize,
}

struct Look {
    at: Moment,
    offered: u64,
    statistics: Statistics,
}

#[derive(Default)]
struct Seen {
    /// Of the window, oldest first.
    looks: VecDeque<Look>,
    points: VecDeque<Point>,
}

/// Looks at every version once a second, and remembers what it saw.
pub(super) struct Watcher {
    engine: Engine,
    seen: Mutex<BTreeMap<VersionId, Seen>>,
    report: ArcSwap<Report>,
}

impl Watcher {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            seen: Mutex::default(),
            report: ArcSwap::default(),
        }
    }

    /// Looks for ever.
    pub(super) async fn watch(&self) {
        let clock = self.engine.clock();
        let mut before = None;
        loop {
            let now = clock.now();
            self.look(now);
            let process = Process::look();
            self.report
                .store(Arc::new(self.reported(now, before, process)));
            before = process.map(|process| (now, process));
            clock.sleep_until(clock.now() + LOOK).await;
        }
    }

    fn look(&self, now: Moment) {
        let versions = self.engine.catalog().serving();
        let mut seen = self.seen();
        seen.retain(|id, _| versions.iter().any(|version| version.id == *id));
        for version in &versions {
            let seen = seen.entry(version.id.clone()).or_default();
            let look = Look {
                at: now,
                offered: version.demand().map_or(0, |demand| demand.offered),
                statistics: version.statistics(),
            };
            // A version of this number that was loaded anew begins at nothing.
            let anew = |last: &Look| {
                last.statistics.total_times.count() > look.statistics.total_times.count()
            };
            if seen.looks.back().is_some_and(anew) {
                seen.looks.clear();
            }
            if let Some(last) = seen.looks.back() {
                let used = load(version, seen.looks.front(), now).map(|load| load.used());
                let point = point(last, &look, version.queued(), used);
                seen.points.push_back(point);
            }
            seen.looks.push_back(look);
            // The oldest is as old as the window, or somewhat older.
            while seen
                .looks
                .get(1)
                .is_some_and(|next| now - next.at >= WINDOW)
            {
                seen.looks.pop_front();
            }
            let spare = seen.points.len().saturating_sub(POINTS);
            seen.points.drain(..spare);
        }
    }

    /// What balancers are told, as it was within the last second.
    pub(super) fn report(&self) -> Arc<Report> {
        self.report.load_full()
    }

    fn reported(
        &self,
        now: Moment,
        before: Option<(Moment, Process)>,
        process: Option<Process>,
    ) -> Report {
        let load = self.load();
        let seen = self.seen();
        let points = || seen.values().filter_map(|seen| seen.points.back());
        let processor = before.zip(process).map(|((since, before), process)| {
            let passed = now.since(since).as_secs_f64() * process.processors;
            (process.cpu_seconds - before.cpu_seconds) / passed.max(1e-9)
        });
        Report {
            used: load.used(),
            devices: load.devices,
            processor: processor.unwrap_or(0.0),
            memory: process.map_or(0.0, |process| process.memory_share()),
            requests: points().map(|point| point.requests).sum(),
            errors: points().map(|point| point.errors).sum(),
            queued: points().map(|point| point.queued).sum(),
        }
    }

    /// What is asked, and what can be done.
    pub(super) fn load(&self) -> Load {
        let now = self.engine.clock().now();
        let seen = self.seen();
        let mut all = Load::default();
        for version in self.engine.catalog().serving() {
            let first = seen.get(&version.id).and_then(|seen| seen.looks.front());
            let Some(load) = load(&version, first, now) else {
                continue;
            };
            let mut devices = version.devices.clone();
            devices.dedup();
            for device in devices {
                *all.devices.entry(device).or_default() += load.used();
            }
            all.versions.push(load);
        }
        all
    }

    /// What a version did within the window, and how long that is; none before a second look.
    pub(super) fn recent(&self, version: &Version) -> Option<(Statistics, Statistics, Duration)> {
        let seen = self.seen();
        let first = seen.get(&version.id)?.looks.front()?;
        let since = self.engine.clock().now() - first.at;
        Some((first.statistics.clone(), version.statistics(), since))
    }

    /// A version's last two minutes.
    pub(super) fn points(&self, id: &VersionId) -> Vec<Point> {
        let seen = self.seen();
        let points = seen.get(id).map(|seen| seen.points.iter().copied());
        points.into_iter().flatten().collect()
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<VersionId, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// None for an ensemble, before a version has run, and before there is a time to look back on.
fn load(version: &Version, first: Option<&Look>, now: Moment) -> Option<VersionLoad> {
    let demand = version.demand()?;
    let first = first?;
    let passed = now.since(first.at).as_secs_f64();
    let came = demand.offered.checked_sub(first.offered)?;
    (passed >= LOOK.as_secs_f64() / 2.0).then_some(VersionLoad {
        id: version.id.clone(),
        offered: came as f64 / passed,
        sustainable: demand.sustainable?,
    })
}

fn point(last: &Look, look: &Look, queued: usize, used: Option<f64>) -> Point {
    let passed = (look.at - last.at).as_secs_f64();
    let rate = |count: fn(&Statistics) -> u64| {
        let came = count(&look.statistics).saturating_sub(count(&last.statistics));
        came as f64 / passed.max(1e-9)
    };
    let times = look
        .statistics
        .total_times
        .since(&last.statistics.total_times);
    Point {
        wall_milliseconds: crate::clock::wall_nanoseconds() / 1_000_000,
        requests: rate(|counts| counts.total_times.count()),
        errors: rate(|counts| counts.errors.values().sum()),
        rows: rate(|counts| counts.rows),
        p50: times.quantile(0.5),
        p99: times.quantile(0.99),
        queued,
        used,
    }
}
