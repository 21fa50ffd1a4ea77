//! What a server counted of itself while a step ran: how many requests it put together, and how long they
//! waited for that.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval_at};

use crate::clock::now;
use crate::proto::ModelStatistics;
use crate::target::Target;

/// What a server counted of one version of a model in a step, its warm-up included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counted {
    /// The model's name.
    pub model: String,
    /// Its version.
    pub version: String,
    /// Requests that were answered well.
    pub requests: u64,
    /// How long they waited in the queue on average, in nanoseconds.
    pub queue_ns: f64,
    /// Runs of the model, by their rows.
    pub batches: BTreeMap<u64, u64>,
    /// The same from look to look, a second apart.
    pub seconds: Vec<CountedSecond>,
}

/// What a server counted of a version since the look before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CountedSecond {
    /// When it was looked at, since the time that counts began.
    pub second: f64,
    /// How long requests waited in the queue on average, in nanoseconds.
    pub queue_ns: f64,
    /// Rows of a run, on average.
    pub rows: f64,
}

impl Counted {
    /// Rows of a run, on average.
    pub fn mean_rows(&self) -> f64 {
        let runs: u64 = self.batches.values().sum();
        let rows: u64 = self.batches.iter().map(|(rows, runs)| rows * runs).sum();
        rows as f64 / runs.max(1) as f64
    }

    /// Whether both are of the same version of a model.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        (&self.model, &self.version) == (&other.model, &other.version)
    }

    /// Puts what was counted so many seconds later to it.
    pub(crate) fn append(&mut self, later: &Self, seconds: f64) {
        let requests = (self.requests + later.requests).max(1) as f64;
        self.queue_ns = (self.queue_ns * self.requests as f64
            + later.queue_ns * later.requests as f64)
            / requests;
        self.requests += later.requests;
        for (rows, runs) in &later.batches {
            *self.batches.entry(*rows).or_default() += runs;
        }
        let looks = later.seconds.iter();
        self.seconds.extend(looks.map(|look| CountedSecond {
            second: seconds + look.second,
            ..*look
        }));
    }
}

/// What was counted between two answers of ModelStatistics, of versions that ran. A server that was
/// started again in between has forgotten what it had counted before.
fn counted(before: &[ModelStatistics], after: &[ModelStatistics]) -> Vec<Counted> {
    let versions = after.iter().map(|after| {
        let same = |one: &&ModelStatistics| one.name == after.name && one.version == after.version;
        let new = ModelStatistics::default();
        let before = before.iter().find(same).unwrap_or(&new);
        since(before, after)
    });
    versions
        .filter(|counted| counted.requests > 0 || !counted.batches.is_empty())
        .collect()
}

fn since(before: &ModelStatistics, after: &ModelStatistics) -> Counted {
    let new = ModelStatistics::default();
    // Counters that have gone back began anew.
    let before = match success(after) < success(before) {
        true => &new,
        false => before,
    };
    let (waited, nanoseconds) = queue(after);
    let (waited_before, nanoseconds_before) = queue(before);
    let waited = waited.saturating_sub(waited_before).max(1);
    let nanoseconds = nanoseconds.saturating_sub(nanoseconds_before);
    let mut batches = runs(after);
    for (rows, earlier) in runs(before) {
        let all = batches.entry(rows).or_default();
        *all = all.saturating_sub(earlier);
    }
    batches.retain(|_, runs| *runs > 0);
    Counted {
        model: after.name.clone(),
        version: after.version.clone(),
        requests: success(after) - success(before),
        queue_ns: nanoseconds as f64 / waited as f64,
        batches,
        seconds: Vec::new(),
    }
}

/// Looks at what a server counts each second, until it is asked what it saw or dropped.
pub(crate) struct Looks {
    stop: oneshot::Sender<()>,
    looking: JoinHandle<Vec<Look>>,
}

/// What a server said of itself, and when: since the time that counts began.
struct Look {
    second: f64,
    said: Vec<ModelStatistics>,
}

impl Looks {
    /// From this time on; `before` is what it said before. Does not look if that is nothing.
    pub(crate) fn at(target: &Target, from: Duration, before: Vec<ModelStatistics>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let looking = tokio::spawn(look(target.clone(), from, before, stopped));
        Self { stop, looking }
    }

    /// What the server counted from the first look to this, the last one.
    pub(crate) async fn counted(self, last: &[ModelStatistics]) -> Vec<Counted> {
        // If it has ended, there is nothing more to see.
        let _ = self.stop.send(());
        let looks = self.looking.await.unwrap_or_default();
        let Some(first) = looks.first() else {
            return counted(&[], last);
        };
        let mut all = counted(&first.said, last);
        // Warming up does not count.
        let counts = looks.iter().filter(|look| look.second >= 0.0);
        for (before, after) in counts.clone().zip(counts.skip(1)) {
            for one in counted(&before.said, &after.said) {
                if let Some(all) = all.iter_mut().find(|all| all.is_of(&one)) {
                    all.seconds.push(CountedSecond {
                        second: after.second,
                        queue_ns: one.queue_ns,
                        rows: one.mean_rows(),
                    });
                }
            }
        }
        all
    }
}

