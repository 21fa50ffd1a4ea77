//! What each generator measured whose figures are together in a step, as JSON.

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::recording::{Measured, Recording};

pub(super) fn generators(recording: &Recording) -> Value {
    let generators = recording.measured().into_iter();
    generators
        .map(|one| {
            json!({
                "seconds_measured": one.elapsed.as_secs_f64(),
                "answers": one.answers,
                "good_answers": one.good_answers,
            })
        })
        .collect()
}

/// Nothing where it is one alone, which the step's own figures tell.
pub(super) fn read_generators(value: &Value) -> anyhow::Result<Vec<Measured>> {
    let generators = value.as_array().context("no generators")?;
    if generators.len() < 2 {
        return Ok(Vec::new());
    }
    generators.iter().map(read_generator).collect()
}

fn read_generator(value: &Value) -> anyhow::Result<Measured> {
    let count = |key: &str| value[key].as_u64().unwrap_or_default();
    let elapsed = value["seconds_measured"].as_f64().unwrap_or_default();
    Ok(Measured {
        elapsed: Duration::try_from_secs_f64(elapsed)?,
        answers: count("answers"),
        good_answers: count("good_answers"),
    })
}
