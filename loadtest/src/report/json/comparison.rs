//! What was said of two servers, as JSON.

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

use serde_json::{Value, json};

use crate::compare::{Call, Comparison, Metric};

const METRICS: [(&str, Metric); 4] = [
    ("good_per_second", Metric::Rate),
    ("p50", Metric::P50),
    ("p90", Metric::P90),
    ("p99", Metric::P99),
];
const CALLS: [(&str, Call); 3] = [
    ("better", Call::Better),
    ("worse", Call::Worse),
    ("same", Call::Same),
];

pub(super) fn comparison(comparison: &Comparison) -> Value {
    let (low, high) = comparison.interval;
    json!({
        "metric": named(&METRICS, comparison.metric),
        "b_over_a": comparison.ratio,
        "low": low,
        "high": high,
        "b_is": named(&CALLS, comparison.call),
    })
}

/// None if it is not one.
pub(super) fn read_comparison(value: &Value) -> Option<Comparison> {
    let number = |key: &str| value[key].as_f64();
    Some(Comparison {
        metric: of_name(&METRICS, &value["metric"])?,
        ratio: number("b_over_a")?,
        interval: (number("low")?, number("high")?),
        call: of_name(&CALLS, &value["b_is"])?,
    })
}

fn named<T: PartialEq>(names: &[(&'static str, T)], what: T) -> Option<&'static str> {
    let mut names = names.iter();
    names.find(|(_, one)| *one == what).map(|(name, _)| *name)
}

fn of_name<T: Copy>(names: &[(&'static str, T)], name: &Value) -> Option<T> {
    let name = name.as_str()?;
    let mut names = names.iter();
    names.find(|(one, _)| *one == name).map(|(_, what)| *what)
}
