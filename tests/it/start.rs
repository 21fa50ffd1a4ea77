//! What a server serves when it starts: everything that is there, as its `model.toml` says.

use std::path::Path;
use std::process::{Command, Stdio};

use tonic::Code;

use super::node::Node;
use super::repository::{Repository, made_models};
use super::request::{bytes_of, input, raw, sequence};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_models_needs_no_configuration() {
    let folders = std::fs::read_dir(made_models()).unwrap();
    let is_folder = |entry: &std::fs::DirEntry| entry.path().is_dir();
    let count = folders.map(Result::unwrap).filter(is_folder).count();
    let node = Node::start(&made_models()).await;
    let index = node.index().await;
    assert_eq!(index.len(), count);
    for entry in index {
        assert_eq!(
            (entry.state.as_str(), entry.version.as_str()),
            ("READY", "1")
        );
        assert!(node.is_ready(&entry.name, "").await);
    }
    node.health("").await.until(true).await;
}

#[test]
fn whoever_reads_no_further_does_not_break_a_check() {
    let repository = Repository::of("", "");
    let mut check = Command::new(env!("CARGO_BIN_EXE_jitney"))
        .args(["check".as_ref(), repository.path().as_os_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(check.stdout.take());
    let ended = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        ended.status.success() && !said.contains("panicked"),
        "{said}"
    );
}

#[test]
fn a_check_says_of_an_ensemble_what_was_said() {
    let repository = Repository::of("max_batch_size = 4", "");
    let text = r#"[ensemble]
inputs = [{ name = "x", dtype = "FP32", shape = [-1, -1] }]
outputs = [{ name = "y", dtype = "FP32", shape = [-1, -1] }]
[[ensemble.steps]]
model = "m"
inputs = { x = "x" }
outputs = { y = "y" }
"#;
    for (name, keys) in [("plain", ""), ("small", "max_batch_size = 2\n")] {
        std::fs::create_dir_all(repository.folder(name).join("1")).unwrap();
        repository.configure(name, &format!("{keys}{text}"));
    }
    let check = Command::new(env!("CARGO_BIN_EXE_jitney"))
        .args(["check".as_ref(), repository.path().as_os_str()])
        .output()
        .unwrap();
    let said = String::from_utf8(check.stdout).unwrap();
    let sizes = said.lines().filter(|line| line.contains("max_batch_size"));
    let sizes: Vec<&str> = sizes.map(str::trim).collect();
    assert_eq!(
        sizes,
        ["max_batch_size = 4", "max_batch_size = 2"],
        "{said}"
    );
    assert!(said.contains("batches of up to 4 rows") && said.contains("up to 2 rows"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sample_model_reads_digits_it_never_saw() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let repository = Repository::new();
    let model = std::fs::read(examples.join("models/digits/1/model.onnx")).unwrap();
    repository.add_file("digits", 1, &model);
    let node = Node::start(&repository.path()).await;
    let table = std::fs::read_to_string(examples.join("digits/heldout.csv")).unwrap();
    let mut right = 0;
    for line in table.lines().skip(1) {
        let cells: Vec<f32> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
        let (label, pixels) = cells.split_first().unwrap();
        let image = bytes_of(pixels.iter().copied());
        let request = raw("digits", input("image", "FP32", &[1, 64]), image);
        let answer = node.infer(request).await.unwrap();
        let label = (*label as i64).to_le_bytes();
        right += usize::from(answer.raw_output_contents[0][..] == label);
    }
    assert!(
        right >= 342,
        "{right} of 360 are right, which is under 95 %"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn model_toml_goes_before_the_defaults() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.add("variable_shape", 2);
    repository.configure("variable_shape", "max_batch_size = 3\nversions = \"all\"");
    repository.add("add_sub", 1);
    repository.add("add_sub", 2);
    let node = Node::start(&repository.path()).await;
    assert!(node.is_ready("variable_shape", "1").await);
    assert!(node.is_ready("variable_shape", "2").await);
    assert!(!node.is_ready("add_sub", "1").await);
    assert!(node.is_ready("add_sub", "2").await);
    assert_eq!(node.config("variable_shape").await.max_batch_size, 3);
    assert_eq!(node.config("add_sub").await.max_batch_size, 32);
    let rows = |rows: usize| {
        raw(
            "variable_shape",
            input("x", "FP32", &[rows, 1]),
            vec![0; 4 * rows],
        )
    };
    assert!(node.infer(rows(3)).await.is_ok());
    let status = node.infer(rows(4)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let mut old = sequence(&[1.0, 2.0]);
    old.model_version = "1".to_owned();
    assert_eq!(node.infer(old).await.unwrap().model_version, "1");
    let newest = node.infer(sequence(&[1.0, 2.0])).await.unwrap();
    assert_eq!(newest.model_version, "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_does_not_load_leaves_the_others_serving() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.add_file("broken", 1, b"not a model");
    repository.configure("misconfigured", "max_batch = 3");
    let node = Node::start(&repository.path()).await;
    assert!(node.infer(sequence(&[1.0])).await.is_ok());
    node.health("").await.until(false).await;
    node.health("variable_shape").await.until(true).await;
    let broken = node.index_of("broken", "1").await.unwrap();
    assert_eq!(broken.state, "UNAVAILABLE");
    assert!(broken.reason.contains("broken/1/model.onnx"), "{broken:?}");
    let misconfigured = node.index_of("misconfigured", "").await.unwrap();
    assert!(
        misconfigured.reason.contains("model.toml:1: max_batch"),
        "{misconfigured:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_for_a_model_that_did_not_load_is_told_why() {
    let repository = Repository::new();
    repository.add_file("broken", 1, b"not a model");
    let node = Node::start(&repository.path()).await;
    let request = raw("broken", input("x", "FP32", &[1]), vec![0; 4]);
    let status = node.infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("model.onnx"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_may_load_only_where_the_operator_says_so() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::start(&repository.path()).await;
    for answer in [
        node.load("variable_shape").await,
        node.unload("variable_shape").await,
    ] {
        let status = answer.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(
            status.message().contains("--model-control explicit"),
            "{status:?}"
        );
    }
    assert!(node.infer(sequence(&[1.0])).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explicit_control_starts_with_what_is_named() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.add("add_sub", 1);
    let node = Node::explicit(&repository, &["add_sub"]).await;
    assert!(node.is_ready("add_sub", "").await);
    assert!(!node.is_ready("variable_shape", "").await);
    let entry = node.index_of("variable_shape", "").await.unwrap();
    assert_eq!(
        (entry.state.as_str(), entry.reason.as_str()),
        ("UNAVAILABLE", "not loaded")
    );
    node.load("variable_shape").await.unwrap();
    assert!(node.infer(sequence(&[1.0])).await.is_ok());
    node.unload("add_sub").await.unwrap();
    assert!(!node.is_ready("add_sub", "").await);
    let status = node.load("nowhere").await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
}
