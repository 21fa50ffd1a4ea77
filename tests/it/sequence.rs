//! Stateful models: what a sequence keeps, who may go on with it, and how it ends.

use std::sync::Arc;

use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::model_config::SchedulingChoice;
use jitney::proto::{ModelInferRequest, ModelInferResponse, ModelMetadataRequest};
use tokio::task::JoinSet;
use tonic::{Code, Request};

use super::node::{Node, infer, until, within};
use super::repository::{Repository, made_models};
use super::request::{bytes_of, floats, input, raw, with_parameter};
use super::stream::Exchange;

/// The value from which on `accumulator` fails in the middle of a batch.
const POISON: i64 = 100;

/// What one request of a sequence says of itself.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    First,
    Middle,
    Last,
    Only,
}

fn truth(truth: bool) -> ParameterChoice {
    ParameterChoice::BoolParam(truth)
}

fn placed(request: ModelInferRequest, id: ParameterChoice, place: Place) -> ModelInferRequest {
    let request = with_parameter(request, "sequence_id", id);
    let start = matches!(place, Place::First | Place::Only);
    let request = with_parameter(request, "sequence_start", truth(start));
    let end = matches!(place, Place::Last | Place::Only);
    with_parameter(request, "sequence_end", truth(end))
}

fn add(id: i64, amount: i64, place: Place) -> ModelInferRequest {
    let x = input("x", "INT64", &[1, 1]);
    let request = raw("accumulator", x, amount.to_le_bytes().to_vec());
    placed(request, ParameterChoice::Int64Param(id), place)
}

fn sum(response: &ModelInferResponse) -> f32 {
    floats(&response.raw_output_contents[0])[0]
}

/// How long it waits for a sequence's next request.
const PATIENCE: &str = "max_idle_ms = 60000";

