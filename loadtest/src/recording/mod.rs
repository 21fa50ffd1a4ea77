//! What a run showed: latencies and outcomes, over the whole run and by second.

mod latencies;
mod measured;

use std::time::Duration;

use hdrhistogram::Histogram;

pub use latencies::Latencies;
pub(crate) use measured::Measured;

use crate::blows::{Blows, Recovery};
use crate::outcome::{Outcome, Outcomes};

/// One request that has ended; times are offsets from the start of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// When it was meant to be sent.
    pub(crate) intended: Duration,
    /// When it was.
    pub(crate) sent: Duration,
    pub(crate) ended: Duration,
    pub(crate) outcome: Outcome,
}

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The time that counts, after the warm-up; of several generators the longest.
    pub elapsed: Duration,
    /// Requests meant to be sent in that time, by how they ended.
    pub outcomes: Outcomes,
    /// Answers that came in that time, whenever their requests were sent.
    pub answers: u64,
    /// Those of them that were in time and right.
    pub good_answers: u64,
    /// What each generator measured, if these figures are those of several.
    pub(crate) beside: Vec<Measured>,
    /// From the moment a request was meant to be sent to its answer, in nanoseconds: of all answers,
    /// those that were late or wrong as well. Requests without an answer are not in it.
    pub latency: Histogram<u64>,
    /// The same of the good answers alone. What is judged is this, with all other requests taking
    /// longer than any bound; see [`Recording::quantile_of_all`].
    pub good_latency: Histogram<u64>,
    /// From the moment it was really sent.
    pub service: Histogram<u64>,
    /// From the one to the other: the generator's own delay.
    pub lag: Histogram<u64>,
    /// Each second of the time that counts.
    pub seconds: Vec<Second>,
    /// What was seen after each blow that the server was dealt.
    pub recoveries: Vec<Recovery>,
}

/// One second of a run.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Requests meant to be sent in it, by how they ended.
    pub outcomes: Outcomes,
    /// The latencies of their answers.
    pub latency: Latencies,
}

/// What ended since the last look at a run under way.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Since the start of the run, its warm-up included.
    pub elapsed: Duration,
    /// Since the last look.
    pub since: Duration,
    /// Requests that ended since then.
    pub outcomes: Outcomes,
    /// Latencies of those that were answered, in nanoseconds.
    pub latency: Histogram<u64>,
}

/// Which samples count, and where they are put.
#[derive(Debug)]
pub(crate) struct Recorder {
    warm_up: Duration,
    recording: Recording,
    /// Since the last look.
    outcomes: Outcomes,
    latency: Histogram<u64>,
    looked: Duration,
}

impl Recorder {
    pub(crate) fn new(warm_up: Duration, elapsed: Duration) -> Self {
        Self {
            warm_up,
            recording: Recording::empty(elapsed),
            outcomes: Outcomes::default(),
            latency: histogram(),
            looked: Duration::ZERO,
        }
    }

    /// What ended since the last look, at this time since the start.
    pub(crate) fn look(&mut self, elapsed: Duration) -> Progress {
        let progress = Progress {
            elapsed,
            since: elapsed.saturating_sub(self.looked),
            outcomes: std::mem::take(&mut self.outcomes),
            latency: self.latency.clone(),
        };
        self.latency.reset();
        self.looked = elapsed;
        progress
    }

    pub(crate) fn add(&mut self, sample: &Sample) {
        let end = self.warm_up + self.recording.elapsed;
        let counts = self.warm_up..end;
        let answered = matches!(sample.outcome, Outcome::Ok | Outcome::Late | Outcome::Wrong);
        if answered && counts.contains(&sample.ended) {
            self.recording.answers += 1;
            self.recording.good_answers += u64::from(sample.outcome == Outcome::Ok);
        }
        self.outcomes.add(sample.outcome);
        if answered {
            put(
                &mut self.latency,
                sample.ended.saturating_sub(sample.intended),
            );
        }
        if counts.contains(&sample.intended) {
            let second = (sample.intended - self.warm_up).as_secs() as usize;
            self.recording.add(sample, answered, second);
        }
    }

