//! A load may bring the model's configuration, and the model.

use std::fs;

use bytes::Bytes;
use jitney::config::RawServer;
use jitney::proto::model_repository_parameter::ParameterChoice;
use jitney::proto::{ModelRepositoryParameter, RepositoryModelLoadRequest};
use tonic::{Code, Status};

use super::node::{Node, within};
use super::repository::{Repository, made_models};
use super::request::{assert_doubled, sequence};

const NUMBERS: [f32; 3] = [1.0, 2.0, 4.0];
const CONFIG: &str = r#"{"backend": "onnxruntime", "max_batch_size": 5}"#;

async fn explicit(repository: &Repository, max_uploaded_bytes: &str) -> Node {
    let settings = RawServer {
        model_control: Some("explicit".to_owned()),
        max_uploaded_bytes: Some(max_uploaded_bytes.to_owned()),
        ..RawServer::default()
    };
    Node::with(&repository.path(), settings).await
}

fn text(text: &str) -> ParameterChoice {
    ParameterChoice::StringParam(text.to_owned())
}

fn model() -> ParameterChoice {
    let file = made_models().join("variable_shape/1/model.onnx");
    ParameterChoice::BytesParam(Bytes::from(fs::read(file).unwrap()))
}

async fn load(node: &Node, parameters: &[(&str, ParameterChoice)]) -> Result<(), Status> {
    let parameters = parameters.iter().map(|(name, choice)| {
        let parameter_choice = Some(choice.clone());
        (
            (*name).to_owned(),
            ModelRepositoryParameter { parameter_choice },
        )
    });
    let request = RepositoryModelLoadRequest {
        model_name: "variable_shape".to_owned(),
        parameters: parameters.collect(),
        ..RepositoryModelLoadRequest::default()
    };
    let mut client = node.client();
    within("a load", client.repository_model_load(request))
        .await
        .map(|_| ())
}

async fn rows(node: &Node) -> i32 {
    node.config("variable_shape").await.max_batch_size
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_holds_until_the_next_load() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = explicit(&repository, "0").await;
    load(&node, &[("config", text(CONFIG))]).await.unwrap();
    assert_eq!(rows(&node).await, 5);
    let wrong = load(&node, &[("config", text("{\"max_batch_size\": -1}"))]).await;
    let wrong = wrong.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    assert!(
        wrong.message().contains("max_batch_size: found -1"),
        "{wrong:?}"
    );
    assert_eq!(rows(&node).await, 5);
    node.load("variable_shape").await.unwrap();
    assert_eq!(rows(&node).await, 32);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_came_with_its_load_goes_when_it_is_unloaded() {
    let repository = Repository::new();
    let size = fs::metadata(made_models().join("variable_shape/1/model.onnx"))
        .unwrap()
        .len();
    let node = explicit(&repository, &size.to_string()).await;
    let came = [("config", text(CONFIG)), ("file:3/model.onnx", model())];
    load(&node, &came).await.unwrap();
    let answer = node.infer(sequence(&NUMBERS)).await.unwrap();
    assert_doubled(&answer, &NUMBERS);
    assert_eq!(answer.model_version, "3");
    // There is room for one, which serves on.
    let crowded = load(&node, &came).await.unwrap_err();
    assert_eq!(crowded.code(), Code::ResourceExhausted);
    assert!(node.is_ready("variable_shape", "3").await);
    node.unload("variable_shape").await.unwrap();
    assert!(node.index().await.is_empty());
    let gone = node.load("variable_shape").await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);
    load(&node, &came).await.unwrap();
    assert!(node.is_ready("variable_shape", "3").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_left_of_a_load_that_fails() {
    let repository = Repository::new();
    let node = explicit(&repository, "1000000").await;
    let config = || ("config", text(CONFIG));
    for (wrong, code) in [
        (vec![("file:1/model.onnx", model())], Code::InvalidArgument),
        (
            vec![config(), ("file:../model.onnx", model())],
            Code::InvalidArgument,
        ),
        (
            vec![config(), ("file:/tmp/model.onnx", model())],
            Code::InvalidArgument,
        ),
        (
            vec![config(), ("file:1/other.onnx", model())],
            Code::FailedPrecondition,
        ),
        (
            vec![config(), ("file:labels.txt", model())],
            Code::FailedPrecondition,
        ),
        (vec![config()], Code::NotFound),
        (vec![("confing", text("{}"))], Code::InvalidArgument),
    ] {
        let refused = load(&node, &wrong).await.unwrap_err();
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(node.index().await.is_empty(), "{:?}", node.index().await);
    }
    // Had they been kept, there would be no room.
    let came = [config(), ("file:1/model.onnx", model())];
    load(&node, &came).await.unwrap();
}
