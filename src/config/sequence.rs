//! The `[sequence]` table of `model.toml`, and back.

use std::path::{Component, Path, PathBuf};

use jitney_settings::Table;
use jitney_settings::rule::{Number, OneOf, Parsed, Text, Truth, milliseconds, whole};
use toml::{Table as Document, Value};

use crate::model::{
    Choice, ControlKind, SequenceControl, SequencePolicy, SequenceState, SequenceStrategy,
};

const STRATEGIES: OneOf<'_, SequenceStrategy> = OneOf(&[
    ("direct", SequenceStrategy::Direct),
    (
        "oldest",
        SequenceStrategy::Oldest {
            max_candidate_sequences: None,
        },
    ),
]);

const KINDS: OneOf<'_, fn(Choice) -> ControlKind> = OneOf(&[
    ("start", ControlKind::Start),
    ("ready", ControlKind::Ready),
    ("end", ControlKind::End),
    ("corrid", |_| ControlKind::CorrelationId),
]);

const FILE: Parsed<PathBuf> = Parsed {
    parse: |text| is_inside(Path::new(text)).then(|| PathBuf::from(text)),
    allowed: "a file in the model's folder, such as \"initial_state/h0\"",
};

const MOST_SEQUENCES: usize = 1_000_000;
const MOST_BYTES: usize = 1 << 40;

/// What the table says.
pub(super) fn read(table: &mut Table<'_, '_>) -> SequencePolicy {
    let default = SequencePolicy::default();
    let idle = table.value("max_idle_ms", milliseconds(1.0..=86_400_000.0));
    let bytes = table.value("max_state_bytes", whole(1..=MOST_BYTES));
    let controls = table.sections("controls", control).unwrap_or_default();
    let states = table.sections("states", state).unwrap_or_default();
    SequencePolicy {
        strategy: strategy(table),
        max_idle: idle.unwrap_or(default.max_idle),
        max_sequences: table.value("max_sequences", whole(1..=MOST_SEQUENCES)),
        max_state_bytes: bytes.unwrap_or(default.max_state_bytes),
        controls: controls.into_iter().flatten().collect(),
        states: states.into_iter().flatten().collect(),
    }
}

fn strategy(table: &mut Table<'_, '_>) -> SequenceStrategy {
    let strategy = table.value("strategy", STRATEGIES).unwrap_or_default();
    let candidates = table.value("max_candidate_sequences", whole(1..=MOST_SEQUENCES));
    match (strategy, candidates) {
        (SequenceStrategy::Direct, Some(_)) => {
            let message = "belongs to strategy = \"oldest\"; max_sequences bounds either";
            table.contradict("max_candidate_sequences", message.to_owned());
            strategy
        }
        (SequenceStrategy::Direct, None) => strategy,
        (SequenceStrategy::Oldest { .. }, max_candidate_sequences) => SequenceStrategy::Oldest {
            max_candidate_sequences,
        },
    }
}

fn control(table: &mut Table<'_, '_>) -> Option<SequenceControl> {
    let input = table.value("input", Text);
    let input = table.required("input", input, "name the input that is told");
    let kind = table.value("kind", KINDS);
    let kind = table.required("kind", kind, "say what the input is told");
    let values = table.list("values", Number);
    let choice = match values.as_deref() {
        None => Choice::default(),
        Some([no, yes]) => Choice { no: *no, yes: *yes },
        Some(_) => {
            let message = "allowed: two numbers, for no and for yes, such as [0, 1]";
            table.contradict("values", message.to_owned());
            Choice::default()
        }
    };
    let kind = kind?(choice);
    if kind == ControlKind::CorrelationId && values.is_some() {
        table.contradict("values", "a correlation id has no values".to_owned());
    }
    Some(SequenceControl {
        input: input?,
        kind,
    })
}

fn state(table: &mut Table<'_, '_>) -> Option<SequenceState> {
    let input = table.value("input", Text);
    let input = table.required("input", input, "name the input that the state goes into");
    let output = table.value("output", Text);
    let output = table.required("output", output, "name the output that it comes out of");
    let visible = table.value("visible", Truth).unwrap_or_default();
    let shape = table.list("shape", whole(0..=i64::from(i32::MAX)));
    let initial_file = table.value("initial_file", FILE);
    Some(SequenceState {
        input: input?,
        output: output?,
        visible,
        shape,
        initial_file,
    })
}

/// Whether a path leads nowhere but down.
fn is_inside(path: &Path) -> bool {
    let mut parts = path.components();
    let down = |part| matches!(part, Component::Normal(_));
    path.components().next().is_some() && parts.all(down)
}