    /// Ends the time that counts earlier than it was meant to.
    pub(crate) fn stop_at(&mut self, end: Duration) {
        self.recording.elapsed = end.saturating_sub(self.warm_up);
    }

    /// What counts so far.
    pub(crate) fn so_far(&self) -> &Recording {
        &self.recording
    }

    pub(crate) fn finish(mut self, blows: &Blows) -> Recording {
        let end = self.warm_up + self.recording.elapsed;
        self.recording.recoveries = blows.recoveries(end);
        self.recording
    }
}

impl Recording {
    fn empty(elapsed: Duration) -> Self {
        Self {
            elapsed,
            outcomes: Outcomes::default(),
            answers: 0,
            good_answers: 0,
            beside: Vec::new(),
            latency: histogram(),
            good_latency: histogram(),
            service: histogram(),
            lag: histogram(),
            seconds: Vec::new(),
            recoveries: Vec::new(),
        }
    }

    fn add(&mut self, sample: &Sample, answered: bool, second: usize) {
        if self.seconds.len() <= second {
            self.seconds.resize_with(second + 1, Second::default);
        }
        self.outcomes.add(sample.outcome);
        let second = self.seconds.get_mut(second);
        if let Some(second) = second {
            second.outcomes.add(sample.outcome);
            if answered {
                let latency = sample.ended.saturating_sub(sample.intended);
                second.latency.add(nanoseconds(latency), 1);
            }
        }
        if sample.outcome != Outcome::Skipped {
            put(&mut self.lag, sample.sent.saturating_sub(sample.intended));
        }
        let latency = sample.ended.saturating_sub(sample.intended);
        if answered {
            put(&mut self.latency, latency);
            put(&mut self.service, sample.ended.saturating_sub(sample.sent));
        }
        if sample.outcome == Outcome::Ok {
            put(&mut self.good_latency, latency);
        }
    }

    /// Puts the figures of another generator at the same time to these.
    pub fn merge(&mut self, other: &Self) {
        self.beside = [self.measured(), other.measured()].concat();
        self.elapsed = self.elapsed.max(other.elapsed);
        self.add_all(other);
        for (index, second) in other.seconds.iter().enumerate() {
            match self.seconds.get_mut(index) {
                Some(own) => own.merge(second),
                None => self.seconds.push(second.clone()),
            }
        }
    }

    /// Puts what the same generator measured after these figures to them.
    pub fn append(&mut self, later: &Self) {
        self.add_all(later);
        self.elapsed += later.elapsed;
        self.seconds.extend_from_slice(&later.seconds);
    }

    fn add_all(&mut self, other: &Self) {
        self.outcomes.merge(&other.outcomes);
        self.recoveries.extend(&other.recoveries);
        self.answers += other.answers;
        self.good_answers += other.good_answers;
        for (own, other) in [
            (&mut self.latency, &other.latency),
            (&mut self.good_latency, &other.good_latency),
            (&mut self.service, &other.service),
            (&mut self.lag, &other.lag),
        ] {
            // Both have the same bounds.
            let _ = own.add(other);
        }
    }

    /// What each generator measured.
    pub(crate) fn measured(&self) -> Vec<Measured> {
        if !self.beside.is_empty() {
            return self.beside.clone();
        }
        vec![Measured {
            elapsed: self.elapsed,
            answers: self.answers,
            good_answers: self.good_answers,
        }]
    }

    /// Answers a second. Generators that stopped at different times each count for as long as they
    /// drove the server.
    pub fn rate(&self) -> f64 {
        self.measured().iter().map(Measured::rate).sum()
    }

    /// Answers a second that were in time and right.
    pub fn goodput(&self) -> f64 {
        self.measured().iter().map(Measured::goodput).sum()
    }

