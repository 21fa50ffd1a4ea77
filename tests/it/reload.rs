//! Versions are swapped under load, and a version that does not load changes nothing.

use jitney::proto::model_infer_request::InferRequestedOutputTensor;
use jitney::proto::{ModelInferRequest, ModelInferResponse};
use tonic::Code;

use super::node::{Node, infer, load, within};
use super::repository::{Repository, Simulated};
use super::request::{assert_doubled, assert_echo, bytes_of, floats, input, raw, rows, sequence};
use super::traffic::{CLIENTS, Traffic};

const NUMBERS: [f32; 3] = [1.0, 2.0, 4.0];

async fn version_that_answers(node: &Node) -> String {
    let answer = node.infer(sequence(&NUMBERS)).await.unwrap();
    assert_doubled(&answer, &NUMBERS);
    answer.model_version
}

fn doubled(answer: &ModelInferResponse, _: &ModelInferRequest) {
    assert_doubled(answer, &NUMBERS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_versions_take_over_without_one_failed_request() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::explicit(&repository, &["variable_shape"]).await;
    let mut traffic = Traffic::start(&node, sequence(&NUMBERS), doubled);
    for version in 2..=6 {
        traffic.flows(50).await;
        repository.add("variable_shape", version);
        node.load("variable_shape").await.unwrap();
        assert_eq!(version_that_answers(&node).await, version.to_string());
    }
    traffic.flows(50).await;
    traffic.stops().await;
    assert!(!node.is_ready("variable_shape", "5").await);
    assert!(node.is_ready("variable_shape", "6").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_is_replaced_in_place_while_its_queue_is_full() {
    let repository = Repository::new();
    let simulate = |fixed_ms: usize| {
        let simulated = Simulated {
            policy: "max_batch_size = 2",
            simulated: &format!("fixed_ms = {fixed_ms}"),
            ..Simulated::default()
        };
        repository.simulate("m", simulated);
    };
    simulate(5);
    let node = Node::explicit(&repository, &["m"]).await;
    let mut traffic = Traffic::start(&node, rows("m", 1, 1), assert_echo);
    for fixed_ms in [6, 7, 8, 9, 10] {
        traffic.flows(20).await;
        let before = node.version("m");
        simulate(fixed_ms);
        node.load("m").await.unwrap();
        assert!(!std::sync::Arc::ptr_eq(&before, &node.version("m")));
    }
    traffic.flows(20).await;
    traffic.stops().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_is_seen_through_though_its_client_goes_away() {
    let repository = Repository::new();
    let slow = Simulated {
        simulated: "load_ms = 3000",
        ..Simulated::default()
    };
    repository.simulate("m", slow);
    let node = Node::explicit(&repository, &[]).await;
    let asked = tokio::spawn(load(node.client(), "m"));
    node.changes_until("it loads", async || {
        let line = node.index_of("m", "1").await;
        line.is_some_and(|line| line.state == "LOADING")
    })
    .await;
    asked.abort();
    assert!(asked.await.unwrap_err().is_cancelled());
    node.until_ready("m", "1").await;
    let answer = node.infer(rows("m", 1, 1)).await.unwrap();
    assert_echo(&answer, &rows("m", 1, 1));
}

/// A model that gives its inputs a and b back as ya and yb, and lists them in this order; of so many rows.
fn of_two(repository: &Repository, order: [&str; 2], rows: usize) {
    let tensors = |before: &str| {
        let tensor = |name: &str| {
            format!("{{ name = \"{before}{name}\", dtype = \"FP32\", shape = [-1, -1] }}")
        };
        order.map(tensor).join(", ")
    };
    let (inputs, outputs) = (tensors(""), tensors("y"));
    let text = format!(
        "max_batch_size = {rows}\n[simulated]\ninputs = [{inputs}]\noutputs = [{outputs}]\n"
    );
    repository.configure("m", &text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_run_by_a_model_that_it_was_checked_for() {
    // So much that many are under way while the model is replaced.
    const COLUMNS: usize = 20_000;
    let repository = Repository::new();
    of_two(&repository, ["a", "b"], 1);
    std::fs::create_dir(repository.folder("m").join("1")).unwrap();
    let node = Node::explicit(&repository, &["m"]).await;
    let shape = [1, COLUMNS];
    let of = |number: f32| bytes_of(std::iter::repeat_n(number, COLUMNS));
    let mut request = raw("m", input("a", "FP32", &shape), of(1.0));
    request.inputs.push(input("b", "FP32", &shape));
    request.raw_input_contents.push(of(2.0).into());
    request.outputs.push(InferRequestedOutputTensor {
        name: "ya".to_owned(),
        ..InferRequestedOutputTensor::default()
    });
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, request, stopped) = (node.client(), request.clone(), stopped.clone());
        clients.spawn(async move {
            let mut right = 0;
            while !*stopped.borrow() {
                let answer = infer(client.clone(), request.clone()).await.unwrap();
                assert_eq!(answer.outputs[0].name, "ya");
                assert_eq!(floats(&answer.raw_output_contents[0])[0], 1.0);
                right += 1;
            }
            right
        });
    }
    for round in 0..40 {
        of_two(
            &repository,
            [["b", "a"], ["a", "b"]][round % 2],
            1 + round % 3,
        );
        node.load("m").await.unwrap();
    }
    stop.send_replace(true);
    let right: usize = within("clients stop", clients.join_all())
        .await
        .into_iter()
        .sum();
    assert!(right > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_version_leaves_the_old_one_serving() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::explicit(&repository, &["variable_shape"]).await;
    repository.add_file("variable_shape", 2, b"not a model");
    let status = node.load("variable_shape").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(
        status.message().contains("variable_shape/2/model.onnx"),
        "{status:?}"
    );
    assert_eq!(version_that_answers(&node).await, "1");
    let corrupt = node.index_of("variable_shape", "2").await.unwrap();
    assert_eq!(corrupt.state, "UNAVAILABLE");
    assert!(
        corrupt.reason.contains("variable_shape/2/model.onnx"),
        "{corrupt:?}"
    );
    let old = node.index_of("variable_shape", "1").await.unwrap();
    assert_eq!(old.state, "READY");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_version_that_is_taken_away_is_forgotten() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::explicit(&repository, &["variable_shape"]).await;
    repository.add_file("variable_shape", 2, b"not a model");
    node.load("variable_shape").await.unwrap_err();
    std::fs::remove_dir_all(repository.folder("variable_shape").join("2")).unwrap();
    node.load("variable_shape").await.unwrap();
    assert_eq!(version_that_answers(&node).await, "1");
    let corrupt = node.index_of("variable_shape", "2").await;
    assert_eq!(corrupt.map(|entry| entry.reason), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_mistake_of_a_model_toml_is_told_and_the_old_one_kept() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::explicit(&repository, &["variable_shape"]).await;
    repository.configure(
        "variable_shape",
        "max_batch_size = 0\nversion = 3\nbatch_axis = 1",
    );
    let status = node.load("variable_shape").await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    for mistake in [
        "toml:1: max_batch_size",
        "toml:2: version",
        "toml:3: batch_axis",
    ] {
        assert!(status.message().contains(mistake), "{mistake}: {status:?}");
    }
    assert_eq!(version_that_answers(&node).await, "1");
    repository.configure("variable_shape", "max_batch_size = 5");
    node.load("variable_shape").await.unwrap();
    assert_eq!(node.version("variable_shape").max_batch_size(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_unloaded_is_refused_until_it_is_loaded_again() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::explicit(&repository, &["variable_shape"]).await;
    for _ in 0..2 {
        assert_eq!(version_that_answers(&node).await, "1");
        node.unload("variable_shape").await.unwrap();
        let status = node.infer(sequence(&NUMBERS)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable);
        let entry = node.index_of("variable_shape", "1").await.unwrap();
        assert_eq!(
            (entry.state.as_str(), entry.reason.as_str()),
            ("UNAVAILABLE", "unloaded")
        );
        node.load("variable_shape").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unload_during_a_load_has_the_last_word() {
    let repository = Repository::new();
    let simulated = Simulated {
        simulated: "load_ms = 4000",
        ..Simulated::default()
    };
    repository.simulate("m", simulated);
    let node = Node::explicit(&repository, &[]).await;
    let mut loader = node.client();
    let request = jitney::proto::RepositoryModelLoadRequest {
        model_name: "m".to_owned(),
        ..Default::default()
    };
    let load = tokio::spawn(async move { loader.repository_model_load(request).await });
    node.changes_until("the model loads", async || {
        let entry = node.index_of("m", "1").await;
        entry.is_some_and(|entry| entry.state == "LOADING")
    })
    .await;
    node.unload("m").await.unwrap();
    within("the load", load).await.unwrap().unwrap();
    assert!(!node.is_ready("m", "").await);
}
