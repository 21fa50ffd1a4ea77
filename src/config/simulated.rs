//! The `[simulated]` table of `model.toml`.

use std::path::PathBuf;
use std::time::Duration;

use jitney_settings::Table;
use jitney_settings::rule::{Between, Number, Text, Truth, milliseconds, whole_from};

use super::padding;
use super::tensors::dtype;
use crate::model::{Dimension, SimulatedPolicy, TensorSpec};

const DEFAULT_DEVICE_MEMORY_BYTES: u64 = 16 << 30;

/// What the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> SimulatedPolicy {
    SimulatedPolicy {
        inputs: tensors(table, "inputs"),
        outputs: tensors(table, "outputs"),
        fixed: time(table, "fixed_ms"),
        per_row: time(table, "per_row_ms"),
        per_element: time(table, "per_element_ms"),
        cold_runs: count(table, "cold_runs"),
        cold: time(table, "cold_ms"),
        slowdown: table
            .list("slowdown", Between(0.001..=1000.0))
            .unwrap_or_default(),
        load: time(table, "load_ms"),
        memory_bytes: count(table, "memory_bytes"),
        memory_per_row_bytes: count(table, "memory_per_row_bytes"),
        batch_sizes: padding::sizes(table, "batch_sizes", 65_536),
        device_memory_bytes: match count(table, "device_memory_bytes") {
            0 => DEFAULT_DEVICE_MEMORY_BYTES,
            bytes => bytes,
        },
        time_sliced: table.value("time_sliced", Truth).unwrap_or_default(),
        fail_every: count(table, "fail_every"),
        panic_every: count(table, "panic_every"),
        panic_on: number(table, "panic_on"),
        abort_on: number(table, "abort_on"),
        hang_on: number(table, "hang_on"),
        lost_while_exists: table.value("lost_while_exists", Text).map(PathBuf::from),
        waits_while_exists: table.value("waits_while_exists", Text).map(PathBuf::from),
    }
}

fn time<'d>(table: &mut Table<'d, '_>, key: &'d str) -> Duration {
    let an_hour = milliseconds(0.0..=3_600_000.0);
    table.value(key, an_hour).unwrap_or_default()
}

/// As an element of FP32.
fn number<'d>(table: &mut Table<'d, '_>, key: &'d str) -> Option<f32> {
    table.value(key, Number).map(|number| number as f32)
}

fn count<'d>(table: &mut Table<'d, '_>, key: &'d str) -> u64 {
    table.value(key, whole_from(0)).unwrap_or_default()
}

/// A list of tensors, of which no two have one name.
pub(super) fn tensors<'d>(table: &mut Table<'d, '_>, key: &'d str) -> Vec<TensorSpec> {
    let mut names: Vec<String> = Vec::new();
    let tensors = table.sections(key, |table| {
        let tensor = tensor(table)?;
        if names.contains(&tensor.name) {
            table.contradict("name", format!("{:?} is given twice", tensor.name));
        }
        names.push(tensor.name.clone());
        Some(tensor)
    });
    let why = r#"list them, such as [{ name = "x", dtype = "FP32", shape = [-1, 16] }]"#;
    let tensors = table.required(key, tensors, why);
    tensors.unwrap_or_default().into_iter().flatten().collect()
}

fn tensor(table: &mut Table<'_, '_>) -> Option<TensorSpec> {
    let name = table.value("name", Text);
    let name = table.required("name", name, "every tensor has a name");
    let dtype = dtype(table);
    let shape = table.list("shape", whole_from(-1_i64));
    let shape = table.required(
        "shape",
        shape,
        "dimensions, -1 where they vary, such as [-1, 16]",
    );
    Some(TensorSpec {
        name: name?,
        dtype: dtype?,
        dimensions: shape?.into_iter().map(dimension).collect(),
    })
}

fn dimension(size: i64) -> Dimension {
    usize::try_from(size).map_or_else(|_| Dimension::varying(""), Dimension::fixed)
}
