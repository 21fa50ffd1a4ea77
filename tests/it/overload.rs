//! Every bound refuses with RESOURCE_EXHAUSTED and a time to try again, and gives back what it took.

use jitney::config::RawServer;
use jitney::proto::{ModelInferRequest, ModelInferResponse, ServerMetadataRequest};
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};

use super::node::{Node, infer, within};
use super::occupant::{Occupant, enqueue};
use super::repository::Repository;
use super::request::{assert_echo, bytes_of, input, raw, rows};

const KIB: usize = 1024;

#[track_caller]
fn assert_pushed_back(status: &Status) {
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    let pushback = status.metadata().get("grpc-retry-pushback-ms");
    let pushback = pushback.expect("a time to try again").to_str().unwrap();
    assert!(pushback.parse::<u64>().unwrap() > 0);
}

/// Asks again for as long as the server says that it is full.
async fn in_the_end(node: &Node, request: ModelInferRequest) -> ModelInferResponse {
    within("the server takes requests again", async {
        loop {
            match node.infer(request.clone()).await {
                Err(status) if status.code() == Code::ResourceExhausted => {}
                answer => break answer.unwrap(),
            }
        }
    })
    .await
}

/// A request that is exactly this long on the wire.
fn of_bytes(bytes: usize) -> ModelInferRequest {
    let with = |numbers: usize| {
        let contents = bytes_of((0..numbers).map(|number| number as f32));
        raw("m", input("x", "FP32", &[1, numbers]), contents)
    };
    let mut request = with(bytes / 4 - 24);
    let spare = bytes - request.encoded_len();
    // One byte says that there is an id, and one how long it is.
    request.id = "i".repeat(spare - 2);
    assert_eq!(request.encoded_len(), bytes);
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_and_recovers() {
    let repository = Repository::of("max_batch_size = 4\nmax_queue_size = 3", "");
    let node = Node::start(&repository.path()).await;
    let occupant = Occupant::of(&node, "m", 4).await;
    let waiting = enqueue(&node, [2, 3].map(|seed| rows("m", seed, 1))).await;
    let status = node.infer(rows("m", 4, 1)).await.unwrap_err();
    assert_pushed_back(&status);
    assert!(status.message().contains("max_queue_size"), "{status:?}");
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    assert_echo(
        &node.infer(rows("m", 5, 4)).await.unwrap(),
        &rows("m", 5, 4),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_in_flight_are_bounded_and_given_back() {
    let repository = Repository::of("max_batch_size = 1", "");
    let settings = RawServer {
        max_message_bytes: Some((64 * KIB).to_string()),
        max_in_flight_bytes: Some((100 * KIB).to_string()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    let waiting = enqueue(&node, [of_bytes(60 * KIB)]).await;
    let status = node.infer(of_bytes(60 * KIB)).await.unwrap_err();
    assert_pushed_back(&status);
    assert!(
        status.message().contains("max_in_flight_bytes"),
        "{status:?}"
    );
    occupant.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    // Had either left as little as a second message's bytes behind, this would never be taken.
    assert_echo(
        &in_the_end(&node, of_bytes(64 * KIB)).await,
        &of_bytes(64 * KIB),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_in_progress_are_bounded_and_given_back() {
    let repository = Repository::of("max_batch_size = 1", "");
    let settings = RawServer {
        max_requests: Some("4".to_owned()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let occupant = Occupant::of(&node, "m", 1).await;
    let waiting = enqueue(&node, [2, 3].map(|seed| rows("m", seed, 1))).await;
    let status = node.infer(rows("m", 5, 1)).await.unwrap_err();
    assert_pushed_back(&status);
    assert!(status.message().contains("max_requests"), "{status:?}");
    drop((occupant, waiting));
    within("the server takes calls again", async {
        let mut client = node.client();
        while client
            .server_metadata(ServerMetadataRequest {})
            .await
            .is_err()
        {}
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_message_is_taken_and_a_larger_one_refused() {
    let repository = Repository::of("", "");
    let settings = RawServer {
        max_message_bytes: Some((64 * KIB).to_string()),
        max_in_flight_bytes: Some((100 * KIB).to_string()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    for _ in 0..10 {
        assert_echo(
            &in_the_end(&node, of_bytes(64 * KIB)).await,
            &of_bytes(64 * KIB),
        );
        let status = node.infer(of_bytes(64 * KIB + 1)).await.unwrap_err();
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
    }
    assert_echo(
        &in_the_end(&node, of_bytes(64 * KIB)).await,
        &of_bytes(64 * KIB),
    );
}

/// The same request, put together with gzip on its way.
async fn infer_compressed(
    node: &Node,
    request: ModelInferRequest,
) -> Result<ModelInferResponse, Status> {
    let client = node.client().send_compressed(CompressionEncoding::Gzip);
    infer(client, request).await
}

/// Zeros, of which little is left on the wire.
fn zeros(bytes: usize) -> ModelInferRequest {
    raw("m", input("x", "FP32", &[1, bytes / 4]), vec![0; bytes])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compressed_messages_count_as_what_they_become() {
    // Not so quick that the thread that receives a request runs it.
    let repository = Repository::of("max_batch_size = 1", "fixed_ms = 5");
    let settings = RawServer {
        max_message_bytes: Some((64 * KIB).to_string()),
        max_in_flight_bytes: Some((100 * KIB).to_string()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    let answer = infer_compressed(&node, zeros(60 * KIB)).await.unwrap();
    assert_echo(&answer, &zeros(60 * KIB));
    let bomb = infer_compressed(&node, zeros(10_000 * KIB)).await;
    assert_eq!(bomb.unwrap_err().code(), Code::ResourceExhausted);
    let occupant = Occupant::of(&node, "m", 1).await;
    let waiting = enqueue(&node, [of_bytes(60 * KIB)]).await;
    let status = infer_compressed(&node, zeros(60 * KIB)).await.unwrap_err();
    assert_pushed_back(&status);
    assert!(
        status.message().contains("max_in_flight_bytes"),
        "{status:?}"
    );
    occupant.leaves().await;
    waiting.join_all().await;
    // What was refused has given back what it took.
    assert_echo(
        &in_the_end(&node, of_bytes(64 * KIB)).await,
        &of_bytes(64 * KIB),
    );
}
