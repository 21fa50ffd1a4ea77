//! How requests come: `arrivals` and what goes with it.

use std::path::Path;
use std::time::Duration;

use jitney_settings::Table;
use jitney_settings::rule::{Between, OneOf, Rule, Text, seconds, whole};

use super::A_DAY;
use crate::arrivals::{Arrivals, Process, Profile, Schedule, Step as RateStep, read_trace};

/// Requests a second, or in flight.
pub(super) const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000_000.0;

#[derive(Clone, Copy)]
enum Kind {
    Closed,
    Constant,
    Poisson,
    Bursty,
    Trace,
}

const KINDS: OneOf<'_, Kind> = OneOf(&[
    ("closed", Kind::Closed),
    ("constant", Kind::Constant),
    ("poisson", Kind::Poisson),
    ("bursty", Kind::Bursty),
    ("trace", Kind::Trace),
]);

pub(super) fn arrivals(folder: &Path, table: &mut Table<'_, '_>) -> Arrivals {
    let kind = table.value("arrivals", KINDS);
    let kind = table.required("arrivals", kind, &format!("allowed: {}", KINDS.allowed()));
    let in_flight = table.value("in_flight", whole(1..=1_000_000));
    let variation = table.value("variation", Between(0.01..=1_000.0));
    let process = match kind {
        None => return Arrivals::constant(1.0),
        Some(Kind::Closed) => {
            let in_flight = table.required("in_flight", in_flight, "requests in flight");
            return Arrivals::Closed {
                in_flight: in_flight.unwrap_or(1),
            };
        }
        Some(Kind::Trace) => return Arrivals::Open(trace(folder, table)),
        Some(Kind::Constant) => Process::Even,
        Some(Kind::Poisson) => Process::Poisson,
        Some(Kind::Bursty) => Process::Bursty {
            variation: variation.unwrap_or(4.0),
        },
    };
    Arrivals::Open(Schedule::Process(process, profile(table)))
}

fn trace(folder: &Path, table: &mut Table<'_, '_>) -> Schedule {
    let file = table.value("trace", Text).map(|file| folder.join(file));
    let file = table.required("trace", file, "the file of the recording");
    let speed = table.value("speed", Between(0.001..=1_000.0));
    let recorded = file.map(|file| read_trace(&file, speed.unwrap_or(1.0)));
    if let Some(Err(error)) = &recorded {
        table.contradict("trace", error.clone());
    }
    Schedule::Trace(recorded.and_then(Result::ok).unwrap_or_default().into())
}

fn profile(table: &mut Table<'_, '_>) -> Profile {
    let rate = table.value("rate", Between(RATES)).map(Profile::Constant);
    let rates = table.sections("rates", |table| {
        let lasts = table.value("lasts_s", seconds(0.001..=A_DAY));
        let lasts = table.required("lasts_s", lasts, "how long this rate lasts");
        let rate = table.value("rate", Between(0.0..=*RATES.end()));
        let rate = table.required("rate", rate, "requests a second");
        RateStep {
            duration: lasts.unwrap_or_default(),
            rate: rate.unwrap_or_default(),
        }
    });
    let ramp = table.section("ramp", |table| Profile::Ramp {
        from: a_rate(table, "from"),
        to: a_rate(table, "to"),
        over: a_time(table, "over_s"),
    });
    let diurnal = table.section("diurnal", |table| Profile::Diurnal {
        low: a_rate(table, "low"),
        high: a_rate(table, "high"),
        period: a_time(table, "period_s"),
    });
    let mut given: Vec<Profile> = [rate, rates.map(Profile::Steps), ramp, diurnal]
        .into_iter()
        .flatten()
        .collect();
    if given.len() > 1 {
        let message = "say one of rate, rates, ramp and diurnal";
        table.contradict("arrivals", message.to_owned());
    }
    let any_wrong = ["rate", "rates", "ramp", "diurnal"];
    if given.is_empty() && any_wrong.iter().all(|key| table.lacks(key)) {
        table.required(
            "rate",
            None::<()>,
            "requests a second; or rates, ramp or diurnal",
        );
    }
    given.pop().unwrap_or(Profile::Constant(1.0))
}

fn a_rate<'d>(table: &mut Table<'d, '_>, key: &'d str) -> f64 {
    let rate = table.value(key, Between(0.0..=*RATES.end()));
    let rate = table.required(key, rate, "requests a second");
    rate.unwrap_or_default()
}

fn a_time<'d>(table: &mut Table<'d, '_>, key: &'d str) -> Duration {
    let time = table.value(key, seconds(0.001..=30.0 * A_DAY));
    table.required(key, time, "seconds").unwrap_or_default()
}
