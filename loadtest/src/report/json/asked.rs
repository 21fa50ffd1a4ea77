//! What was asked of a step, as JSON.

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

use std::time::Duration;

use serde_json::{Value, json};

use crate::slo::{Growth, Slo};

/// What is not asked is null.
pub(super) fn asked(slo: &Slo) -> Value {
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let latency = slo
        .latency
        .map(|(share, within)| json!({ "share": share, "within_ns": nanoseconds(within) }));
    json!({
        "latency": latency,
        "max_error_share": slo.max_error_share,
        "min_goodput": slo.min_goodput,
        "max_late": slo.max_late,
        "max_recovery_ns": slo.max_recovery.map(nanoseconds),
        "max_wrong": slo.max_wrong,
        "max_growth": {
            "memory": slo.max_growth.memory,
            "descriptors": slo.max_growth.descriptors,
            "threads": slo.max_growth.threads,
            "latency": slo.max_growth.latency,
        },
    })
}

pub(super) fn read_asked(value: &Value) -> Slo {
    let latency = &value["latency"];
    let within = latency["within_ns"].as_u64().map(Duration::from_nanos);
    let growth = |key: &str| value["max_growth"][key].as_f64();
    Slo {
        latency: latency["share"].as_f64().zip(within),
        max_error_share: value["max_error_share"].as_f64(),
        min_goodput: value["min_goodput"].as_f64(),
        max_late: value["max_late"].as_u64(),
        max_recovery: value["max_recovery_ns"].as_u64().map(Duration::from_nanos),
        max_wrong: value["max_wrong"].as_u64().unwrap_or_default(),
        max_growth: Growth {
            memory: growth("memory"),
            descriptors: growth("descriptors"),
            threads: growth("threads"),
            latency: growth("latency"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_is_read() {
        let everything = Slo {
            latency: Some((0.999, Duration::from_millis(20))),
            max_error_share: Some(0.001),
            min_goodput: Some(100.0),
            max_late: Some(3),
            max_recovery: Some(Duration::from_secs(2)),
            max_wrong: 1,
            max_growth: Growth {
                memory: Some(0.02),
                descriptors: Some(0.03),
                threads: Some(0.04),
                latency: Some(0.5),
            },
        };
        for slo in [everything, Slo::default()] {
            assert_eq!(read_asked(&asked(&slo)), slo);
        }
    }
}
