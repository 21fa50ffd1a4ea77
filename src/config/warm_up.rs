//! The `[warm_up]` table of `model.toml`.

use crate::model::{WarmUpData, WarmUpInput, WarmUpPolicy, WarmUpRequest, WarmUpShape};
use crate::tensor::Dtype;
use jitney_settings::Table;
use jitney_settings::rule::{Text, Truth, whole};

use super::rule::FILE_NAME;
use super::tensors::dtype;

/// What the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> WarmUpPolicy {
    let default = WarmUpPolicy::default();
    WarmUpPolicy {
        runs: table
            .value("runs", whole(0..=1_000))
            .unwrap_or(default.runs),
        shapes: table.section("shapes", shapes).unwrap_or_default(),
        requests: table.sections("requests", request).unwrap_or_default(),
    }
}

fn shapes(table: &mut Table<'_, '_>) -> Vec<WarmUpShape> {
    let mut shapes = Vec::new();
    for name in table.keys() {
        let dimensions = table.list(name, whole(1..=i64::from(i32::MAX)));
        shapes.extend(dimensions.map(|dimensions| WarmUpShape {
            input: name.to_owned(),
            dimensions,
        }));
    }
    shapes
}

fn request(table: &mut Table<'_, '_>) -> WarmUpRequest {
    WarmUpRequest {
        name: table.value("name", Text).unwrap_or_default(),
        rows: table.value("rows", whole(1..=65_536)).unwrap_or(1),
        count: table.value("count", whole(1..=1_000)).unwrap_or(1),
        inputs: table.section("inputs", inputs).unwrap_or_default(),
    }
}

fn inputs(table: &mut Table<'_, '_>) -> Vec<WarmUpInput> {
    let mut inputs = Vec::new();
    for name in table.keys() {
        inputs.extend(table.section(name, |table| input(name, table)));
    }
    inputs
}

fn input(name: &str, table: &mut Table<'_, '_>) -> WarmUpInput {
    let dtype = dtype(table);
    let shape = table.list("shape", whole(0..=i64::from(i32::MAX)));
    let random = table.value("random", Truth);
    let file = table.value("file", FILE_NAME);
    if random.is_some() && file.is_some() {
        let message = "contradicts random: an input has one content".to_owned();
        table.contradict("file", message);
    }
    WarmUpInput {
        name: name.to_owned(),
        dtype: dtype.unwrap_or(Dtype::Fp32),
        shape: table
            .required("shape", shape, "dimensions, without the batch dimension")
            .unwrap_or_default(),
        data: match file {
            Some(file) => WarmUpData::File(file),
            None if random == Some(true) => WarmUpData::Random,
            None => WarmUpData::Zero,
        },
    }
}
