//! Calls about what is traced (trace extension), in terms of what is sent to OTLP's receiver.

use std::collections::BTreeSet;

use super::api::Api;
use crate::proto::trace_setting_response::SettingValue as Said;
use crate::proto::*;
use crate::status::{Code, Status};
use crate::telemetry::{Choice, Chosen, Left, Tracer};

/// A level, and what it means.
const LEVELS: [(&str, bool); 2] = [("OFF", false), ("TIMESTAMPS", true)];
/// What is not to be chosen here, and why.
const FIXED: [(&str, &str, &str); 3] = [
    ("log_frequency", "0", "traces are sent as they come"),
    (
        "trace_file",
        "",
        "traces go to --otlp-endpoint, and to no file",
    ),
    (
        "trace_mode",
        "opentelemetry",
        "traces are OpenTelemetry's, and no others are written",
    ),
];

/// A change of what is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Change {
    On(Option<bool>),
    Rate(Option<u32>),
    Count(Option<i64>),
}

impl Change {
    fn make(self, choice: &mut Choice) {
        match self {
            Self::On(on) => choice.on = on,
            Self::Rate(rate) => choice.rate = rate.map(f64::from),
            Self::Count(count) => choice.left = count.map(Left::new),
        }
    }
}

impl Api {
    /// Changes what is traced of a model or of all, all of it or nothing, and says what is.
    pub(super) fn trace_setting(
        &self,
        asked: &TraceSettingRequest,
    ) -> Result<TraceSettingResponse, Status> {
        if !asked.model_name.is_empty() {
            self.engine.catalog().versions(&asked.model_name)?;
        }
        let mut changes = Vec::new();
        for (name, given) in &asked.settings {
            let change = heard(name, &given.value)
                .map_err(|status| status.about(format_args!("trace setting {name:?}")))?;
            changes.extend(change);
        }
        if !changes.is_empty() {
            self.change_traces(&asked.model_name, &changes)?;
        }
        let tracer = self.requests.tracer();
        let chosen = tracer.map(|tracer| tracer.sampling().chosen(&asked.model_name));
        Ok(said(chosen.as_ref()))
    }

    fn change_traces(&self, model: &str, changes: &[Change]) -> Result<(), Status> {
        let Some(tracer) = self.requests.tracer() else {
            // It may be said again that nothing is.
            let idle = |change: &Change| match change {
                Change::On(on) => *on != Some(true),
                Change::Rate(rate) => rate.is_none_or(|rate| rate == 0),
                Change::Count(count) => count.is_none_or(|count| count == Left::ENDLESS),
            };
            let message = "nothing is traced: the server was started without --otlp-endpoint";
            let refused = || Status::new(Code::FailedPrecondition, message);
            return changes.iter().all(idle).then_some(()).ok_or_else(refused);
        };
        if !self.trace_settings {
            let message = "clients may not change what is traced (trace_settings is false)";
            return Err(Status::new(Code::FailedPrecondition, message));
        }
        self.apply(tracer, model, changes);
        Ok(())
    }

    fn apply(&self, tracer: &Tracer, model: &str, changes: &[Change]) {
        let index = self.engine.catalog().index().into_iter();
        let known: BTreeSet<_> = index.map(|entry| entry.model).collect();
        let is_there = |name: &str| known.contains(name);
        tracer.sampling().change(model, is_there, |choice| {
            for change in changes {
                change.make(choice);
            }
        });
        tracing::info!(model, ?changes, "trace settings changed");
    }
}

/// What a setting means; none if it is as it has to be. Without a value it is taken back.
fn heard(name: &str, given: &[String]) -> Result<Option<Change>, Status> {
    let first = given.first().map(String::as_str);
    Ok(Some(match name {
        "trace_level" => Change::On(level(given)?),
        "trace_rate" => Change::Rate(number(first, "a whole number of at least 0")?),
        "trace_count" => {
            let allowed = "a whole number of at least 0, or -1 for no end";
            let count: Option<i64> = number(first, allowed)?;
            if count.is_some_and(|count| count < Left::ENDLESS) {
                return Err(Status::invalid(format!(
                    "found {count:?}; it takes {allowed}"
                )));
            }
            Change::Count(count)
        }
        _ => {
            let Some((_, value, why)) = FIXED.iter().find(|(known, ..)| *known == name) else {
                return Err(Status::invalid(
                    "there is none of this name; there are log_frequency, trace_count, trace_file, \
                     trace_level, trace_mode and trace_rate",
                ));
            };
            if given.iter().any(|given| given != value) {
                let message = format!("it stays {value:?}: {why}");
                return Err(Status::new(Code::Unimplemented, message));
            }
            return Ok(None);
        }
    }))
}

