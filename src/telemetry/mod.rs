//! What the server says of itself to those who watch it: log lines and metrics.
//! Uses `serving` and `device` for the counts that they keep anyway.
//! Never fails a request, nor costs it anything: what is told is gathered when somebody asks.

mod family;
pub mod logs;
mod open_metrics;
mod own;
mod source;
mod text;
mod triton;

pub use family::{Family, Kind, Metric, Sample};
pub use source::{Format, InFlight, Metrics};

/// Every metric, and whether it is told with `--triton-metrics true` only.
pub fn every_metric() -> impl Iterator<Item = (&'static Metric, bool)> {
    let own = own::METRICS.iter().map(|told| (&told.metric, false));
    own.chain(triton::METRICS.iter().map(|told| (&told.metric, true)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const REFERENCE: &str = include_str!("../../docs/metrics.md");

    #[test]
    fn the_reference_has_every_metric_and_no_other() {
        for (metric, _) in every_metric() {
            let labels: Vec<String> = metric.labels.iter().map(|one| format!("`{one}`")).collect();
            let (kind, labels) = (metric.kind.name(), labels.join(", "));
            let row = format!(
                "| `{}` | {kind} | {labels} | {} |",
                metric.name, metric.help
            );
            assert!(REFERENCE.lines().any(|line| line == row), "{row}");
        }
        let rows = REFERENCE.lines().filter(|line| line.starts_with("| `"));
        assert_eq!(rows.count(), every_metric().count());
    }

    #[test]
    fn names_are_as_the_formats_want_them_and_there_once() {
        let mut names = HashSet::new();
        for (metric, tritons) in every_metric() {
            assert!(names.insert(metric.name), "{}", metric.name);
            let prefix = if tritons { "nv_" } else { "jitney_" };
            assert!(metric.name.starts_with(prefix), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            let counts = metric.kind == Kind::Counter && !tritons;
            assert_eq!(total, counts, "{}", metric.name);
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
        assert!(text::written(std::slice::from_ref(&family)).contains(line));
        assert!(open_metrics::written(vec![family]).contains(line));
    }
}
