//! What a scenario showed, for people and for programs.

mod environment;
mod hgrm;
mod html;
mod json;
pub mod terminal;

use std::time::Duration;

pub use environment::Environment;
pub use hgrm::write_hgrm;
pub use html::write_html;
pub use json::{read_report, write_report};

use crate::compare::{Call, Comparison};
use crate::counted::Counted;
pub use crate::process::Usage;
use crate::recording::Recording;
use crate::search::Found;
use crate::slo::{Finding, Slo};

/// What a scenario showed.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where and when.
    pub environment: Environment,
    /// Each step; of two servers that were compared, all turns of A and all of B.
    pub steps: Vec<StepReport>,
    /// How B does beside A, if two servers were compared.
    pub comparisons: Vec<Comparison>,
    /// What a search for the largest rate found, whose tries are the steps.
    pub found: Option<Found>,
}

/// What a step showed.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// What it is called.
    pub name: String,
    /// Requests a second that were meant to be sent, on average; none in a closed loop.
    pub offered_rate: Option<f64>,
    /// What was measured.
    pub recording: Recording,
    /// What the server took each second, if it was started for the run: seconds since the start of
    /// the step, its warm-up left out.
    pub usage: Vec<(f64, Usage)>,
    /// What the server counted of its models, if it does.
    pub counted: Vec<Counted>,
    /// What was asked.
    pub asked: Slo,
    /// How each thing that was asked turned out.
    pub findings: Vec<Finding>,
    /// Why the step's figures mean nothing, if so.
    pub invalid: Option<String>,
}

/// How a run turned out, as the exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything that was asked holds.
    Met,
    /// Something does not.
    Missed,
    /// The generator could not do what it was meant to.
    Invalid,
}

impl Report {
    /// How the run turned out.
    pub fn verdict(&self) -> Verdict {
        if self.steps.iter().any(|step| step.invalid.is_some()) {
            return Verdict::Invalid;
        }
        // Some of its tries do not hold, whatever it finds.
        if let Some(found) = self.found {
            return match found {
                Found::Nothing(_) => Verdict::Missed,
                Found::Between(..) | Found::Everything(_) => Verdict::Met,
            };
        }
        let mut findings = self.steps.iter().flat_map(|step| &step.findings);
        let mut comparisons = self.comparisons.iter();
        let worse = comparisons.any(|comparison| comparison.call == Call::Worse);
        match !worse && findings.all(|finding| finding.met) {
            true => Verdict::Met,
            false => Verdict::Missed,
        }
    }

    /// Adds what another generator showed that drove the same server with the same scenario at the
    /// same time, and judges both as one. It does not matter which is put to which.
    pub fn merge(&mut self, other: Self) -> Result<(), String> {
        self.can_merge(&other)?;
        for (own, other) in self.steps.iter_mut().zip(other.steps) {
            own.merge(other);
        }
        Ok(())
    }

    fn can_merge(&self, other: &Self) -> Result<(), String> {
        for report in [self, other] {
            if report.found.is_some() || !report.comparisons.is_empty() {
                return Err(
                    "a search or a comparison cannot be put together with others".to_owned(),
                );
            }
        }
        if self.steps.len() != other.steps.len() {
            return Err(format!(
                "the reports have {} and {} steps",
                self.steps.len(),
                other.steps.len()
            ));
        }
        for (own, other) in self.steps.iter().zip(&other.steps) {
            if own.name != other.name || !own.asked.is_like(&other.asked) {
                return Err(format!(
                    "the reports' steps {} and {} are not the same, or ask different things",
                    own.name, other.name
                ));
            }
        }
        Ok(())
    }
}

impl StepReport {
    fn merge(&mut self, other: Self) {
        self.recording.merge(&other.recording);
        // Both saw the same server: who looked at it for longer saw more.
        let looked = |step: &Self| {
            let bytes: u64 = step.usage.iter().map(|(_, one)| one.resident_bytes).sum();
            (step.usage.len(), bytes)
        };
        if looked(&other) > looked(self) {
            self.usage = other.usage;
        }
        let counted = |counted: &[Counted]| counted.iter().map(|one| one.requests).sum::<u64>();
        if counted(&other.counted) > counted(&self.counted) {
            self.counted = other.counted;
        }
        self.asked = self.asked.and(&other.asked);
        self.findings = self.asked.judge(&self.recording, &self.usage);
        // One reason is enough, and the same one whoever comes first.
        self.invalid = self.invalid.take().max(other.invalid);
        let rates = self.offered_rate.zip(other.offered_rate);
        self.offered_rate = rates.map(|(one, two)| one + two);
    }

    /// Puts what the same step showed when it was run once more behind this, and judges both.
    pub fn append(&mut self, later: &Self, max_lag: Duration) {
        let before = self.recording.elapsed.as_secs_f64();
        self.recording.append(&later.recording);
        let usage = later.usage.iter();
        self.usage
            .extend(usage.map(|(second, usage)| (before + second, *usage)));
        for counted in &later.counted {
            match self.counted.iter_mut().find(|own| own.is_of(counted)) {
                Some(own) => own.append(counted, before),
                None => self.counted.push(counted.clone()),
            }
        }
        self.findings = self.asked.judge(&self.recording, &self.usage);
        self.invalid = lagged(&self.recording, max_lag);
    }
}

