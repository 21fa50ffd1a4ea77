//! A request whose answer nobody waits for any more is not run.

use std::time::Duration;

use jitney::config::RawServer;
use jitney::proto::infer_parameter::ParameterChoice;
use tonic::{Code, Request};

use super::http::{Wire, post};
use super::node::{Node, infer, until, within};
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_echo, rows, with_parameter};
use super::web::{INFER, frame};

const BATCH: usize = 8;

/// A model whose batches do not end before they are told to.
async fn stuck(policy: &str) -> (Repository, Node, Occupant) {
    stuck_with(policy, RawServer::default()).await
}

async fn stuck_with(policy: &str, settings: RawServer) -> (Repository, Node, Occupant) {
    let repository = Repository::of(&format!("max_batch_size = {BATCH}\n{policy}"), "");
    let node = Node::with(&repository.path(), settings).await;
    let occupant = Occupant::with_deadlines(&node, "m", BATCH).await;
    (repository, node, occupant)
}

async fn until_left(node: &Node) {
    let version = node.version("m");
    until("the request leaves the queue", || version.queued() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_timeout_parameter_ends_the_wait_while_the_executor_is_busy() {
    let (_repository, node, mut occupant) = stuck("").await;
    let request = with_parameter(
        rows("m", 9, 1),
        "timeout",
        ParameterChoice::Int64Param(20_000),
    );
    let status = node.infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(occupant.is_there());
    until_left(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_stands_for_a_timeout_where_the_operator_says_so() {
    let settings = RawServer {
        forward_headers: vec!["timeout".to_owned()],
        ..RawServer::default()
    };
    let (_repository, node, _occupant) = stuck_with("", settings).await;
    let with_header = |request, microseconds: &'static str| {
        let mut request = Request::new(request);
        let value = microseconds.parse().unwrap();
        request.metadata_mut().insert("timeout", value);
        // Nobody listens to this one.
        request
            .metadata_mut()
            .insert("priority", "u=1, i".parse().unwrap());
        request
    };
    let mut client = node.client();
    let asked = with_header(rows("m", 9, 1), "20000");
    let answer = within("an answer", client.model_infer(asked)).await;
    assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
    // The request's own goes before it: an hour would be waited for in vain.
    let own = ParameterChoice::Int64Param(20_000);
    let asked = with_header(
        with_parameter(rows("m", 9, 1), "timeout", own),
        "3600000000",
    );
    let answer = within("an answer", client.model_infer(asked)).await;
    assert_eq!(answer.unwrap_err().code(), Code::DeadlineExceeded);
    let asked = with_header(rows("m", 9, 1), "soon");
    let answer = within("an answer", client.model_infer(asked)).await;
    assert_eq!(answer.unwrap_err().code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_says_nothing_by_itself() {
    let repository = Repository::new();
    repository.simulate("m", Simulated::default());
    let node = Node::start(&repository.path()).await;
    let mut request = Request::new(rows("m", 9, 1));
    request
        .metadata_mut()
        .insert("timeout", "soon".parse().unwrap());
    let mut client = node.client();
    within("an answer", client.model_infer(request))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_deadline_is_for_requests_that_bring_none() {
    let (_repository, node, mut occupant) = stuck("default_deadline_ms = 20").await;
    let status = node.infer(rows("m", 9, 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    // The occupant brought its own.
    assert!(occupant.is_there());
    until_left(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_timeout_takes_a_request_out_of_the_queue() {
    let (_repository, node, mut occupant) = stuck("").await;
    let mut request = Request::new(rows("m", 9, 1));
    request.set_timeout(Duration::from_millis(20));
    let mut client = node.client();
    let answer = within("an answer", client.model_infer(request)).await;
    // tonic's client has a timer of its own, which says CANCELLED.
    let code = answer.unwrap_err().code();
    assert!(
        [Code::DeadlineExceeded, Code::Cancelled].contains(&code),
        "{code}"
    );
    assert!(occupant.is_there());
    until_left(&node).await;
}

/// Also where both sides' timers end at once, and whoever speaks first is believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waited_too_long_is_told_so_and_not_that_it_gave_up() {
    let (_repository, node, _occupant) = stuck("").await;
    let content = "content-type: application/grpc-web+proto";
    for _ in 0..50 {
        let mut wire = Wire::to(node.server.address()).await;
        let headers = [content, "grpc-timeout: 5m"];
        let answer = wire
            .ask(post(INFER, &headers, frame(&rows("m", 9, 1))))
            .await;
        assert_eq!(answer.header("grpc-status"), Some("4"), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grpc_timeout_of_a_stream_is_the_deadline_of_its_requests() {
    let (_repository, node, mut occupant) = stuck("").await;
    let mut request = Request::new(tokio_stream::iter([rows("m", 9, 1)]));
    // So long that the stream is surely open before.
    request.set_timeout(Duration::from_secs(3));
    let mut client = node.client();
    let answers = client.model_stream_infer(request).await.unwrap();
    let answer = within("an answer", answers.into_inner().message()).await;
    let message = answer.unwrap().unwrap().error_message;
    assert!(message.contains("deadline"), "{message}");
    assert!(occupant.is_there());
    until_left(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_has_passed_is_refused_before_the_queue() {
    let (_repository, node, mut occupant) = stuck("").await;
    let request = with_parameter(rows("m", 9, 1), "timeout", ParameterChoice::Int64Param(1));
    let status = node.infer(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(occupant.is_there());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_of_those_who_went_away_are_never_run() {
    let (_repository, node, occupant) = stuck("").await;
    let stays = enqueue(&node, [rows("m", 7, 2)]).await;
    let goes = tokio::spawn(infer(node.client(), rows("m", 8, 3)));
    let version = node.version("m");
    until("the other waits too", || version.queued() == 3).await;
    goes.abort();
    until("who went away leaves the queue", || version.queued() == 2).await;
    let late = with_parameter(
        rows("m", 9, 1),
        "timeout",
        ParameterChoice::Int64Param(1_000),
    );
    let status = node.infer(late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let occupied = occupant.rows as u64;
    occupant.leaves().await;
    for (sent, answer) in stays.join_all().await {
        assert_echo(&answer.unwrap(), &sent);
    }
    let statistics = node.statistics("m").await;
    assert_eq!(statistics.inference_count, occupied + 2);
    assert_eq!(statistics.execution_count, 3);
}
