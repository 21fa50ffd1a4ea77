use super::*;
use crate::tensor::Dtype::{Bool, Bytes as Text, Fp32, Int32, Int64, Uint64};

/// A tensor whose first dimension counts rows; 0 stands for a dimension that varies.
fn spec(name: &str, dtype: Dtype, inner: &[usize]) -> TensorSpec {
    let inner = inner.iter().map(|size| match size {
        0 => Dimension::varying(""),
        size => Dimension::fixed(*size),
    });
    TensorSpec {
        name: name.to_owned(),
        dtype,
        dimensions: [Dimension::varying("batch")]
            .into_iter()
            .chain(inner)
            .collect(),
    }
}

fn whole() -> Signature {
    Signature {
        inputs: vec![
            spec("first", Int32, &[1]),
            spec("x", Fp32, &[2]),
            spec("h", Fp32, &[0, 2]),
            spec("id", Uint64, &[1]),
            spec("last", Bool, &[]),
            spec("there", Fp32, &[1]),
        ],
        outputs: vec![spec("hn", Fp32, &[0, 2]), spec("y", Fp32, &[2])],
    }
}

fn control(input: &str, kind: ControlKind) -> SequenceControl {
    SequenceControl {
        input: input.to_owned(),
        kind,
    }
}

fn policy() -> SequencePolicy {
    SequencePolicy {
        controls: vec![
            control("there", ControlKind::Ready(Choice::default())),
            control("last", ControlKind::End(Choice::default())),
            control("id", ControlKind::CorrelationId),
            control("first", ControlKind::Start(Choice { no: -1.0, yes: 7.0 })),
        ],
        states: vec![SequenceState {
            input: "h".to_owned(),
            output: "hn".to_owned(),
            ..SequenceState::default()
        }],
        ..SequencePolicy::default()
    }
}

fn resolve(change: impl FnOnce(&mut SequencePolicy)) -> Result<Stateful, String> {
    let mut policy = policy();
    change(&mut policy);
    Stateful::resolve(&policy, &whole(), true, Path::new("nowhere"))
}

fn tensor_of(shape: &[i64], data: &'static [u8]) -> Tensor {
    Tensor {
        dtype: Fp32,
        shape: Shape::new(shape),
        data: Bytes::from_static(data),
    }
}

fn sequence(id: CorrelationId, start: bool, end: bool) -> InSequence {
    InSequence { id, start, end }
}

#[test]
fn clients_see_what_is_theirs() {
    let names = |specs: &[TensorSpec]| -> Vec<String> {
        specs.iter().map(|spec| spec.name.clone()).collect()
    };
    let stateful = resolve(|_| ()).unwrap();
    assert_eq!(names(&stateful.client.inputs), ["x"]);
    assert_eq!(names(&stateful.client.outputs), ["y"]);
    let stateful = resolve(|policy| policy.states[0].visible = true).unwrap();
    assert_eq!(names(&stateful.client.outputs), ["hn", "y"]);
}

#[test]
fn what_is_told_and_kept_is_put_where_the_model_has_it() {
    let stateful = resolve(|_| ()).unwrap();
    let states = stateful.initial();
    assert_eq!(states[0].shape, Shape::new(&[1, 1, 2]));
    let x = tensor_of(&[1, 2], &[1; 8]);
    let first = sequence(CorrelationId::Number(258), true, false);
    let inputs = stateful.inputs(vec![x.clone()], &first, &states).unwrap();
    let data: Vec<&[u8]> = inputs.iter().map(|input| &input.data[..]).collect();
    let one = 1.0_f32.to_le_bytes();
    assert_eq!(
        data,
        [
            &[7, 0, 0, 0][..],
            &[1; 8],
            &[0; 8],
            &[2, 1, 0, 0, 0, 0, 0, 0],
            &[0],
            &one
        ]
    );
    assert_eq!(inputs[4].shape, Shape::new(&[1]));
    let last = sequence(CorrelationId::Number(1), false, true);
    let inputs = stateful.inputs(vec![x.clone()], &last, &states).unwrap();
    assert_eq!(inputs[0].data[..], (-1_i32).to_le_bytes());
    assert_eq!(inputs[4].data[..], [1]);
    let text = sequence(CorrelationId::Text("a".into()), true, true);
    let refused = stateful.inputs(vec![x], &text, &states).unwrap_err();
    assert!(refused.contains("UINT64"), "{refused}");
}

