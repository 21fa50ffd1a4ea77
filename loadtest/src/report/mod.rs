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
        let mut findings = self.steps.iter().flat_map(|step| &step.findings);
        let mut comparisons = self.comparisons.iter();
        let worse = comparisons.any(|comparison| comparison.call == Call::Worse);
        match !worse && findings.all(|finding| finding.met) {
            true => Verdict::Met,
            false => Verdict::Missed,
        }
    }

    /// Adds what another generator showed that drove the same server with the same scenario at the
    /// same time, and judges both as one.
    pub fn merge(&mut self, other: Self) -> Result<(), String> {
        if self.steps.len() != other.steps.len() {
            return Err(format!(
                "the reports have {} and {} steps",
                self.steps.len(),
                other.steps.len()
            ));
        }
        for (own, other) in self.steps.iter_mut().zip(other.steps) {
            own.recording.merge(&other.recording);
            if own.usage.is_empty() {
                own.usage = other.usage;
            }
            own.asked = own.asked.and(&other.asked);
            own.findings = own.asked.judge(&own.recording, &own.usage);
            own.invalid = own.invalid.take().or(other.invalid);
            // Both saw the same server count.
            if own.counted.is_empty() {
                own.counted = other.counted;
            }
            let rates = own.offered_rate.zip(other.offered_rate);
            own.offered_rate = rates.map(|(one, two)| one + two);
        }
        Ok(())
    }
}

impl StepReport {
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