/// Serves `accumulator` with these keys of `[sequence]` in place of its patience, or beside it.
fn accumulator(keys: &str) -> Repository {
    let repository = Repository::new();
    repository.add("accumulator", 1);
    let own = std::fs::read_to_string(made_models().join("accumulator/model.toml")).unwrap();
    let kept = if keys.contains("max_idle_ms") {
        ""
    } else {
        PATIENCE
    };
    let own = own.replace(PATIENCE, &format!("{kept}\n{keys}\n"));
    repository.configure("accumulator", &own);
    repository
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sequences_side_by_side_keep_their_own() {
    let repository = accumulator("");
    let node = Node::start(&repository.path()).await;
    let told = |response: &ModelInferResponse| response.raw_output_contents[1][0];
    for (amount, place, flags) in [
        (1, Place::First, 5),
        (2, Place::Middle, 4),
        (4, Place::Last, 6),
    ] {
        for id in [7, 8] {
            let response = node.infer(add(id, amount * id, place)).await.unwrap();
            assert_eq!(sum(&response), ((2 * amount - 1) * id) as f32);
            assert_eq!(told(&response), flags);
            assert_eq!(response.raw_output_contents[2][..], id.to_le_bytes());
            assert_eq!(response.outputs.len(), 3);
        }
    }
    let response = node.infer(add(7, 3, Place::Only)).await.unwrap();
    assert_eq!((sum(&response), told(&response)), (3.0, 7));
    assert_eq!(node.version("accumulator").live_sequences(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_sequences_at_once_are_batched_and_leave_nothing() {
    let repository = accumulator("");
    let node = Node::start(&repository.path()).await;
    let version = node.version("accumulator");
    let round = async |amount: i64, place, expected: fn(i64) -> f32| {
        let mut calls = JoinSet::new();
        for id in 1..=1000 {
            let call = infer(node.client(), add(id, amount * (id % 10), place));
            calls.spawn(async move { assert_eq!(sum(&call.await.unwrap()), expected(id)) });
        }
        while let Some(call) = calls.join_next().await {
            call.unwrap();
        }
    };
    round(1, Place::First, |id| (id % 10) as f32).await;
    assert_eq!(version.live_sequences(), 1000);
    for _ in 0..3 {
        round(0, Place::Middle, |id| (id % 10) as f32).await;
    }
    round(3, Place::Last, |id| (4 * (id % 10)) as f32).await;
    assert_eq!(version.live_sequences(), 0);
    let statistics = node.statistics("accumulator").await;
    assert_eq!(statistics.inference_count, 5000);
    assert!(statistics.execution_count < 5000, "nothing was batched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_need_not_wait_for_answers() {
    let repository = accumulator("");
    let node = Node::start(&repository.path()).await;
    let mut stream = Exchange::open(&node).await;
    // Two sequences, each sent at once; the first is poisoned in its middle.
    for number in 0..8 {
        for id in [1, 2] {
            let place = match number {
                0 => Place::First,
                7 => Place::Last,
                _ => Place::Middle,
            };
            let amount = if (number, id) == (4, 1) {
                POISON
            } else {
                number
            };
            stream.send(add(id, amount, place)).await;
        }
    }
    let (mut first, mut second) = (0, 0);
    for number in 0..8 {
        let answer = stream.answer().await.unwrap().unwrap();
        if number == 4 {
            assert!(!answer.error_message.is_empty());
        } else {
            first += number;
            assert_eq!(sum(&answer.infer_response.unwrap()), first as f32);
        }
        second += number;
        let answer = stream.answer().await.unwrap().unwrap();
        assert_eq!(sum(&answer.infer_response.unwrap()), second as f32);
    }
    assert_eq!(node.version("accumulator").live_sequences(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_request_is_told_and_changes_nothing() {
    let repository = accumulator("");
    let node = Node::start(&repository.path()).await;
    node.infer(add(1, 5, Place::First)).await.unwrap();
    let rows = raw("accumulator", input("x", "INT64", &[2, 1]), vec![0; 16]);
    let two = ParameterChoice::Int64Param(2);
    let hidden = {
        let mut request = add(1, 0, Place::Middle);
        request.inputs.push(input("kept", "FP32", &[1, 1]));
        request.raw_input_contents.push(vec![0; 4].into());
        request
    };
    let mut state = add(1, 0, Place::Middle);
    state.outputs = vec![
        jitney::proto::model_infer_request::InferRequestedOutputTensor {
            name: "kept_out".to_owned(),
            ..Default::default()
        },
    ];
    for (request, told) in [
        (add(2, 1, Place::Middle), "sequence 2: it has not begun"),
        (add(0, 1, Place::First), "parameter sequence_id has to name"),
        (add(-1, 1, Place::First), "\"sequence_id\" is neither"),
        (placed(rows, two, Place::First), "has 1 row, and 2 came"),
        (
            hidden,
            "there is no input \"kept\"; the model has x INT64 [-1,1]",
        ),
        (state, "there is no output \"kept_out\""),
        (
            placed(
                add(1, 1, Place::First),
                ParameterChoice::StringParam("a".to_owned()),
                Place::First,
            ),
            "sequence \"a\" has a correlation id that is not UINT64",
        ),
    ] {
        let status = node.infer(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(told), "{status:?}");
    }
    node.infer(add(1, POISON, Place::Last)).await.unwrap_err();
    assert_eq!(node.version("accumulator").live_sequences(), 1);
    let response = node.infer(add(1, 1, Place::Middle)).await.unwrap();
    assert_eq!(sum(&response), 6.0);
    // To start a sequence that goes on is to start it anew.
    node.infer(add(1, POISON, Place::First)).await.unwrap_err();
    let response = node.infer(add(1, 1, Place::Middle)).await.unwrap();
    assert_eq!(sum(&response), 7.0);
    let response = node.infer(add(1, 2, Place::First)).await.unwrap();
    assert_eq!(sum(&response), 2.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_falls_silent_ends() {
    let repository = accumulator("max_idle_ms = 1");
    let node = Node::start(&repository.path()).await;
    node.infer(add(1, 1, Place::First)).await.unwrap();
    within("the end of a silent sequence", async {
        loop {
            match node.infer(add(1, 0, Place::Middle)).await {
                Ok(response) => assert_eq!(sum(&response), 1.0),
                Err(status) => return assert_eq!(status.code(), Code::InvalidArgument),
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_waits_for_one() {
    let repository = accumulator("max_sequences = 1");
    let node = Node::start(&repository.path()).await;
    node.infer(add(1, 1, Place::First)).await.unwrap();
    let mut hurried = Request::new(add(2, 1, Place::First));
    hurried.set_timeout(std::time::Duration::from_millis(20));
    let status = node.client().model_infer(hurried).await.unwrap_err();
    // By the server's clock, or by the client's own.
    assert!(
        matches!(status.code(), Code::DeadlineExceeded | Code::Cancelled),
        "{status:?}"
    );
    let waiting = tokio::spawn(infer(node.client(), add(3, 4, Place::First)));
    node.infer(add(1, 1, Place::Middle)).await.unwrap();
    assert!(!waiting.is_finished());
    node.infer(add(1, 1, Place::Last)).await.unwrap();
    assert_eq!(sum(&waiting.await.unwrap().unwrap()), 4.0);
    assert_eq!(node.version("accumulator").live_sequences(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_makes_room_for_who_waits() {
    let repository = accumulator("max_sequences = 1\nmax_idle_ms = 30");
    let node = Node::start(&repository.path()).await;
    node.infer(add(1, 1, Place::First)).await.unwrap();
    // No request comes in between that could notice.
    let response = node.infer(add(2, 4, Place::First)).await.unwrap();
    assert_eq!(sum(&response), 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_has_an_end() {
    let repository = accumulator("max_sequences = 1");
    let own = std::fs::read_to_string(repository.folder("accumulator").join("model.toml")).unwrap();
    repository.configure("accumulator", &format!("max_queue_size = 1\n{own}"));
    let node = Node::start(&repository.path()).await;
    node.infer(add(1, 1, Place::First)).await.unwrap();
    let first = tokio::spawn(infer(node.client(), add(2, 1, Place::First)));
    // Whichever of the two comes second is refused.
    let second = tokio::spawn(infer(node.client(), add(3, 1, Place::First)));
    let refused = within("a refusal", async {
        tokio::select! { answer = first => answer, answer = second => answer }
    })
    .await;
    let status = refused.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(status.message().contains("max_queue_size"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_goes_away_does_not_hold_up_its_sequence() {
    let repository = accumulator("max_sequences = 1");
    let node = Node::start(&repository.path()).await;
    node.infer(add(1, 1, Place::First)).await.unwrap();
    for _ in 0..200 {
        // Wherever it is when its client goes: before its turn, in it, or answered.
        let call = tokio::spawn(infer(node.client(), add(1, 0, Place::Middle)));
        tokio::task::yield_now().await;
        call.abort();
        let waits = tokio::spawn(infer(node.client(), add(2, 0, Place::First)));
        tokio::task::yield_now().await;
        waits.abort();
    }
    let response = node.infer(add(1, 2, Place::Last)).await.unwrap();
    assert_eq!(sum(&response), 3.0);
    let version = node.version("accumulator");
    // One that was let in before it was known that its client had gone is a sequence as any other: it is
    // ended here. None may be held by who is gone.
    let gone = async {
        while version.live_sequences() > 0 {
            let _ = node.infer(add(2, 0, Place::Last)).await;
        }
    };
    within("those who left are gone", gone).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_goes_ends_its_sequences() {
    let repository = accumulator("max_sequences = 1");
    let node = Node::explicit(&repository, &["accumulator"]).await;
    node.infer(add(1, 1, Place::First)).await.unwrap();
    let old = node.version("accumulator");
    let before = Arc::strong_count(&old);
    let mut waiting = JoinSet::new();
    for id in 2..6 {
        waiting.spawn(infer(node.client(), add(id, 1, Place::First)));
    }
    // Each holds the version twice.
    until("all wait", || Arc::strong_count(&old) == before + 8).await;
    repository.add("accumulator", 2);
    node.load("accumulator").await.unwrap();
    while let Some(answer) = waiting.join_next().await {
        let status = answer.unwrap().unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status:?}");
        assert!(status.message().contains("begin anew"), "{status:?}");
    }
    assert_eq!(old.live_sequences(), 0);
    let status = node.infer(add(1, 1, Place::Middle)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let response = node.infer(add(1, 2, Place::First)).await.unwrap();
    assert_eq!(
        (sum(&response), response.model_version.as_str()),
        (2.0, "2")
    );
    node.unload("accumulator").await.unwrap();
    let status = node.infer(add(1, 1, Place::Middle)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_may_grow_from_nothing_up_to_its_bound() {
    let repository = Repository::new();
    repository.add("history", 1);
    let own = std::fs::read_to_string(made_models().join("history/model.toml")).unwrap();
    let own = own.replace("strategy", "max_state_bytes = 16\nstrategy");
    repository.configure("history", &own);
    let node = Node::start(&repository.path()).await;
    let send = |id: &str, number: f32, place| {
        let x = raw(
            "history",
            input("x", "FP32", &[1, 1]),
            bytes_of([number].into_iter()),
        );
        placed(x, ParameterChoice::StringParam(id.to_owned()), place)
    };
    let mut sent = Vec::new();
    for number in [1.0, 2.0, 3.0, 4.0] {
        let place = if sent.is_empty() {
            Place::First
        } else {
            Place::Middle
        };
        sent.push(number);
        let mut calls = JoinSet::new();
        for id in ["a", "b"] {
            calls.spawn(infer(node.client(), send(id, number, place)));
        }
        while let Some(answer) = calls.join_next().await {
            let answer = answer.unwrap().unwrap();
            assert_eq!(floats(&answer.raw_output_contents[0]), sent);
        }
    }
    let status = node.infer(send("a", 5.0, Place::Middle)).await.unwrap_err();
    assert!(
        status.message().contains("20 bytes where at most 16"),
        "{status:?}"
    );
    let answer = node.infer(send("long", 9.0, Place::Only)).await.unwrap();
    assert_eq!(floats(&answer.raw_output_contents[0]), [9.0]);
    assert_eq!(answer.raw_output_contents[1][..], *b"\x04\0\0\0long");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_shows_what_clients_send_and_config_the_rest() {
    let repository = accumulator("max_idle_ms = 2500");
    let node = Node::start(&repository.path()).await;
    let request = ModelMetadataRequest {
        name: "accumulator".to_owned(),
        ..ModelMetadataRequest::default()
    };
    let metadata = node
        .client()
        .model_metadata(request)
        .await
        .unwrap()
        .into_inner();
    let names = |tensors: &[jitney::proto::model_metadata_response::TensorMetadata]| {
        let names = tensors.iter().map(|tensor| tensor.name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(names(&metadata.inputs), ["x"]);
    assert_eq!(names(&metadata.outputs), ["sum", "told", "corrid"]);
    let config = node.config("accumulator").await;
    assert_eq!(config.input.len(), 1);
    let Some(SchedulingChoice::SequenceBatching(batching)) = config.scheduling_choice else {
        panic!("{config:?}");
    };
    assert_eq!(batching.max_sequence_idle_microseconds, 2_500_000);
    let told: Vec<_> = batching
        .control_input
        .iter()
        .map(|one| &one.control[0])
        .collect();
    assert_eq!(told[0].int32_false_true, [0, 1]);
    assert_eq!(told[1].bool_false_true, [false, true]);
    assert_eq!(told[2].fp32_false_true, [0.0, 1.0]);
    assert_eq!(told[3].data_type().as_str_name(), "TYPE_UINT64");
    assert_eq!(batching.state[0].input_name, "kept");
    assert_eq!(batching.state[0].dims, [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stateless_model_does_not_hear_of_sequences() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let node = Node::start(&repository.path()).await;
    let request = super::request::sequence(&[1.0, 2.0]);
    let request = placed(request, ParameterChoice::Int64Param(9), Place::Middle);
    let answer = node.infer(request).await.unwrap();
    super::request::assert_doubled(&answer, &[1.0, 2.0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_the_model_is_not_served() {
    let repository = accumulator("");
    let node = Node::explicit(&repository, &["accumulator"]).await;
    for (table, told) in [
        (
            "controls = [{ input = \"GO\", kind = \"start\" }]",
            "no input \"GO\"",
        ),
        (
            "controls = [{ input = \"START\", kind = \"corrid\" }, { input = \"x\", kind = \"corrid\" }]",
            "told what another",
        ),
        (
            "states = [{ input = \"kept\", output = \"told\" }]",
            "one type and shape",
        ),
        (
            "states = [{ input = \"kept\", output = \"kept_out\", initial_file = \"h0\" }]",
            "h0",
        ),
    ] {
        repository.configure("accumulator", &format!("[sequence]\n{table}\n"));
        let status = node.load("accumulator").await.unwrap_err();
        assert!(status.message().contains("[sequence]"), "{status:?}");
        assert!(status.message().contains(told), "{status:?}");
    }
}
