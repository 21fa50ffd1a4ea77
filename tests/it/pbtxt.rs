//! What `config.pbtxt` says holds for clients as it does in Triton.

use std::fs;

use jitney::config::RawServer;
use jitney::proto::ModelMetadataRequest;
use tonic::Code;

use super::node::Node;
use super::repository::Repository;
use super::request::{bytes_of, input, raw};

/// Echoes rows of any length, which clients see as two by three.
const RESHAPED: &str = r#"
name: "identity_fp32"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [ { name: "INPUT0", data_type: TYPE_FP32, dims: [ 2, 3 ], reshape { shape: [ 6 ] } } ]
output [ { name: "OUTPUT0", data_type: TYPE_FP32, dims: [ 3, 2 ], reshape { shape: [ 6 ] }, label_filename: "l.txt" } ]
dynamic_batching { max_queue_delay_microseconds: 100, priority_levels: 2, default_priority_level: 1 }
instance_group [ { count: 2, kind: KIND_CPU } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
parameters { key: "owner" value { string_value: "me" } }
metric_tags { key: "team" value: "blue" }
model_warmup {
  name: "warm" batch_size: 2
  inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: [ 2, 3 ] random_data: true } }
}
"#;

fn configure(repository: &Repository, model: &str, text: &str) {
    let desk = repository.beside("config.pbtxt");
    fs::write(&desk, text).unwrap();
    fs::rename(desk, repository.folder(model).join("config.pbtxt")).unwrap();
}