/// The table that means `policy`.
pub(super) fn write(policy: &SequencePolicy) -> Value {
    let mut table = Document::new();
    let mut put = |key: &str, value: Value| drop(table.insert(key.to_owned(), value));
    match policy.strategy {
        SequenceStrategy::Direct => put("strategy", "direct".into()),
        SequenceStrategy::Oldest {
            max_candidate_sequences,
        } => {
            put("strategy", "oldest".into());
            if let Some(candidates) = max_candidate_sequences {
                put("max_candidate_sequences", number(candidates));
            }
        }
    }
    let idle = policy.max_idle.as_secs_f64() * 1e3;
    put("max_idle_ms", Value::Float(idle));
    if let Some(sequences) = policy.max_sequences {
        put("max_sequences", number(sequences));
    }
    put("max_state_bytes", number(policy.max_state_bytes));
    if !policy.controls.is_empty() {
        let controls = policy.controls.iter().map(written);
        put("controls", Value::Array(controls.collect()));
    }
    if !policy.states.is_empty() {
        let states = policy.states.iter().map(kept);
        put("states", Value::Array(states.collect()));
    }
    Value::Table(table)
}

fn written(control: &SequenceControl) -> Value {
    let (kind, choice) = match control.kind {
        ControlKind::Start(choice) => ("start", Some(choice)),
        ControlKind::Ready(choice) => ("ready", Some(choice)),
        ControlKind::End(choice) => ("end", Some(choice)),
        ControlKind::CorrelationId => ("corrid", None),
    };
    let mut table = Document::from_iter([
        ("input".to_owned(), control.input.clone().into()),
        ("kind".to_owned(), kind.into()),
    ]);
    if let Some(Choice { no, yes }) = choice {
        let values = [no, yes].map(Value::Float).to_vec();
        table.insert("values".to_owned(), Value::Array(values));
    }
    Value::Table(table)
}

fn kept(state: &SequenceState) -> Value {
    let mut table = Document::from_iter([
        ("input".to_owned(), state.input.clone().into()),
        ("output".to_owned(), state.output.clone().into()),
        ("visible".to_owned(), state.visible.into()),
    ]);
    if let Some(shape) = &state.shape {
        let shape = shape.iter().map(|size| Value::Integer(*size)).collect();
        table.insert("shape".to_owned(), Value::Array(shape));
    }
    if let Some(file) = &state.initial_file {
        let file = file.to_string_lossy().into_owned();
        table.insert("initial_file".to_owned(), file.into());
    }
    Value::Table(table)
}

fn number(number: usize) -> Value {
    Value::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_model_policy;

    fn problems(source: &str) -> String {
        let file = Path::new("model.toml");
        read_model_policy(file, source).unwrap_err().to_string()
    }

    #[test]
    fn a_table_says_what_is_told_and_what_is_kept() {
        let source = r#"
            [sequence]
            strategy = "oldest"
            max_candidate_sequences = 4
            max_idle_ms = 250
            controls = [{ input = "s", kind = "start", values = [-1, 2] }, { input = "c", kind = "corrid" }]
            states = [{ input = "h", output = "hn", shape = [0, 3], initial_file = "initial_state/h0" }]
        "#;
        let policy = read_model_policy(Path::new("model.toml"), source).unwrap();
        let sequence = policy.sequence.unwrap();
        assert_eq!(sequence.places(2), 8);
        assert_eq!(sequence.max_idle.as_millis(), 250);
        let told = Choice { no: -1.0, yes: 2.0 };
        assert_eq!(sequence.controls[0].kind, ControlKind::Start(told));
        assert_eq!(sequence.controls[1].kind, ControlKind::CorrelationId);
        assert_eq!(sequence.states[0].shape, Some(vec![0, 3]));
        assert!(!sequence.states[0].visible);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (source, told) in [
            (
                "[sequence]\nmax_candidate_sequences = 2",
                "strategy = \"oldest\"",
            ),
            ("[sequence]\nmax_idle_ms = 0", "sequence.max_idle_ms"),
            (
                "[sequence]\ncontrols = [{ kind = \"start\" }]",
                "missing; name the input",
            ),
            (
                "[sequence]\ncontrols = [{ input = \"x\", kind = \"go\" }]",
                "\"corrid\"",
            ),
            (
                "[sequence]\ncontrols = [{ input = \"x\", kind = \"end\", values = [1] }]",
                "two numbers",
            ),
            (
                "[sequence]\nstates = [{ input = \"x\" }]",
                "missing; name the output",
            ),
            (
                "[sequence]\nstates = [{ input = \"x\", output = \"y\", initial_file = \"../z\" }]",
                "a file in the model's folder",
            ),
            (
                "[sequence]\n[padding]\ndimension = \"n\"",
                "contradicts padding",
            ),
        ] {
            let problems = problems(source);
            assert!(problems.contains(told), "{problems}");
        }
    }
}
