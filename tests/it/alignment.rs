//! Raw tensors start wherever the names before them end, which need not be where numbers may.

use bytes::Bytes;
use jitney::proto::ModelInferRequest;

use super::node::Node;
use super::repository::Repository;
use super::request::{assert_doubled, input, sequence};

/// Positions of a number of eight bytes; one more shows that it goes round.
const SHIFTS: usize = 9;

fn sizes() -> impl Iterator<Item = usize> {
    (0..20).chain([31, 32, 33, 255, 1023, 4096, 65_537])
}

/// Lengthens the message before its tensors by this many bytes.
fn shifted(mut request: ModelInferRequest, by: usize) -> ModelInferRequest {
    request.id = "i".repeat(by);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_alone_is_answered_right_wherever_its_numbers_start() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::start(&repository.path()).await;
    for size in sizes() {
        let numbers: Vec<f32> = (0..size).map(|number| (number % 97) as f32).collect();
        for by in 0..SHIFTS {
            let answer = node.infer(shifted(sequence(&numbers), by)).await.unwrap();
            assert_doubled(&answer, &numbers);
            assert_eq!(answer.id.len(), by);
        }
    }
}

/// One row of two elements for each input of `identity_all`.
fn every_type(seed: u8) -> ModelInferRequest {
    let sizes = [
        ("bool", "BOOL", 1),
        ("uint8", "UINT8", 1),
        ("uint16", "UINT16", 2),
        ("uint32", "UINT32", 4),
        ("uint64", "UINT64", 8),
        ("int8", "INT8", 1),
        ("int16", "INT16", 2),
        ("int32", "INT32", 4),
        ("int64", "INT64", 8),
        ("fp16", "FP16", 2),
        ("bf16", "BF16", 2),
        ("fp32", "FP32", 4),
        ("fp64", "FP64", 8),
    ];
    let mut request = ModelInferRequest {
        model_name: "identity_all".to_owned(),
        ..ModelInferRequest::default()
    };
    for (name, datatype, size) in sizes {
        // Small bytes make neither a NaN nor a truth that is not one.
        let contents: Vec<u8> = (0..2 * size).map(|byte| (seed + byte) % 2).collect();
        request
            .inputs
            .push(input(&format!("in_{name}"), datatype, &[1, 2]));
        request.raw_input_contents.push(Bytes::from(contents));
    }
    request.inputs.push(input("in_string", "BYTES", &[1, 2]));
    let words: &[u8] = b"\x02\0\0\0\xff\0\0\0\0\0";
    request.raw_input_contents.push(Bytes::from_static(words));
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_type_is_echoed_wherever_it_starts() {
    let repository = Repository::new();
    repository.add("identity_all", 1);
    let node = Node::start(&repository.path()).await;
    for by in 0..SHIFTS {
        let request = shifted(every_type(by as u8), by);
        let answer = node.infer(request.clone()).await.unwrap();
        assert_eq!(answer.raw_output_contents, request.raw_input_contents);
    }
}