    /// The latency that this share of the answers did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(share))
    }

    /// Requests that were not answered well within this time. What is known to three digits alone, and
    /// may be beyond it, is.
    pub fn over(&self, bound: Duration) -> u64 {
        let bound = nanoseconds(bound);
        let known = self.good_latency.iter_recorded();
        let within = known
            .take_while(|one| one.value_iterated_to() <= bound)
            .map(|one| one.count_at_value());
        self.outcomes.all().saturating_sub(within.sum())
    }

    /// The latency that this share of all requests did not exceed, where one that got no good answer
    /// took for ever; none if too many did. Keeps a bound if and only if [`Recording::over`] counts no
    /// more than the share leaves.
    pub fn quantile_of_all(&self, share: f64) -> Option<Duration> {
        // 0.07 * 100 is a little more than 7, and means 7.
        let wanted = (share * self.outcomes.all() as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil();
        let wanted = (wanted as u64).max(1);
        let mut seen = 0;
        let mut known = self.good_latency.iter_recorded();
        let reached = known.find(|one| {
            seen += one.count_at_value();
            seen >= wanted
        });
        reached.map(|one| Duration::from_nanos(one.value_iterated_to()))
    }
}

impl Second {
    pub(crate) fn merge(&mut self, other: &Self) {
        self.outcomes.merge(&other.outcomes);
        self.latency.merge(&other.latency);
    }
}