async fn look(
    target: Target,
    from: Duration,
    before: Vec<ModelStatistics>,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<Look> {
    let start = now() + from;
    let since = || now().saturating_duration_since(start).as_secs_f64();
    // A server that does not count is not asked again.
    let counts = !before.is_empty();
    let mut looks = vec![Look {
        second: since(),
        said: before,
    }];
    if !counts {
        return looks;
    }
    let mut times = interval_at(start.into(), Duration::from_secs(1));
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let said = async {
            times.tick().await;
            target.statistics().await
        };
        tokio::select! {
            _ = &mut stopped => return looks,
            said = said => {
                // One that is away says nothing.
                if !said.is_empty() {
                    looks.push(Look { second: since(), said });
                }
            }
        }
    }
}

fn success(statistics: &ModelStatistics) -> u64 {
    let inference = statistics.inference_stats.as_ref();
    let success = inference.and_then(|inference| inference.success.as_ref());
    success.map_or(0, |one| one.count)
}

fn queue(statistics: &ModelStatistics) -> (u64, u64) {
    let inference = statistics.inference_stats.as_ref();
    let queue = inference.and_then(|inference| inference.queue.as_ref());
    queue.map_or((0, 0), |one| (one.count, one.ns))
}

fn runs(statistics: &ModelStatistics) -> BTreeMap<u64, u64> {
    let batches = statistics.batch_stats.iter();
    let runs = batches.map(|batch| {
        let infer = batch.compute_infer.as_ref();
        (batch.batch_size, infer.map_or(0, |one| one.count))
    });
    runs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::{InferBatchStatistics, InferStatistics, StatisticDuration};

    fn statistics(requests: u64, queue_ns: u64, batches: &[(u64, u64)]) -> ModelStatistics {
        let duration = |count, ns| Some(StatisticDuration { count, ns });
        let batches = batches.iter().map(|(rows, runs)| InferBatchStatistics {
            batch_size: *rows,
            compute_infer: duration(*runs, 1),
            ..InferBatchStatistics::default()
        });
        ModelStatistics {
            name: "m".to_owned(),
            version: "1".to_owned(),
            inference_stats: Some(InferStatistics {
                success: duration(requests, 1),
                queue: duration(requests, queue_ns),
                ..InferStatistics::default()
            }),
            batch_stats: batches.collect(),
            ..ModelStatistics::default()
        }
    }

    #[test]
    fn what_was_counted_before_does_not_count() {
        let before = [statistics(100, 1_000, &[(1, 20), (8, 10)])];
        let after = [statistics(140, 9_000, &[(1, 20), (4, 2), (8, 14)])];
        let [one] = &counted(&before, &after)[..] else {
            panic!("one model ran")
        };
        assert_eq!((one.requests, one.queue_ns), (40, 200.0));
        assert_eq!(one.batches, BTreeMap::from([(4, 2), (8, 4)]));
        assert!((one.mean_rows() - 40.0 / 6.0).abs() < 1e-9);
        assert!(counted(&after, &after).is_empty());
    }

    #[test]
    fn what_is_counted_later_is_put_behind() {
        let look = CountedSecond {
            second: 1.0,
            queue_ns: 5.0,
            rows: 2.0,
        };
        let mut all = counted(&[], &[statistics(100, 1_000, &[(1, 100)])]).remove(0);
        let mut later = counted(&[], &[statistics(300, 9_000, &[(1, 1), (4, 7)])]).remove(0);
        later.seconds.push(look);
        all.append(&later, 10.0);
        assert_eq!((all.requests, all.queue_ns), (400, 25.0));
        assert_eq!(all.batches, BTreeMap::from([(1, 101), (4, 7)]));
        let [CountedSecond { second, .. }] = all.seconds[..] else {
            panic!("one look")
        };
        assert!((second - 11.0).abs() < 1e-9);
    }

    #[test]
    fn a_server_that_began_anew_is_not_below_zero() {
        let before = [statistics(100, 1_000, &[(1, 100)])];
        let after = [statistics(7, 70, &[(1, 7)])];
        let counted = counted(&before, &after);
        assert_eq!((counted[0].requests, counted[0].queue_ns), (7, 10.0));
        assert_eq!(counted[0].batches, BTreeMap::from([(1, 7)]));
    }
}
