//! What the server says of itself to those who watch it: log lines, metrics, capacity, traces, and the
//! requests that were slow.
//! Uses `serving` and `device` for the counts that they keep anyway.
//! Never fails a request or holds one up.

mod context;
mod door;
mod family;
mod load;
pub mod logs;
pub mod otlp;
mod own;
mod process;
mod recorder;
mod requests;
mod sampling;
mod source;
mod story;
mod tags;
mod text;
mod timing;
mod tracer;
mod triton;

pub use context::{TRACEPARENT, TRACERESPONSE};
pub use door::{DoorCounts, Handshake, Refused, Stalled};
pub use family::{Buckets, Family, Kind, Label, Metric, Sample, Value};
pub use load::{Load, Point, Report, VersionLoad};
pub use recorder::{
    Anchor, Breach, Breaches, Decision, Shelf, SlowRequest, decisions, milliseconds,
};
pub use requests::{Aside, Requests, Watched};
pub use sampling::{Choice, Chosen, Left, Sampling};
pub use source::{InFlight, Metrics, Settings};
pub use story::Story;
pub use text::Format;
pub use timing::SERVER_TIMING;
pub use tracer::Tracer;

/// Every metric, and whether it is told with `--triton-metrics true` only.
pub fn every_metric() -> impl Iterator<Item = (&'static Metric, bool)> {
    let own = own::metrics().map(|told| (&told.metric, false));
    own.chain(triton::METRICS.iter().map(|told| (&told.metric, true)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const REFERENCE: &str = "docs/metrics.md";

    /// The rows of a table of the reference.
    fn rows(wanted: bool) -> String {
        let told = every_metric().filter(|(_, tritons)| *tritons == wanted);
        told.map(|(metric, _)| {
            let labels: Vec<String> = metric.labels.iter().map(|one| format!("`{one}`")).collect();
            let (name, kind, labels) = (metric.name, metric.kind.name(), labels.join(", "));
            format!("| `{name}` | {kind} | {labels} | {} |\n", metric.help)
        })
        .collect()
    }

    /// JITNEY_REWRITE=1 writes it anew.
    #[test]
    fn the_reference_has_every_metric_and_no_other() {
        let page = std::fs::read_to_string(REFERENCE).unwrap();
        let head = "|---|---|---|---|\n";
        let parts: Vec<&str> = page.split(head).collect();
        let [before, own, tritons] = parts[..] else {
            panic!("two tables are expected");
        };
        let rest = |part: &str| {
            let rows = part.lines().take_while(|line| line.starts_with("| `"));
            let length: usize = rows.map(|row| row.len() + 1).sum();
            part[length..].to_owned()
        };
        let (own, tritons) = (rest(own), rest(tritons));
        let written = [
            before,
            head,
            &rows(false),
            &own,
            head,
            &rows(true),
            &tritons,
        ]
        .concat();
        if std::env::var_os("JITNEY_REWRITE").is_some() {
            std::fs::write(REFERENCE, &written).unwrap();
        }
        assert!(page == written, "JITNEY_REWRITE=1 writes {REFERENCE} anew");
    }

    #[test]
    fn names_are_as_the_formats_want_them_and_there_once() {
        let mut names = HashSet::new();
        for (metric, tritons) in every_metric() {
            assert!(names.insert(metric.name), "{}", metric.name);
            let prefix = if tritons { "nv_" } else { "jitney_" };
            // Those of the process have the names that every dashboard knows.
            let prefixes = [prefix, if tritons { prefix } else { "process_" }];
            let fits = prefixes
                .iter()
                .any(|prefix| metric.name.starts_with(prefix));
            assert!(fits, "{}", metric.name);
            let total = metric.name.ends_with("_total");
            let counts = metric.kind == Kind::Counter && !tritons;
            assert_eq!(total, counts, "{}", metric.name);
        }
    }

    #[test]
    fn no_tag_of_a_model_takes_the_place_of_a_label() {
        for (metric, _) in every_metric() {
            for label in metric.labels {
                let taken = crate::model::TAKEN_LABELS.contains(label);
                assert!(taken, "{}: {label}", metric.name);
            }
        }
    }

    #[test]
    fn labels_are_escaped_in_both_formats() {
        static METRIC: Metric = Metric {
            name: "m",
            kind: Kind::Gauge,
            help: "h",
            labels: &["l"],
        };
        let mut family = Family {
            metric: &METRIC,
            samples: Vec::new(),
        };
        family.add(&["a\"b\\c\nd"], 1.5);
        let line = r#"m{l="a\"b\\c\nd"} 1.5"#;
        for format in [Format::Text, Format::OpenMetrics] {
            let written = format.written(std::slice::from_ref(&family));
            assert!(written.contains(line), "{written}");
        }
    }
}
