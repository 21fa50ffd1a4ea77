//! Nothing that a client sends is the server's fault, or its end.

pub(crate) mod dice;
mod field;
mod message;

use jitney::proto::{ModelInferRequest, ModelInferResponse};
use prost::Message;
use tonic::{Code, Status};

use super::node::Node;
use super::repository::made_models;
use super::request::{assert_doubled, sequence};
use dice::Dice;
use message::send_bytes;

const CASES: u64 = 600;
const SOUND: [f32; 3] = [1.0, 2.0, 4.0];

/// What a client may be told about a request of its own making.
const ALLOWED: [Code; 4] = [
    Code::InvalidArgument,
    Code::NotFound,
    Code::Unimplemented,
    Code::ResourceExhausted,
];

fn assert_allowed(
    case: u64,
    sent: &ModelInferRequest,
    answer: &Result<ModelInferResponse, Status>,
) {
    match answer {
        Err(status) => {
            let told = ALLOWED.contains(&status.code()) && !status.message().is_empty();
            assert!(told, "case {case}: {status:?} for {sent:?}");
        }
        Ok(response) => {
            assert_eq!(response.id, sent.id, "case {case}");
            let outputs = response.outputs.len();
            assert_eq!(response.raw_output_contents.len(), outputs, "case {case}");
            assert!(outputs > 0, "case {case}: {sent:?}");
        }
    }
}

async fn assert_well(node: &Node) {
    let answer = node.infer(sequence(&SOUND)).await.unwrap();
    assert_doubled(&answer, &SOUND);
    for entry in node.index().await {
        assert!(node.is_ready(&entry.name, "").await, "{entry:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_field_of_a_request_can_upset_the_server() {
    let node = Node::start(&made_models()).await;
    let (mut taken, mut refused) = (0, 0);
    for case in 0..CASES {
        let mut dice = Dice::new(case);
        let request = field::mutated(&mut dice);
        let answer = node.infer(request.clone()).await;
        assert_allowed(case, &request, &answer);
        match answer {
            Ok(_) => taken += 1,
            Err(_) => refused += 1,
        }
    }
    // Mutations that all are refused, or all are taken, try nothing.
    assert!(
        taken > CASES / 20 && refused > CASES / 4,
        "{taken} and {refused}"
    );
    assert_well(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_of_a_message_can_upset_the_server() {
    let node = Node::start(&made_models()).await;
    for case in 0..CASES {
        let mut dice = Dice::new(case);
        let mut message = field::sound(&mut dice).encode_to_vec();
        for _ in 0..=dice.below(3) {
            dice.spoil(&mut message);
        }
        let answer = send_bytes(&node, message.clone()).await;
        match ModelInferRequest::decode(&message[..]) {
            Ok(request) => assert_allowed(case, &request, &answer),
            // What cannot be read at all is INTERNAL, says gRPC.
            Err(_) => assert_eq!(answer.unwrap_err().code(), Code::Internal, "case {case}"),
        }
    }
    assert_well(&node).await;
}