/// Why figures mean nothing in which one request in a hundred was sent so much later than meant.
pub(crate) fn lagged(recording: &Recording, most: Duration) -> Option<String> {
    let lag = Duration::from_nanos(recording.lag.value_at_quantile(0.99));
    (lag > most).then(|| {
        format!(
            "the generator lagged: 1 % of requests were sent {:.1} ms late or more, {:.1} allowed. \
             Send fewer a second, run several generators and merge their reports, give the generator \
             cores of its own, or allow more with max_lag_ms",
            lag.as_secs_f64() * 1e3,
            most.as_secs_f64() * 1e3
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blows::Blows;
    use crate::outcome::Outcome;
    use crate::recording::{Recorder, Sample};

    /// What a generator showed that sent so many requests a second, and ended after so many seconds.
    fn shown(rate: u64, seconds: u64) -> Report {
        let mut recorder = Recorder::new(Duration::ZERO, Duration::from_secs(seconds));
        for number in 0..rate * seconds {
            let intended = Duration::from_secs(number) / rate as u32;
            recorder.add(&Sample {
                intended,
                sent: intended,
                ended: intended,
                outcome: match number % 2 {
                    0 => Outcome::Ok,
                    _ => Outcome::Late,
                },
            });
        }
        let usage = Usage {
            resident_bytes: rate,
            descriptors: 1,
            threads: 1,
        };
        Report {
            environment: Environment::here("s.toml", "", rate, String::new()),
            steps: vec![StepReport {
                name: "one".to_owned(),
                offered_rate: Some(rate as f64),
                recording: recorder.finish(&Blows::none()),
                usage: vec![(0.0, usage); seconds as usize],
                counted: vec![Counted {
                    requests: rate * seconds,
                    ..Counted::default()
                }],
                asked: Slo {
                    min_goodput: Some(rate as f64 / 2.0),
                    ..Slo::default()
                },
                findings: Vec::new(),
                invalid: Some(format!("{rate}")),
            }],
            comparisons: Vec::new(),
            found: None,
        }
    }

    fn together(reports: impl IntoIterator<Item = Report>) -> Report {
        let mut reports = reports.into_iter();
        let mut whole = reports.next().unwrap();
        for report in reports {
            // As it is read from a file.
            let report = read_report(&write_report(&report)).unwrap();
            whole.merge(report).unwrap();
        }
        whole
    }

    #[test]
    fn who_stops_early_counts_for_as_long_as_it_went_on() {
        let (long, short, last) = (shown(200, 12), shown(220, 3), shown(80, 5));
        let orders = [
            together([long.clone(), short.clone(), last.clone()]),
            together([last.clone(), together([short.clone(), long.clone()])]),
            together([short, last, long]),
        ];
        for whole in orders {
            let step = &whole.steps[0];
            let recording = &step.recording;
            assert!((recording.rate() - 500.0).abs() < 1e-6, "{step:?}");
            assert!((recording.goodput() - 250.0).abs() < 1e-6, "{step:?}");
            assert_eq!(recording.elapsed, Duration::from_secs(12));
            assert_eq!(recording.answers, 2_400 + 660 + 400);
            assert_eq!(step.offered_rate, Some(500.0));
            // Each had what was asked of it, and so have all.
            let goodput = &step.findings[1];
            assert_eq!(
                goodput.to_string(),
                "met: 250.0 good answers a second, 250.0 asked"
            );
            // Who went on longest saw most of the server.
            assert_eq!(step.usage.len(), 12);
            assert_eq!(step.counted[0].requests, 2_400);
            assert_eq!(step.invalid.as_deref(), Some("80"));
        }
    }

    #[test]
    fn what_is_not_of_the_same_load_is_not_put_together() {
        let one = || shown(10, 1);
        let changed = |change: fn(&mut Report)| {
            let mut other = one();
            change(&mut other);
            other
        };
        let others = [
            changed(|other| other.steps[0].name = "two".to_owned()),
            changed(|other| other.steps[0].asked.min_goodput = None),
            changed(|other| other.steps[0].asked.max_error_share = Some(0.5)),
            changed(|other| other.steps.clear()),
            changed(|other| other.found = Some(Found::Everything(1.0))),
        ];
        for other in others {
            assert!(one().merge(other.clone()).is_err());
            assert!(other.clone().merge(one()).is_err());
        }
        let more = changed(|other| other.steps[0].asked.min_goodput = Some(99.0));
        assert!(one().merge(more).is_ok());
    }

    #[test]
    fn a_search_is_judged_by_what_it_found() {
        let report = |found| {
            let mut report = shown(10, 1);
            report.steps[0].invalid = None;
            // One of its tries always fails.
            report.steps[0].findings = vec![Finding {
                text: String::new(),
                met: false,
            }];
            report.found = Some(found);
            read_report(&write_report(&report)).unwrap()
        };
        let between = report(Found::Between(1.0, 2.0));
        assert_eq!(between.verdict(), Verdict::Met);
        assert_eq!(report(Found::Nothing(3.0)).verdict(), Verdict::Missed);
        let said = "1.0 requests a second hold, 2.0 do not";
        assert!(terminal::summary(&between).contains(said));
        assert!(write_html(&between).contains(said));
    }
}