/// Whether anything is traced, by a list of levels.
fn level(given: &[String]) -> Result<Option<bool>, Status> {
    let mut is_on = None;
    for level in given {
        let Some((_, on)) = LEVELS.iter().find(|(name, _)| name == level) else {
            return Err(Status::invalid(format!(
                "found {level:?}; it takes OFF or TIMESTAMPS; what tensors hold is never told"
            )));
        };
        if is_on.is_some_and(|is_on| is_on != *on) {
            return Err(Status::invalid("OFF goes with no other level"));
        }
        is_on = Some(*on);
    }
    Ok(is_on)
}

fn number<T: std::str::FromStr>(given: Option<&str>, allowed: &str) -> Result<Option<T>, Status> {
    let Some(text) = given else {
        return Ok(None);
    };
    let wrong = |_| Status::invalid(format!("found {text:?}; it takes {allowed}"));
    text.parse().map(Some).map_err(wrong)
}

fn said(chosen: Option<&Chosen>) -> TraceSettingResponse {
    let level = chosen.is_some_and(|chosen| chosen.on);
    let level = LEVELS.iter().find(|(_, on)| *on == level);
    let rate = chosen.map_or(0.0, |chosen| chosen.rate.round());
    let count = chosen.map_or(Left::ENDLESS, |chosen| chosen.left.count());
    let fixed = FIXED.map(|(name, value, _)| (name, value.to_owned()));
    let free = [
        ("trace_count", count.to_string()),
        ("trace_level", level.map_or("", |(name, _)| name).to_owned()),
        ("trace_rate", rate.to_string()),
    ];
    let settings = fixed.into_iter().chain(free).map(|(name, value)| {
        let value = vec![value];
        (name.to_owned(), Said { value })
    });
    TraceSettingResponse {
        settings: settings.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear(name: &str, values: &[&str]) -> Result<Option<Change>, Code> {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        heard(name, &values).map_err(|status| status.code)
    }

    #[test]
    fn settings_are_heard_or_refused() {
        assert_eq!(
            hear("trace_level", &["OFF"]),
            Ok(Some(Change::On(Some(false))))
        );
        let on = Ok(Some(Change::On(Some(true))));
        assert_eq!(hear("trace_level", &["TIMESTAMPS"]), on);
        assert_eq!(hear("trace_level", &["TIMESTAMPS", "TIMESTAMPS"]), on);
        assert_eq!(hear("trace_level", &[]), Ok(Some(Change::On(None))));
        assert_eq!(hear("trace_rate", &["7"]), Ok(Some(Change::Rate(Some(7)))));
        assert_eq!(hear("trace_rate", &[]), Ok(Some(Change::Rate(None))));
        assert_eq!(
            hear("trace_count", &["-1"]),
            Ok(Some(Change::Count(Some(-1))))
        );
        assert_eq!(hear("trace_mode", &["opentelemetry"]), Ok(None));
        assert_eq!(hear("trace_file", &[""]), Ok(None));
        for (name, values) in [
            ("trace_level", &["TENSORS"][..]),
            ("trace_level", &["OFF", "TIMESTAMPS"]),
            ("trace_level", &["off"]),
            ("trace_rate", &["-1"]),
            ("trace_rate", &["often"]),
            ("trace_count", &["-2"]),
            ("trace_depth", &["1"]),
        ] {
            assert_eq!(
                hear(name, values),
                Err(Code::InvalidArgument),
                "{name} {values:?}"
            );
        }
        for (name, value) in [
            ("trace_file", "/tmp/trace"),
            ("trace_mode", "triton"),
            ("log_frequency", "100"),
        ] {
            assert_eq!(hear(name, &[value]), Err(Code::Unimplemented), "{name}");
        }
    }
}