fn put(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(nanoseconds(time));
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Three digits, from a microsecond up to ten minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    // These bounds are sound.
    Histogram::new_with_bounds(1_000, 600_000_000_000, 3).unwrap_or_else(|_| unreachable!())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A request every millisecond from the start on; the n-th takes n mod 1000 ms.
    fn recorded(outcome: impl Fn(u32) -> Outcome) -> Recording {
        let mut recorder = Recorder::new(1_000 * MILLISECOND, 10_000 * MILLISECOND);
        for number in 0..11_000 {
            let intended = number * MILLISECOND;
            recorder.add(&Sample {
                intended,
                sent: intended + MILLISECOND / 4,
                ended: intended + (1 + number % 1_000) * MILLISECOND,
                outcome: outcome(number),
            });
        }
        recorder.finish(&Blows::none())
    }

    fn near(seen: Duration, truth: f64) -> bool {
        (seen.as_secs_f64() / truth - 1.0).abs() < 0.01
    }

    #[test]
    fn percentiles_are_within_a_hundredth() {
        let recording = recorded(|_| Outcome::Ok);
        assert_eq!(recording.outcomes.ok, 10_000);
        for share in [0.01, 0.1, 0.5, 0.9, 0.99, 0.999] {
            let seen = recording.quantile(share);
            assert!(near(seen, share), "{share}: {seen:?}");
            assert_eq!(recording.quantile_of_all(share), Some(seen));
        }
        let lag = Duration::from_nanos(recording.lag.value_at_quantile(0.5));
        assert!(near(lag, 250e-6), "{lag:?}");
        assert_eq!(recording.seconds.len(), 10);
        let third = &recording.seconds[3];
        assert_eq!(third.outcomes.all(), 1_000);
        let median = Duration::from_nanos(third.latency.value_at_quantile(0.5));
        assert!(near(median, 0.5), "{median:?}");
    }

    /// 1000 requests a second for 4 s, each of which takes 1 ms, but for those of the second second: they
    /// are answered at its end. One in four, whose latencies are even between 0 and 1 s, so that the share
    /// q of all is answered within 1 - (1 - q) / 0.25 s. The generator sends them when they are due.
    #[test]
    fn a_stall_of_a_second_is_what_its_users_saw() {
        let mut recorder = Recorder::new(Duration::ZERO, 4_000 * MILLISECOND);
        for number in 0..4_000 {
            let intended = number * MILLISECOND;
            let stalled = (1_000..2_000).contains(&number);
            recorder.add(&Sample {
                intended,
                sent: intended,
                ended: match stalled {
                    true => 2_000 * MILLISECOND,
                    false => intended + MILLISECOND,
                },
                outcome: Outcome::Ok,
            });
        }
        let recording = recorder.finish(&Blows::none());
        for share in [0.8, 0.9, 0.95, 0.99, 0.999] {
            let seen = recording.quantile(share);
            let truth = 1.0 - (1.0 - share) / 0.25;
            assert!(near(seen, truth), "{share}: {seen:?} of {truth}");
        }
        assert!(near(recording.quantile(0.7), 0.001));
        // Nobody was answered in that second.
        assert!(near(
            Duration::from_secs_f64(recording.rate() / 1_000.0),
            1.0
        ));
        assert!(recording.seconds[1].latency.value_at_quantile(0.5) > 490_000_000);
    }

    #[test]
    fn who_fails_takes_for_ever() {
        // One in ten fails.
        let recording = recorded(|number| match number % 10 {
            0 => Outcome::Missing,
            _ => Outcome::Ok,
        });
        let seen = recording.quantile_of_all(0.45).unwrap();
        assert!(near(seen, 0.5), "{seen:?}");
        assert!(recording.quantile_of_all(0.89).is_some());
        assert_eq!(recording.quantile_of_all(0.91), None);
        assert!((recording.outcomes.ok_share() - 0.9).abs() < 1e-9);
    }

    #[test]
    fn who_gets_no_good_answer_takes_for_ever() {
        // One in ten, and those the quickest of all.
        for ending in [Outcome::Late, Outcome::Wrong, Outcome::Missing] {
            let recording = recorded(|number| match number % 1_000 {
                0..100 => ending,
                _ => Outcome::Ok,
            });
            let seen = recording.quantile_of_all(0.5).unwrap();
            assert!(near(seen, 0.6), "{ending:?}: {seen:?}");
            assert_eq!(recording.quantile_of_all(0.91), None, "{ending:?}");
            // However soon their answers came.
            for (bound, over) in [(50, 10_000), (2_000, 1_000)] {
                assert_eq!(recording.over(bound * MILLISECOND), over, "{ending:?}");
            }
        }
    }

    #[test]
    fn a_percentile_keeps_a_bound_if_no_more_are_over_it_than_it_leaves() {
        let recording = recorded(|number| match number % 7 {
            3 => Outcome::Late,
            _ => Outcome::Ok,
        });
        for share in [0.07, 0.5, 0.8, 0.857, 0.9] {
            let left = 10_000 - (share * 10_000.0_f64).round() as u64;
            let seen = recording.quantile_of_all(share);
            let near = seen.map_or(500_000, |seen| seen.as_micros() as u32);
            for bound in near.saturating_sub(2_000)..near + 2_000 {
                let bound = Duration::from_micros(bound.into());
                let keeps = seen.is_some_and(|seen| seen <= bound);
                assert_eq!(keeps, recording.over(bound) <= left, "{share}, {bound:?}");
            }
        }
    }

    #[test]
    fn answers_count_when_they_come_and_requests_when_they_were_due() {
        let recording = recorded(|_| Outcome::Ok);
        // Those due in the last second whose answers come after it, and those due before the first
        // that are answered in it, are as many.
        assert!(
            (recording.rate() - 1_000.0).abs() < 1.0,
            "{}",
            recording.rate()
        );
    }

    #[test]
    fn a_look_shows_what_ended_since() {
        let mut recorder = Recorder::new(Duration::ZERO, 10 * MILLISECOND);
        let sample = Sample {
            intended: MILLISECOND,
            sent: MILLISECOND,
            ended: 3 * MILLISECOND,
            outcome: Outcome::Ok,
        };
        recorder.add(&sample);
        let look = recorder.look(4 * MILLISECOND);
        assert_eq!((look.outcomes.ok, look.latency.len()), (1, 1));
        let look = recorder.look(9 * MILLISECOND);
        assert_eq!((look.outcomes.ok, look.latency.len()), (0, 0));
        assert_eq!(look.since, 5 * MILLISECOND);
    }
}
