//! `[[steps.faults]]`: what goes wrong meanwhile.

use std::path::Path;
use std::time::Duration;

use jitney_settings::Table;
use jitney_settings::rule::{OneOf, Rule, Text, milliseconds};

use super::A_DAY;
use crate::faults::{Fault, Kind as Wrong};

#[derive(Clone, Copy)]
enum FaultName {
    Cancel,
    Vanish,
    Churn,
    HalfOpen,
    Malformed,
    Huge,
    SlowReader,
    Reload,
    Unload,
    File,
    Terminate,
    Kill,
}

const FAULTS: OneOf<'_, FaultName> = OneOf(&[
    ("cancel", FaultName::Cancel),
    ("vanish", FaultName::Vanish),
    ("churn", FaultName::Churn),
    ("half_open", FaultName::HalfOpen),
    ("malformed", FaultName::Malformed),
    ("huge", FaultName::Huge),
    ("slow_reader", FaultName::SlowReader),
    ("reload", FaultName::Reload),
    ("unload", FaultName::Unload),
    ("file", FaultName::File),
    ("terminate", FaultName::Terminate),
    ("kill", FaultName::Kill),
]);

pub(super) fn fault(folder: &Path, table: &mut Table<'_, '_>) -> Fault {
    let kind = table.value("kind", FAULTS);
    let kind = table.required("kind", kind, &format!("allowed: {}", FAULTS.allowed()));
    let every = table.value("every_ms", milliseconds(1.0..=A_DAY * 1e3));
    let every = table.required("every_ms", every, "from one time to the next");
    let kind = match kind {
        None | Some(FaultName::Cancel) => Wrong::Cancel,
        Some(FaultName::Vanish) => Wrong::Vanish,
        Some(FaultName::Churn) => Wrong::Churn,
        Some(FaultName::HalfOpen) => Wrong::HalfOpen,
        Some(FaultName::Malformed) => Wrong::Malformed,
        Some(FaultName::Huge) => Wrong::Huge,
        Some(FaultName::SlowReader) => Wrong::SlowReader,
        Some(FaultName::Terminate) => Wrong::Terminate,
        Some(FaultName::Kill) => Wrong::Kill,
        Some(FaultName::Reload) => Wrong::Reload(a_model(table)),
        Some(FaultName::Unload) => Wrong::Unload(a_model(table), lasts(table)),
        Some(FaultName::File) => {
            let path = table.value("path", Text).map(|path| folder.join(path));
            let path = table.required("path", path, "the file that appears");
            Wrong::File(path.unwrap_or_default(), lasts(table))
        }
    };
    Fault {
        kind,
        every: every.unwrap_or(Duration::from_secs(1)),
    }
}

fn a_model(table: &mut Table<'_, '_>) -> String {
    let model = table.value("model", Text);
    let model = table.required("model", model, "the model that is loaded anew");
    model.unwrap_or_default()
}

fn lasts(table: &mut Table<'_, '_>) -> Duration {
    let lasts = table.value("lasts_ms", milliseconds(1.0..=A_DAY * 1e3));
    let lasts = table.required("lasts_ms", lasts, "how long it lasts");
    lasts.unwrap_or_default()
}
