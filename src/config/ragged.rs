//! The `[ragged]` table of `model.toml`, and what it excludes.

use toml::{Table as Toml, Value};

use crate::model::{
    BatchAxis, BatchInput, BatchInputKind, BatchOutput, ModelPolicy, RaggedPolicy, declared,
};
use crate::tensor::Dtype;
use jitney_settings::Table;
use jitney_settings::rule::{OneOf, Text};

const KINDS: [(&str, BatchInputKind); 6] = [
    ("element_count", BatchInputKind::ElementCount),
    (
        "accumulated_element_count",
        BatchInputKind::AccumulatedElementCount,
    ),
    (
        "accumulated_element_count_with_zero",
        BatchInputKind::AccumulatedElementCountWithZero,
    ),
    (
        "max_element_count_as_shape",
        BatchInputKind::MaxElementCountAsShape,
    ),
    ("item_shape", BatchInputKind::ItemShape),
    ("item_shape_flatten", BatchInputKind::ItemShapeFlatten),
];

/// The element types that counts are told in.
pub(super) const DTYPES: [(&str, Dtype); 2] = [("FP32", Dtype::Fp32), ("INT32", Dtype::Int32)];

/// What the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> RaggedPolicy {
    RaggedPolicy {
        inputs: table.list("inputs", Text).unwrap_or_default(),
        batch_inputs: table
            .sections("batch_inputs", batch_input)
            .unwrap_or_default(),
        batch_outputs: table
            .sections("batch_outputs", batch_output)
            .unwrap_or_default(),
    }
}

fn batch_input(table: &mut Table<'_, '_>) -> BatchInput {
    let kind = table.value("kind", OneOf(&KINDS));
    let kind = table.required("kind", kind, "what it says of its source");
    let dtype = table.value("dtype", OneOf(&DTYPES));
    BatchInput {
        kind: kind.unwrap_or(BatchInputKind::ElementCount),
        targets: targets(table),
        dtype: dtype.unwrap_or(Dtype::Int32),
        source: source(table),
    }
}

fn batch_output(table: &mut Table<'_, '_>) -> BatchOutput {
    BatchOutput {
        targets: targets(table),
        source: source(table),
    }
}

fn targets(table: &mut Table<'_, '_>) -> Vec<String> {
    let targets = table.list("targets", Text);
    let targets = table.required("targets", targets, "the model's names for it");
    targets.unwrap_or_default()
}

fn source(table: &mut Table<'_, '_>) -> String {
    let source = table.value("source", Text);
    let source = table.required("source", source, "the name of an input");
    source.unwrap_or_default()
}

/// The table that means `policy`.
pub(super) fn write(policy: &RaggedPolicy) -> Value {
    let mut table = Toml::new();
    let mut put = |key: &str, values: Vec<Value>| {
        if !values.is_empty() {
            table.insert(key.to_owned(), Value::Array(values));
        }
    };
    put("inputs", names(&policy.inputs));
    let made = policy.batch_inputs.iter().map(|made| {
        let kind = KINDS.iter().find(|(_, kind)| *kind == made.kind);
        let mut table = place(&made.targets, &made.source);
        let name = kind.map_or("", |(name, _)| name);
        table.insert("kind".to_owned(), name.into());
        table.insert("dtype".to_owned(), made.dtype.name().into());
        Value::Table(table)
    });
    put("batch_inputs", made.collect());
    let cut = policy.batch_outputs.iter();
    let cut = cut.map(|cut| Value::Table(place(&cut.targets, &cut.source)));
    put("batch_outputs", cut.collect());
    Value::Table(table)
}

fn place(targets: &[String], source: &str) -> Toml {
    Toml::from_iter([
        ("targets".to_owned(), Value::Array(names(targets))),
        ("source".to_owned(), source.into()),
    ])
}

fn names(names: &[String]) -> Vec<Value> {
    names.iter().map(|name| name.as_str().into()).collect()
}

/// Why what the policy says beside it cannot be, if it cannot.
pub(super) fn excluded(policy: &ModelPolicy) -> Option<String> {
    let ragged = policy.ragged.as_ref()?;
    if policy.sequence.is_some() {
        let message = "contradicts sequences: states are kept by rows, and what is laid end to end or padded has none of its own";
        return Some(message.to_owned());
    }
    if policy.ensemble.is_some() {
        let message =
            "contradicts an ensemble: its models lay requests end to end, each for itself";
        return Some(message.to_owned());
    }
    if policy.batch.axis == BatchAxis::Unbatched {
        let message = "needs a batch dimension: requests that run alone (batch_axis = \"none\", max_batch_size: 0) are never laid end to end";
        return Some(message.to_owned());
    }
    if !policy.batch.sizes.is_empty() {
        let message =
            "contradicts batch_sizes: a row that fills a batch up would be laid among the others";
        return Some(message.to_owned());
    }
    let names = ragged.inputs.iter().map(String::as_str);
    let mut taken = names.chain(ragged.sources());
    let optional = taken.find(|name| {
        let declared = declared(&policy.tensors.inputs, name);
        declared.is_some_and(|input| input.optional)
    });
    optional.map(|name| format!("contradicts optional: input {name:?} has to be there"))
}
