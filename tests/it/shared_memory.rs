//! What lies in shared memory counts against what is in flight, and only until the answer.

use std::fs;

use jitney::config::RawServer;
use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::model_infer_request::InferRequestedOutputTensor;
use jitney::proto::{
    InferParameter, ModelInferRequest, SystemSharedMemoryRegisterRequest,
    SystemSharedMemoryUnregisterRequest,
};
use tonic::Code;

use super::node::{Node, within};
use super::repository::{Repository, Simulated};
use super::request::{bytes_of, input};
use super::stream::Exchange;

const IN_FLIGHT: usize = 4096;

/// A server that has a file of these bytes registered, and as many more behind them.
async fn sharing(data: &[u8]) -> (Repository, Node) {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    let folder = repository.beside("shared");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("file"), [data, &vec![0; data.len()]].concat()).unwrap();
    let settings = RawServer {
        shared_memory_prefix: Some(folder),
        max_message_bytes: Some("1024".to_owned()),
        max_in_flight_bytes: Some(IN_FLIGHT.to_string()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let region = SystemSharedMemoryRegisterRequest {
        name: "r".to_owned(),
        key: "file".to_owned(),
        offset: 0,
        byte_size: 2 * data.len() as u64,
    };
    let mut client = node.client();
    let registered = client.system_shared_memory_register(region);
    within("a region", registered).await.unwrap();
    (repository, node)
}

fn part(offset: usize, bytes: usize) -> [(String, InferParameter); 3] {
    let number = |number: usize| ParameterChoice::Int64Param(number as i64);
    [
        (
            "shared_memory_region",
            ParameterChoice::StringParam("r".to_owned()),
        ),
        ("shared_memory_offset", number(offset)),
        ("shared_memory_byte_size", number(bytes)),
    ]
    .map(|(name, choice)| {
        let parameter_choice = Some(choice);
        (name.to_owned(), InferParameter { parameter_choice })
    })
}

/// One row, which lies at the region's beginning, to be echoed behind it.
fn shared(bytes: usize) -> ModelInferRequest {
    let mut row = input("x", "FP32", &[1, bytes / 4]);
    row.parameters.extend(part(0, bytes));
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![row],
        outputs: vec![InferRequestedOutputTensor {
            name: "y".to_owned(),
            parameters: part(bytes, bytes).into(),
        }],
        ..ModelInferRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_large_tensors_holds_one_at_a_time() {
    let data = bytes_of((0..512).map(|number| number as f32));
    let (repository, node) = sharing(&data).await;
    let mut stream = Exchange::open(&node).await;
    for _ in 0..10 {
        stream.send(shared(data.len())).await;
        let answer = stream.answer().await.unwrap().unwrap();
        assert_eq!(answer.error_message, "");
        let response = answer.infer_response.unwrap();
        assert_eq!(response.raw_output_contents, [""]);
        let said = &response.outputs[0].parameters["shared_memory_byte_size"];
        let bytes = ParameterChoice::Int64Param(data.len() as i64);
        assert_eq!(said.parameter_choice, Some(bytes));
    }
    let file = fs::read(repository.beside("shared/file")).unwrap();
    assert_eq!(file, [&data[..], &data].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_be_in_flight_is_refused_before_it_is_read() {
    let data = vec![0; IN_FLIGHT];
    let (_repository, node) = sharing(&data).await;
    let status = node.infer(shared(data.len())).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_in_flight_bytes"));
    node.infer(shared(IN_FLIGHT / 2)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_gone_is_not_found() {
    let (_repository, node) = sharing(&[0; 16]).await;
    let all = SystemSharedMemoryUnregisterRequest::default();
    let mut client = node.client();
    let gone = client.system_shared_memory_unregister(all);
    within("a region less", gone).await.unwrap();
    let status = node.infer(shared(16)).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("register it first"));
}