#[test]
fn correlation_ids_are_told_as_the_model_takes_them() {
    let told = |dtype, id| {
        named(&spec("id", dtype, &[1]), &Shape::new(&[1, 1]), &id).map(|tensor| tensor.data)
    };
    let number = CorrelationId::Number;
    assert_eq!(told(Text, number(12)).unwrap()[..], *b"\x02\x00\x00\x0012");
    assert_eq!(
        told(Text, CorrelationId::Text("ab".into())).unwrap()[..],
        *b"\x02\0\0\0ab"
    );
    assert_eq!(told(Int32, number(5)).unwrap()[..], [5, 0, 0, 0]);
    assert!(told(Int32, number(1 << 31)).is_err());
    assert!(told(Dtype::Uint32, number(1 << 32)).is_err());
    assert!(told(Int64, number(u64::MAX)).is_err());
    assert!(told(Uint64, number(u64::MAX)).is_ok());
}

#[test]
fn what_is_kept_does_not_hold_the_batch_it_came_from() {
    let stateful = resolve(|policy| policy.max_state_bytes = 16).unwrap();
    let kept = tensor_of(&[1, 2, 2], &[3; 16]);
    let y = tensor_of(&[1, 2], &[4; 8]);
    let (seen, states) = stateful.split(vec![kept.clone(), y.clone()]).unwrap();
    assert_eq!(seen[..], *std::slice::from_ref(&y));
    assert_eq!(states[..], *std::slice::from_ref(&kept));
    assert_ne!(states[0].data.as_ptr(), kept.data.as_ptr());
    let grown = tensor_of(&[1, 3, 2], &[3; 24]);
    let refused = stateful.split(vec![grown, y.clone()]).unwrap_err();
    assert!(
        refused.message.contains("24 bytes where at most 16"),
        "{refused}"
    );
    let other = tensor_of(&[1, 1, 1], &[3; 4]);
    assert!(stateful.split(vec![other, y]).is_err());
}

#[test]
fn states_of_different_shapes_share_no_batch() {
    let stateful = resolve(|_| ()).unwrap();
    let class = |length| stateful.class(ShapeClass(1), &[tensor_of(&[1, length, 2], &[])]);
    assert_eq!(class(2), class(2));
    assert_ne!(class(2), class(3));
}

#[test]
fn what_does_not_fit_the_model_is_named() {
    let told = |change: fn(&mut SequencePolicy)| resolve(change).unwrap_err();
    for (change, expected) in [
        (
            (|policy| policy.states[0].input = "g".to_owned()) as fn(&mut SequencePolicy),
            "no input \"g\"",
        ),
        (
            |policy| policy.states[0].output = "g".to_owned(),
            "no output \"g\"",
        ),
        (
            |policy| policy.states[0].output = "y".to_owned(),
            "of one type and shape",
        ),
        (
            |policy| policy.controls[0].input = "h".to_owned(),
            "\"h\" is named twice",
        ),
        (
            |policy| policy.controls[0].input = "x".to_owned(),
            "one element for each",
        ),
        (
            |policy| policy.controls[2].input = "x".to_owned(),
            "one element for each",
        ),
        (
            |policy| {
                policy.controls.truncate(1);
                policy.controls[0].kind = ControlKind::CorrelationId;
            },
            "cannot be told a correlation id",
        ),
        (
            |policy| policy.controls[1].kind = ControlKind::Ready(Choice::default()),
            "told what another is told",
        ),
        (
            |policy| policy.controls[1].kind = ControlKind::End(Choice { no: 0.0, yes: 2.0 }),
            "cannot be told 2",
        ),
        (
            |policy| policy.states[0].shape = Some(vec![1, 3]),
            "cannot begin with shape [1,1,3]",
        ),
        (
            |policy| policy.states[0].shape = Some(vec![1 << 31, 2]),
            "max_state_bytes",
        ),
        (
            |policy| policy.states[0].initial_file = Some("h0".into()),
            "nowhere/h0",
        ),
    ] {
        let message = told(change);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_state_begins_with_what_its_file_holds() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("h0"), [9; 16]).unwrap();
    let mut policy = policy();
    policy.states[0].initial_file = Some("h0".into());
    let resolve =
        |policy: &SequencePolicy| Stateful::resolve(policy, &whole(), true, folder.path());
    assert!(
        resolve(&policy)
            .unwrap_err()
            .contains("16 bytes where state")
    );
    policy.states[0].shape = Some(vec![2, 2]);
    assert_eq!(resolve(&policy).unwrap().initial()[0].data[..], [9; 16]);
}