/// Why a model with this configuration does not serve.
async fn refusal(model: &str, text: &str) -> String {
    let repository = Repository::new();
    repository.add(model, 1);
    configure(&repository, model, text);
    let node = Node::start(&repository.path()).await;
    node.refusal().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_see_the_shapes_of_the_file_and_the_model_its_own() {
    let repository = Repository::new();
    repository.add("identity_fp32", 1);
    configure(&repository, "identity_fp32", RESHAPED);
    fs::write(repository.folder("identity_fp32").join("l.txt"), "one\n").unwrap();
    let node = Node::start(&repository.path()).await;
    let sent = bytes_of((0..12_u8).map(f32::from));
    let request = |shape: &[usize]| {
        raw(
            "identity_fp32",
            input("INPUT0", "FP32", shape),
            sent.clone(),
        )
    };
    let answer = node.infer(request(&[2, 2, 3])).await.unwrap();
    assert_eq!(answer.raw_output_contents[0], sent);
    assert_eq!(answer.outputs[0].shape, [2, 3, 2]);
    let refused = node.infer(request(&[2, 6])).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let message = refused.message();
    assert!(
        message.contains("has shape [2,6] where the model takes [-1,2,3]"),
        "{message}"
    );
    let request = ModelMetadataRequest {
        name: "identity_fp32".to_owned(),
        ..ModelMetadataRequest::default()
    };
    let metadata = node
        .client()
        .model_metadata(request)
        .await
        .unwrap()
        .into_inner();
    assert_eq!(metadata.inputs[0].shape, [-1, 2, 3]);
    assert_eq!(metadata.outputs[0].shape, [-1, 3, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_configuration_is_given_back_whole() {
    let repository = Repository::new();
    repository.add("identity_fp32", 1);
    configure(&repository, "identity_fp32", RESHAPED);
    fs::write(repository.folder("identity_fp32").join("l.txt"), "one\n").unwrap();
    let node = Node::start(&repository.path()).await;
    let found = node.config("identity_fp32").await;
    assert_eq!(
        (found.max_batch_size, found.backend.as_str()),
        (4, "onnxruntime")
    );
    assert_eq!(found.input[0].dims, [2, 3]);
    assert_eq!(found.input[0].reshape.as_ref().unwrap().shape, [6]);
    assert_eq!(found.output[0].dims, [3, 2]);
    assert_eq!(found.output[0].label_filename, "l.txt");
    assert_eq!(found.instance_group[0].count, 2);
    assert_eq!(found.parameters["intra_op_thread_count"].string_value, "1");
    assert_eq!(found.parameters["owner"].string_value, "me");
    assert_eq!(found.metric_tags["team"], "blue");
    assert_eq!(found.model_warmup[0].inputs["INPUT0"].dims, [2, 3]);
    assert_eq!(found.default_model_filename, "model.onnx");
    let Some(jitney::proto::model_config::SchedulingChoice::DynamicBatching(batching)) =
        found.scheduling_choice
    else {
        panic!("no dynamic batching");
    };
    assert_eq!(batching.max_queue_delay_microseconds, 100);
    assert_eq!(
        (batching.priority_levels, batching.default_priority_level),
        (2, 1)
    );
    assert_eq!(batching.default_queue_policy.unwrap().max_queue_size, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_model_does_not_have_is_refused_at_load() {
    let text = "max_batch_size: 4 input { name: \"INPUT0\" data_type: TYPE_INT8 dims: -1 }";
    assert_eq!(
        refusal("identity_fp32", text).await,
        "input \"INPUT0\": the configuration says INT8 [-1,-1], and the model has FP32 [-1,-1]"
    );
    let text = "max_batch_size: 4 model_warmup { name: \"w\" inputs { key: \"INPUT0\" value { \
        data_type: TYPE_FP32 dims: [ 1, 1 ] zero_data: true } } }";
    let reason = refusal("identity_fp32", text).await;
    assert!(
        reason.starts_with("warm-up with what the configuration says failed: request \"w\": "),
        "{reason}"
    );
    let text = "max_batch_size: 4\nbackend: \"python\"";
    let reason = refusal("identity_fp32", text).await;
    assert!(
        reason.contains("config.pbtxt:2: backend: found \"python\""),
        "{reason}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_to_warm_up_with_may_be_in_a_file() {
    let text = "max_batch_size: 4 model_warmup { batch_size: 2 inputs { key: \"INPUT0\" value { \
        data_type: TYPE_FP32 dims: 3 input_data_file: \"row\" } } }";
    let serve = |bytes: usize| async move {
        let repository = Repository::new();
        repository.add("identity_fp32", 1);
        configure(&repository, "identity_fp32", text);
        let folder = repository.folder("identity_fp32").join("warmup");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("row"), vec![0; bytes]).unwrap();
        let node = Node::start(&repository.path()).await;
        node.index().await.remove(0).reason
    };
    assert_eq!(serve(12).await, "");
    let reason = serve(11).await;
    assert!(reason.contains("takes 24 bytes"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_toml_goes_before_it_and_a_change_of_it_is_noticed() {
    let repository = Repository::new();
    repository.add("identity_fp32", 1);
    configure(&repository, "identity_fp32", "max_batch_size: 4");
    let settings = RawServer {
        model_control: Some("watch".to_owned()),
        watch_interval_ms: Some("20".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let rows = || async { node.config("identity_fp32").await.max_batch_size };
    assert_eq!(rows().await, 4);
    configure(&repository, "identity_fp32", "max_batch_size: 17");
    node.changes_until("the new size", || async { rows().await == 17 })
        .await;
    repository.configure("identity_fp32", "max_batch_size = 9");
    node.changes_until("the other file", || async { rows().await == 9 })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_batch_dimension_dims_are_all_there_is() {
    let repository = Repository::new();
    repository.add("identity_fp32", 1);
    let text = "max_batch_size: 0 input { name: \"INPUT0\" data_type: TYPE_FP32 dims: [ 2, -1 ] }";
    configure(&repository, "identity_fp32", text);
    let node = Node::start(&repository.path()).await;
    let found = node.config("identity_fp32").await;
    assert_eq!(
        (found.max_batch_size, &found.input[0].dims[..]),
        (0, &[2, -1][..])
    );
    let request = |rows| {
        let sent = bytes_of((0..rows * 3).map(|number| number as f32));
        raw("identity_fp32", input("INPUT0", "FP32", &[rows, 3]), sent)
    };
    assert!(node.infer(request(2)).await.is_ok());
    assert!(node.infer(request(1)).await.is_err());
}
