//! `jitney-load report`.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use jitney_load::report::{Report, Verdict, read_report};

use super::Written;

/// Show a report again, or several as one: those of generators that ran at the same time.
#[derive(Debug, Args)]
pub(super) struct Merge {
    /// Reports, as JSON; or logs with such a line in them.
    #[arg(required = true)]
    reports: Vec<PathBuf>,
    #[command(flatten)]
    written: Written,
}

impl Merge {
    pub(super) fn run(self) -> anyhow::Result<Verdict> {
        let mut whole: Option<Report> = None;
        for file in &self.reports {
            let text = fs::read_to_string(file);
            let text = text.with_context(|| format!("cannot read {}", file.display()))?;
            // A log has other lines too.
            let line = text.lines().rev().find(|line| line.starts_with('{'));
            let report = read_report(line.unwrap_or(&text));
            let report = report.with_context(|| format!("{} is no report", file.display()))?;
            match &mut whole {
                None => whole = Some(report),
                Some(whole) => whole.merge(report).map_err(anyhow::Error::msg)?,
            }
        }
        self.written.show(&whole.context("no report")?)
    }
}
