//! A request's stages for its client, as the header `server-timing` has them
//! (<https://www.w3.org/TR/server-timing/>).

use std::fmt::Write;
use std::time::Duration;

use crate::clock::Moment;
use crate::serving::{Journey, Stage};

/// The header by which a client asks for its timing, and gets it.
pub const SERVER_TIMING: &str = "server-timing";

/// The stages and the total, in milliseconds.
pub(super) fn server_timing(journey: &Journey, encoded: Option<Moment>) -> String {
    let mut text = String::new();
    let mut put = |name: &str, took: Duration| {
        // Writing into memory does not fail.
        let _ = write!(text, "{name};dur={:.3}, ", took.as_secs_f64() * 1e3);
    };
    for (stage, from, until) in journey.stages() {
        put(stage.name(), until - from);
    }
    if !journey.steps.is_empty() {
        put("steps", journey.answered - journey.began);
    }
    if let Some(encoded) = encoded {
        put(Stage::Encode.name(), encoded - journey.answered);
    }
    let end = encoded.unwrap_or(journey.answered);
    put("total", end - journey.arrived);
    let end = text.trim_end_matches(", ").len();
    text.truncate(end);
    if journey.cached {
        text.push_str(", cache;desc=\"hit\"");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::serving::Trip;

    #[test]
    fn stages_are_told_in_milliseconds() {
        let at = |micros| Moment::ORIGIN + Duration::from_micros(micros);
        let mut journey = Journey::new(at(0), at(250), None);
        journey.answered = at(9_000);
        let mut trip = Trip::default();
        (trip.left, trip.stacked) = (at(2_250), at(3_250));
        (trip.ran, trip.ended) = (at(7_250), at(8_500));
        journey.trip = Some(Arc::new(trip));
        assert_eq!(
            server_timing(&journey, Some(at(10_000))),
            "decode;dur=0.250, queue;dur=2.000, stack;dur=1.000, execute;dur=4.000, \
             slice;dur=1.250, deliver;dur=0.500, encode;dur=1.000, total;dur=10.000"
        );
        journey.trip = None;
        journey.cached = true;
        assert_eq!(
            server_timing(&journey, None),
            "decode;dur=0.250, total;dur=9.000, cache;desc=\"hit\""
        );
    }
}
