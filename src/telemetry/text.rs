//! The Prometheus text format, 0.0.4: what every tool reads.

use std::fmt::Write;

use super::family::{Family, Sample};

pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn written(families: &[Family]) -> String {
    let mut text = String::new();
    // Writing into memory does not fail.
    let _ = families
        .iter()
        .try_for_each(|family| write(&mut text, family));
    text
}

fn write(text: &mut String, family: &Family) -> std::fmt::Result {
    let metric = family.metric;
    if family.samples.is_empty() {
        return Ok(());
    }
    writeln!(text, "# HELP {} {}", metric.name, metric.help)?;
    writeln!(text, "# TYPE {} {}", metric.name, metric.kind.name())?;
    for Sample { labels, value } in &family.samples {
        text.push_str(metric.name);
        for (index, (name, label)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            write!(text, "{before}{name}=\"{label}\"")?;
        }
        let after = if labels.is_empty() { "" } else { "}" };
        writeln!(text, "{after} {value}")?;
    }
    Ok(())
}
