//! The two text formats: Prometheus' own, which every tool reads, and OpenMetrics, which has exemplars.

use std::borrow::Cow;
use std::fmt::{Result, Write};

use super::family::{Family, Kind, Label, Sample, Value};
use crate::serving::Exemplar;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Prometheus text format, 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// The suffix that OpenMetrics asks of a counter's samples.
const TOTAL: &str = "_total";

impl Format {
    /// What a client asks for by its `Accept` header.
    pub fn accepted(accept: &str) -> Self {
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    /// The `Content-Type` of the format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    pub(super) fn written(self, families: &[Family]) -> String {
        let mut text = String::new();
        let mut told = families.iter().filter(|family| !family.samples.is_empty());
        // Writing into memory does not fail.
        let _ = told.try_for_each(|family| self.write(&mut text, family));
        if self == Self::OpenMetrics {
            text.push_str("# EOF\n");
        }
        text
    }

    fn write(self, text: &mut String, family: &Family) -> Result {
        let metric = family.metric;
        let (name, kind) = match (self, metric.kind) {
            (Self::OpenMetrics, Kind::Counter) => metric
                .name
                .strip_suffix(TOTAL)
                // A counter of another name than the format's is none to it.
                .map_or((metric.name, "unknown"), |name| {
                    (name, Kind::Counter.name())
                }),
            (_, kind) => (metric.name, kind.name()),
        };
        // OpenMetrics ends the text with a full stop, by custom.
        let stop = if self == Self::OpenMetrics { "." } else { "" };
        writeln!(text, "# HELP {name} {}{stop}", metric.help)?;
        writeln!(text, "# TYPE {name} {kind}")?;
        for sample in &family.samples {
            self.write_sample(text, metric.name, sample)?;
        }
        Ok(())
    }

    fn write_sample(self, text: &mut String, name: &str, sample: &Sample) -> Result {
        let Sample { labels, value } = sample;
        let histogram = match value {
            Value::Number(number) => {
                series(text, name, labels, None)?;
                return writeln!(text, " {number}");
            }
            Value::Histogram(histogram) => histogram,
        };
        let mut below = 0;
        let bucket = format!("{name}_bucket");
        for (place, (bound, inside)) in histogram.buckets.iter().enumerate() {
            below += inside;
            series(text, &bucket, labels, Some(*bound))?;
            write!(text, " {below}")?;
            let exemplar = histogram.exemplars.get(&place);
            if let Some(exemplar) = exemplar.filter(|_| self == Self::OpenMetrics) {
                write_exemplar(text, exemplar)?;
            }
            text.push('\n');
        }
        series(text, &format!("{name}_sum"), labels, None)?;
        writeln!(text, " {}", histogram.sum)?;
        series(text, &format!("{name}_count"), labels, None)?;
        writeln!(text, " {below}")
    }
}

/// A sample's name and labels, and the upper bound of its bucket.
fn series(text: &mut String, name: &str, labels: &[Label], bound: Option<f64>) -> Result {
    text.push_str(name);
    let mut before = '{';
    for (name, label) in labels {
        write!(text, "{before}{name}=\"{}\"", escaped(label))?;
        before = ',';
    }
    if let Some(bound) = bound {
        match bound.is_finite() {
            // With a fraction, as OpenMetrics has its numbers.
            true => write!(text, "{before}le=\"{bound:?}\"")?,
            false => write!(text, "{before}le=\"+Inf\"")?,
        }
        before = ',';
    }
    if before == ',' {
        text.push('}');
    }
    Ok(())
}

/// As both formats have it between quotes.
fn escaped(label: &str) -> Cow<'_, str> {
    if !label.contains(['\\', '"', '\n']) {
        return label.into();
    }
    let label = label.replace('\\', r"\\").replace('"', r#"\""#);
    label.replace('\n', r"\n").into()
}

fn write_exemplar(text: &mut String, exemplar: &Exemplar) -> Result {
    let context = exemplar.context;
    write!(
        text,
        " # {{trace_id=\"{:032x}\",span_id=\"{:016x}\"}} {} {:.3}",
        context.trace,
        context.span,
        exemplar.value,
        exemplar.wall_nanoseconds as f64 * 1e-9
    )
}
