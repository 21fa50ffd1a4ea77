//! What a version has counted: of late, and since it was loaded.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::serving::{DeviceCounts, Histogram, Statistics, Times};
use crate::status::Code;
use crate::telemetry::milliseconds;

/// The last ten seconds, or as long as it has been watched.
#[derive(Serialize)]
pub(super) struct Recent {
    window_ms: f64,
    requests_per_second: f64,
    /// Of these, those that were answered with an error.
    errors_per_second: f64,
    cancelled_per_second: f64,
    rows_per_second: f64,
    batches_per_second: f64,
    p50_ms: Option<f64>,
    p90_ms: Option<f64>,
    p99_ms: Option<f64>,
    /// By stage, how long it took on average.
    stages_ms: BTreeMap<&'static str, Option<f64>>,
}

/// Since it was loaded.
#[derive(Serialize)]
pub(super) struct Total {
    requests: u64,
    rows: u64,
    batches: u64,
    cache_hits: u64,
    cache_misses: u64,
    errors: BTreeMap<&'static str, u64>,
}

/// A bucket of a histogram.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Bucket {
    /// Its upper bound, which is in it; none of the last.
    up_to: Option<f64>,
    /// Of the last ten seconds.
    recent: u64,
    /// Since the version was loaded.
    total: u64,
}

impl Recent {
    pub(super) fn told(before: &Statistics, now: &Statistics, passed: Duration) -> Self {
        let rate = |count: fn(&Statistics) -> u64| {
            let came = count(now).saturating_sub(count(before));
            came as f64 / passed.as_secs_f64().max(1e-9)
        };
        let times = now.total_times.since(&before.total_times);
        let quantile = |share| times.quantile(share).map(|seconds| seconds * 1e3);
        Self {
            window_ms: milliseconds(passed),
            requests_per_second: rate(|counts| counts.total_times.count()),
            errors_per_second: rate(errors),
            cancelled_per_second: rate(cancelled),
            rows_per_second: rate(|counts| counts.rows),
            batches_per_second: rate(|counts| counts.batches),
            p50_ms: quantile(0.5),
            p90_ms: quantile(0.9),
            p99_ms: quantile(0.99),
            stages_ms: stages(before, now),
        }
    }
}

/// Those that somebody waited for.
fn errors(counts: &Statistics) -> u64 {
    counts.errors.values().sum::<u64>() - cancelled(counts)
}

fn cancelled(counts: &Statistics) -> u64 {
    counts.errors.get(&Code::Cancelled).copied().unwrap_or(0)
}

/// A stage's name, and where its times are.
type Timed<T> = (&'static str, fn(&T) -> &Times);

fn stages(before: &Statistics, now: &Statistics) -> BTreeMap<&'static str, Option<f64>> {
    let of_requests: [Timed<Statistics>; 3] = [
        ("decode", |counts| &counts.decode_times),
        ("queue", |counts| &counts.queue_times),
        ("encode", |counts| &counts.encode_times),
    ];
    let of_batches: [Timed<DeviceCounts>; 3] = [
        ("stack", |on| &on.stack),
        ("execute", |on| &on.execute),
        ("slice", |on| &on.slice),
    ];
    let requests = of_requests
        .into_iter()
        .map(|(stage, times)| (stage, mean(&[times(now).since(times(before))])));
    let batches = of_batches.into_iter().map(|(stage, times)| {
        let each = by_device(before, now).map(|(before, now)| match before {
            Some(before) => times(now).since(times(before)),
            None => times(now).clone(),
        });
        (stage, mean(&each.collect::<Vec<_>>()))
    });
    requests.chain(batches).collect()
}

/// In milliseconds; none of nothing.
fn mean(times: &[Times]) -> Option<f64> {
    let count: u64 = times.iter().map(Times::count).sum();
    let sum: f64 = times.iter().map(Times::sum).sum();
    (count > 0).then(|| sum.max(0.0) / count as f64 * 1e3)
}

fn by_device<'a>(
    before: &'a Statistics,
    now: &'a Statistics,
) -> impl Iterator<Item = (Option<&'a DeviceCounts>, &'a DeviceCounts)> {
    let groups = now.by_device.iter().enumerate();
    groups.map(|(group, on)| (before.by_device.get(group), on))
}

impl Total {
    pub(super) fn told(now: &Statistics) -> Self {
        let errors = now.errors.iter();
        Self {
            requests: now.total_times.count(),
            rows: now.rows,
            batches: now.batches,
            cache_hits: now.cache_hit.count,
            cache_misses: now.cache_miss.count,
            errors: errors.map(|(code, count)| (code.name(), *count)).collect(),
        }
    }
}

/// A histogram over all devices; the empty buckets behind the last that is not are left out.
pub(super) fn histogram<const N: usize>(
    before: &Statistics,
    now: &Statistics,
    of: fn(&DeviceCounts) -> &Histogram<N>,
) -> Vec<Bucket> {
    let mut told: Vec<Bucket> = Vec::new();
    for (before, now) in by_device(before, now) {
        let early = before.map(|before| of(before).buckets());
        let mut early = early.into_iter().flatten();
        for (place, (bound, count)) in of(now).buckets().enumerate() {
            let recent = count.saturating_sub(early.next().map_or(0, |(_, count)| count));
            match told.get_mut(place) {
                Some(bucket) => {
                    bucket.recent += recent;
                    bucket.total += count;
                }
                None => told.push(Bucket {
                    up_to: bound.is_finite().then_some(bound),
                    recent,
                    total: count,
                }),
            }
        }
    }
    let filled = told.iter().rposition(|bucket| bucket.total > 0);
    told.truncate(filled.map_or(0, |last| last + 1));
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(rows: &[f64], milliseconds: &[u64]) -> DeviceCounts {
        let mut counts = DeviceCounts::default();
        for rows in rows {
            counts.batch_rows.add(*rows);
        }
        for time in milliseconds {
            counts.execute.took(Duration::from_millis(*time));
        }
        counts
    }

    fn statistics(by_device: Vec<DeviceCounts>) -> Statistics {
        Statistics {
            by_device,
            ..Statistics::default()
        }
    }

    #[test]
    fn devices_are_added_and_what_was_before_is_not_of_late() {
        let before = statistics(vec![counts(&[1.0, 4.0], &[100])]);
        let now = statistics(vec![
            counts(&[1.0, 4.0, 3.0], &[100, 20]),
            counts(&[2.0], &[40]),
        ]);
        let bucket = |up_to, recent, total| Bucket {
            up_to: Some(up_to),
            recent,
            total,
        };
        let told = histogram(&before, &now, |on| &on.batch_rows);
        assert_eq!(
            told,
            [bucket(1.0, 0, 1), bucket(2.0, 1, 1), bucket(4.0, 1, 2)]
        );
        let stages = stages(&before, &now);
        assert!((stages["execute"].unwrap() - 30.0).abs() < 1e-6);
        assert_eq!(stages["queue"], None);
    }

    #[test]
    fn who_goes_away_is_no_error() {
        let now = Statistics {
            errors: BTreeMap::from([(Code::Cancelled, 3), (Code::Internal, 2)]),
            ..Statistics::default()
        };
        let before = Statistics::default();
        let recent = Recent::told(&before, &now, Duration::from_secs(2));
        assert_eq!(recent.errors_per_second, 1.0);
        assert_eq!(recent.cancelled_per_second, 1.5);
        assert_eq!(Total::told(&now).errors["INTERNAL"], 2);
    }
}
