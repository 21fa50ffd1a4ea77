//! The `[padding]` table of `model.toml`.

use crate::model::PaddingPolicy;
use jitney_settings::Table;
use jitney_settings::rule::{Number, Text, whole};

/// What the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> PaddingPolicy {
    let dimension = table.value("dimension", Text);
    let axes = table.section("axes", axes).unwrap_or_default();
    if dimension.is_some() && !axes.is_empty() {
        let message = "contradicts dimension: name the dimension or the axes, not both";
        table.contradict("axes", message.to_owned());
    }
    if axes.is_empty() {
        let why = "say what the model calls the dimension that varies, or list axes";
        table.required("dimension", dimension.as_ref(), why);
    }
    PaddingPolicy {
        dimension,
        axes,
        values: table.section("values", values).unwrap_or_default(),
        mask: table.value("mask", Text),
        lengths: sizes(table, "lengths", PaddingPolicy::LONGEST),
        max_batch_tokens: table.value("max_batch_tokens", whole(1..=PaddingPolicy::MOST_TOKENS)),
    }
}

/// A list of sizes, of which each is larger than the one before.
pub(super) fn sizes<'d>(table: &mut Table<'d, '_>, key: &'d str, most: usize) -> Vec<usize> {
    let sizes = table.list(key, whole(1..=most)).unwrap_or_default();
    if !sizes.is_sorted_by(|before, after| before < after) {
        let message = format!("found {sizes:?}; allowed: each larger than the one before");
        table.contradict(key, message);
    }
    sizes
}

fn axes(table: &mut Table<'_, '_>) -> Vec<(String, usize)> {
    let mut axes = Vec::new();
    for name in table.keys() {
        let axis = table.value(name, whole(1..=31));
        axes.extend(axis.map(|axis| (name.to_owned(), axis)));
    }
    axes
}

fn values(table: &mut Table<'_, '_>) -> Vec<(String, f64)> {
    let mut values = Vec::new();
    for name in table.keys() {
        let value = table.value(name, Number);
        values.extend(value.map(|value| (name.to_owned(), value)));
    }
    values
}
