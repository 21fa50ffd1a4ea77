use super::*;
use crate::model::Dimension;
use crate::tensor::Dtype;

fn spec(name: &str, dtype: Dtype, shape: &[i64]) -> TensorSpec {
    let dimension = |size: &i64| {
        usize::try_from(*size).map_or_else(|_| Dimension::varying(""), Dimension::fixed)
    };
    TensorSpec {
        name: name.to_owned(),
        dtype,
        dimensions: shape.iter().map(dimension).collect(),
    }
}

fn wide(name: &str) -> TensorSpec {
    spec(name, Dtype::Fp32, &[-1, 4])
}

/// A model that takes `a` and `b` and gives `c` and `d`, rows of four numbers each.
fn interface() -> Result<Interface, String> {
    let signature = Signature {
        inputs: vec![wide("a"), wide("b")],
        outputs: vec![wide("c"), wide("d")],
    };
    Ok(Interface {
        batching: signature.batching(),
        signature,
        max_batch_size: 8,
        spare: Vec::new(),
        together: None,
        runs: 1,
    })
}

fn step(inputs: [&str; 2], outputs: [&str; 2]) -> EnsembleStep {
    let named = |own: [&str; 2], tensors: [&str; 2]| {
        let pairs = own.iter().zip(tensors);
        let pairs = pairs.filter(|(_, tensor)| !tensor.is_empty());
        pairs
            .map(|(own, tensor)| ((*own).to_owned(), tensor.to_owned()))
            .collect()
    };
    EnsembleStep {
        model: "m".to_owned(),
        version: None,
        inputs: named(["a", "b"], inputs),
        outputs: named(["c", "d"], outputs),
    }
}

fn policy(steps: Vec<EnsembleStep>, outputs: &[&str]) -> EnsemblePolicy {
    EnsemblePolicy {
        inputs: vec![wide("x"), wide("y")],
        outputs: outputs.iter().map(|name| wide(name)).collect(),
        steps,
        max_in_flight: 1,
    }
}

fn graph(policy: &EnsemblePolicy) -> Result<Graph, Vec<String>> {
    let interfaces: Vec<_> = policy.steps.iter().map(|_| interface()).collect();
    Graph::new(policy, &interfaces)
}

fn mistakes(policy: &EnsemblePolicy) -> Vec<String> {
    graph(policy).unwrap_err()
}

#[test]
fn steps_come_after_those_that_they_wait_for() {
    let policy = policy(
        vec![
            step(["left", "right"], ["z", ""]),
            step(["x", "y"], ["left", "middle"]),
            step(["x", "middle"], ["right", ""]),
        ],
        &["z", "x"],
    );
    let graph = graph(&policy).unwrap();
    let names: Vec<&str> = graph.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["step 2 (m)", "step 3 (m)", "step 1 (m)"]);
    // x y | z | left middle | right
    assert_eq!((graph.tensors, graph.outputs), (6, vec![2, 0]));
    let last = &graph.steps[2];
    assert_eq!(last.inputs, [("a".to_owned(), 3), ("b".to_owned(), 5)]);
    assert_eq!(
        (last.gives.as_slice(), last.wanted.as_slice()),
        (&[2][..], &["c".to_owned()][..])
    );
}

#[test]
fn a_cycle_is_refused() {
    let steps = vec![
        step(["x", "back"], ["there", ""]),
        step(["there", "y"], ["back", "z"]),
    ];
    assert_eq!(
        mistakes(&policy(steps, &["z"])),
        ["step 1 (m), step 2 (m) wait for each other's outputs: a cycle"]
    );
    let itself = vec![step(["x", "z"], ["z", ""]), step(["y", "z"], ["w", ""])];
    let told = mistakes(&policy(itself, &["w"]));
    assert!(told[0].ends_with("a cycle"), "{told:?}");
}

#[test]
fn every_mistake_in_names_is_told() {
    let mut wrong = step(["x", "nowhere"], ["z", "z"]);
    wrong.inputs.push(("e".to_owned(), "x".to_owned()));
    wrong.outputs.push(("f".to_owned(), "lost".to_owned()));
    let alone = step(["x", ""], ["", ""]);
    assert_eq!(
        mistakes(&policy(vec![wrong, alone], &["z", "never"])),
        [
            r#"step 1 (m): tensor "z" comes from step 1 (m) already"#,
            r#"step 1 (m): the model has no output "f"; it has c FP32 [-1,4], d FP32 [-1,4]"#,
            "step 2 (m): none of its outputs is used",
            r#"step 1 (m): input "b": tensor "nowhere" comes from no step, and no request brings it"#,
            r#"step 1 (m): the model has no input "e"; it has a FP32 [-1,4], b FP32 [-1,4]"#,
            "step 2 (m): nothing is given to input b FP32 [-1,4]",
            r#"output "never": tensor "never" comes from no step, and no request brings it"#,
            r#"tensor "y" from the request is used by no step and no output"#,
            r#"tensor "lost" from step 1 (m) is used by no step and no output"#,
        ]
    );
    assert_eq!(
        mistakes(&policy(vec![], &["x", "y"])),
        ["there are no steps"]
    );
}

#[test]
fn types_and_shapes_have_to_agree() {
    let told = |spec: TensorSpec| {
        let mut policy = policy(vec![step(["x", "y"], ["z", ""])], &["z"]);
        policy.inputs[1] = spec;
        graph(&policy).map(|_| ())
    };
    let wrong = |form: &str| {
        let form = format!(
            r#"step 1 (m): input "b" is FP32 [-1,4], and tensor "y" from the request is {form}"#
        );
        Err(vec![form])
    };
    assert_eq!(told(spec("y", Dtype::Fp64, &[-1, 4])), wrong("FP64 [-1,4]"));
    assert_eq!(told(spec("y", Dtype::Fp32, &[-1, 5])), wrong("FP32 [-1,5]"));
    assert_eq!(told(spec("y", Dtype::Fp32, &[-1])), wrong("FP32 [-1]"));
    // What varies may be right.
    assert_eq!(told(spec("y", Dtype::Fp32, &[3, -1])), Ok(()));
    let mut policy = policy(vec![step(["x", "y"], ["z", ""])], &["z"]);
    policy.outputs[0] = spec("z", Dtype::Int8, &[-1, 4]);
    assert_eq!(
        mistakes(&policy),
        [r#"output "z" is INT8 [-1,4], and tensor "z" from step 1 (m) is FP32 [-1,4]"#]
    );
}

#[test]
fn a_model_that_is_not_there_is_named_and_a_mask_need_not_be_given() {
    let policy = policy(vec![step(["x", "y"], ["z", ""])], &["z"]);
    let told = Graph::new(&policy, &[Err("there is no model".to_owned())]).unwrap_err();
    assert_eq!(told, ["step 1 (m): there is no model"]);
    let masked = EnsemblePolicy {
        inputs: vec![wide("x")],
        steps: vec![step(["x", ""], ["z", ""])],
        ..policy
    };
    assert!(graph(&masked).is_err());
    let interface = Interface {
        spare: vec!["b".to_owned()],
        ..interface().unwrap()
    };
    assert!(Graph::new(&masked, &[Ok(interface.clone())]).is_ok());
    let many = Interface {
        runs: 1025,
        ..interface
    };
    let told = Graph::new(&masked, &[Ok(many)]).unwrap_err();
    assert_eq!(
        told,
        ["one request runs 1025 models where at most 1024 are allowed"]
    );
}
