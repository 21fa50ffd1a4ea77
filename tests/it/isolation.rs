//! Models in processes of their own: whatever becomes of those, the server and its other models go on.

use jitney::backend::Cause;
use jitney::clock::{Clock, Moment, MonotonicClock};
use jitney::config::RawServer;
use jitney::proto::ModelInferRequest;
use rustix::process::Signal;
use tonic::Code;

use super::metrics::{scrape, value};
use super::node::{Client, Node, infer, until};
use super::occupant::{Occupant, enqueue};
use super::repository::{Repository, Simulated};
use super::request::{assert_doubled, assert_echo, bytes_of, input, raw, rows, sequence};
use super::traffic::{CLIENTS, Traffic};
use super::workers::{Isolated, deaths, is_there, signal};

fn simulated(policy: &str, simulated: &str) -> Repository {
    let repository = Repository::new();
    let model = Simulated {
        policy,
        instances: "[[instances]]\ncount = 2\ndevice = \"simulated:0\"",
        simulated,
    };
    repository.simulate("m", model);
    repository
}

async fn echoes(node: &Node, seed: usize) {
    let sent = rows("m", seed, 1);
    assert_echo(&node.infer(sent.clone()).await.unwrap(), &sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_killed_under_load_costs_no_answer() {
    let repository = simulated("max_batch_size = 4", "fixed_ms = 2");
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), isolated.settings()).await;
    let mut traffic = Traffic::start(&node, rows("m", 7, 1), assert_echo);
    for life in 1..=3 {
        traffic.flows(100).await;
        let clock = MonotonicClock::start();
        isolated.kill().await;
        traffic.flows(2 * CLIENTS).await;
        // A figure, not a claim: docs/reliability.md has it.
        println!(
            "{:?} from the signal to answers for all",
            clock.now().since(Moment::ORIGIN)
        );
        traffic.flows(100).await;
        assert_eq!(deaths(&node, "m", Cause::Killed), life);
    }
    traffic.stops().await;
    let requests = node.statistics("m").await.inference_stats.unwrap();
    assert_eq!(requests.fail.unwrap().count, 0);
    let version = node.version("m");
    until("both are back", || version.executors_alive() == 2).await;
    assert!(node.is_ready("m", "").await);
    let told = scrape(&node, "*/*").await.1;
    let killed = r#"model="m",version="1",device="simulated:0",reason="killed""#;
    let killed = format!("jitney_worker_deaths_total{{{killed}}}");
    assert_eq!(value(&told, &killed), Some(3.0));
    let out = r#"jitney_version_taken_out{model="m",version="1"}"#;
    assert_eq!(value(&told, out), Some(0.0));
}

/// Four requests travel together, and one of them is the end of the worker.
async fn poisoned(poison: &str, settings: RawServer, cause: Cause) {
    let repository = Repository::of("max_batch_size = 4", poison);
    repository.add("add_sub", 1);
    let node = Node::with(&repository.path(), settings).await;
    let busy = Occupant::of(&node, "m", 4).await;
    let waiting = enqueue(&node, [10, 11, 12, 13].map(|seed| rows("m", seed, 1))).await;
    busy.leaves().await;
    for (sent, answer) in waiting.join_all().await {
        if sent == rows("m", 13, 1) {
            assert_eq!(answer.unwrap_err().code(), Code::Internal);
        } else {
            assert_echo(&answer.unwrap(), &sent);
        }
    }
    // Once with the others, and once alone; whoever is told of it is told before it is counted.
    until("both deaths are counted", || deaths(&node, "m", cause) == 2).await;
    echoes(&node, 1).await;
    assert!(node.is_ready("add_sub", "").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_crashes_a_worker_twice_fails_alone() {
    let settings = Isolated::new().settings();
    poisoned("abort_on = 13000", settings, Cause::Crashed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_a_worker_hang_twice_fails_alone() {
    let settings = RawServer {
        executor_timeout_ms: Some("8000".to_owned()),
        ..Isolated::new().settings()
    };
    poisoned("hang_on = 13000", settings, Cause::Hung).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_makes_a_worker_panic_twice_fails_alone() {
    let settings = Isolated::new().settings();
    poisoned("panic_on = 13000", settings, Cause::Crashed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_stopped_goes_on_where_it_was() {
    let repository = simulated("max_batch_size = 4", "");
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), isolated.settings()).await;
    let worker = isolated.worker();
    signal(worker, Signal::STOP);
    let version = node.version("m");
    let sent = rows("m", 1, 1);
    let answer = tokio::spawn(infer(node.client(), sent.clone()));
    let runs = || version.demand().unwrap().offered == 1 && version.queued() == 0;
    until("the request is with the worker", runs).await;
    assert!(!answer.is_finished());
    signal(worker, Signal::CONT);
    assert_echo(&answer.await.unwrap().unwrap(), &sent);
    assert_eq!(isolated.worker(), worker);
    assert!(version.casualties().deaths.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stays_stopped_is_replaced() {
    let repository = simulated("max_batch_size = 4", "");
    let isolated = Isolated::new();
    let settings = RawServer {
        executor_timeout_ms: Some("4000".to_owned()),
        ..isolated.settings()
    };
    let node = Node::with(&repository.path(), settings).await;
    let worker = isolated.worker();
    signal(worker, Signal::STOP);
    echoes(&node, 1).await;
    assert!(!is_there(worker));
    assert_eq!(deaths(&node, "m", Cause::Hung), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_is_lost_is_looked_for_in_a_new_worker() {
    let repository = Repository::new();
    let lost = repository.beside("lost");
    let model = Simulated {
        policy: "",
        instances: "[[instances]]\ndevice = \"simulated:0\"",
        simulated: &format!("lost_while_exists = {lost:?}"),
    };
    repository.simulate("m", model);
    let node = Node::with(&repository.path(), Isolated::new().settings()).await;
    let mut model = node.health("m").await;
    model.until(true).await;
    echoes(&node, 1).await;
    std::fs::write(&lost, "").unwrap();
    let sent = node.infer(rows("m", 2, 1)).await.unwrap_err();
    assert_eq!(sent.code(), Code::Unavailable);
    model.until(false).await;
    assert_eq!(deaths(&node, "m", Cause::DeviceLost), 1);
    std::fs::remove_file(&lost).unwrap();
    model.until(true).await;
    echoes(&node, 3).await;
}

/// A server that leaves a model alone at the second death.
fn strict(isolated: &Isolated, rest_ms: usize) -> RawServer {
    RawServer {
        max_worker_deaths: Some("2".to_owned()),
        worker_rest_ms: Some(rest_ms.to_string()),
        model_control: Some("explicit".to_owned()),
        load_model: vec!["m".to_owned(), "add_sub".to_owned()],
        ..isolated.settings()
    }
}

async fn is_taken_out(node: &Node) {
    // The poison: its worker dies, and again when it is alone.
    let poison = node.infer(rows("m", 13, 1)).await.unwrap_err();
    assert_eq!(poison.code(), Code::Internal);
    node.changes_until("m is out", || async { !node.is_ready("m", "").await })
        .await;
    let entry = node.index_of("m", "1").await.unwrap();
    assert_eq!(entry.state, "UNAVAILABLE");
    assert!(
        entry.reason.contains("taken out: 2 of its workers died"),
        "{entry:?}"
    );
    assert!(node.is_ready("add_sub", "").await);
    let out = r#"jitney_version_taken_out{model="m",version="1"}"#;
    assert_eq!(value(&scrape(node, "*/*").await.1, out), Some(1.0));
    let refused = node.infer(rows("m", 1, 1)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains("taken out"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_keeps_killing_its_worker_is_out_until_it_is_loaded_again() {
    let repository = simulated("max_batch_size = 4", "abort_on = 13000");
    repository.add("add_sub", 1);
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), strict(&isolated, 3_600_000)).await;
    is_taken_out(&node).await;
    let own = || isolated.workers().len() == 1;
    until("no worker but the other model's is left", own).await;
    node.load("m").await.unwrap();
    assert!(node.is_ready("m", "").await);
    assert_eq!(node.index_of("m", "1").await.unwrap().state, "READY");
    echoes(&node, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_rest_it_is_on_probation() {
    let repository = simulated("max_batch_size = 4", "abort_on = 13000");
    repository.add("add_sub", 1);
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), strict(&isolated, 5_000)).await;
    is_taken_out(&node).await;
    node.until_ready("m", "").await;
    echoes(&node, 1).await;
    let poison = node.infer(rows("m", 13, 1)).await.unwrap_err();
    assert_eq!(poison.code(), Code::Unavailable);
    assert_eq!(deaths(&node, "m", Cause::Crashed), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_whose_worker_dies_as_it_loads_is_not_served() {
    let repository = simulated("", "");
    let settings = RawServer {
        worker_executable: Some("/bin/false".into()),
        ..Isolated::new().settings()
    };
    let node = Node::with(&repository.path(), settings).await;
    let entry = node.index_of("m", "1").await.unwrap();
    assert_eq!(entry.state, "UNAVAILABLE");
    assert!(entry.reason.contains("exited with 1"), "{entry:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_hangs_as_it_loads_is_not_served() {
    let repository = simulated("", "load_ms = 3600000");
    let isolated = Isolated::new();
    let settings = RawServer {
        worker_load_timeout_ms: Some("300".to_owned()),
        ..isolated.settings()
    };
    let node = Node::with(&repository.path(), settings).await;
    let entry = node.index_of("m", "1").await.unwrap();
    assert!(
        entry.reason.contains("no answer within 300 ms"),
        "{entry:?}"
    );
    assert!(isolated.workers().is_empty());
}

/// What is sent for shapes and sizes that travel in different ways.
fn sizes() -> Vec<Vec<f32>> {
    let sizes = [0, 1, 33, 4_000, 5_000, 65_537, 300_000];
    let numbers = |size| (0..size).map(|number| (number % 97) as f32).collect();
    sizes.into_iter().map(numbers).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn onnx_runtime_answers_right_from_a_worker() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    repository.add("string_identity", 1);
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), isolated.settings()).await;
    for _ in 0..2 {
        for numbers in sizes() {
            let answer = node.infer(sequence(&numbers)).await.unwrap();
            assert_doubled(&answer, &numbers);
        }
    }
    // Answers are kept while others are made, and their memory is not written meanwhile.
    let large: Vec<f32> = (0..50_000).map(|number| (number % 89) as f32).collect();
    let together = (0..64).map(|_| infer(node.client(), sequence(&large)));
    for answer in futures_util::future::join_all(together).await {
        assert_doubled(&answer.unwrap(), &large);
    }
    let words = ["", "a", "\u{0}b\u{ff}"].map(str::as_bytes);
    let data: Vec<u8> = words
        .iter()
        .flat_map(|word| [&(word.len() as u32).to_le_bytes(), *word].concat())
        .collect();
    let name = node.version("string_identity").signature.inputs[0]
        .name
        .clone();
    let sent = raw(
        "string_identity",
        input(&name, "BYTES", &[3, 1]),
        data.clone(),
    );
    let sent = ModelInferRequest {
        inputs: vec![input(&name, "BYTES", &[3, 1])],
        ..sent
    };
    let answer = node.infer(sent).await;
    assert_eq!(answer.unwrap().raw_output_contents[0], data);
    assert_eq!(isolated.workers().len(), 2);
}

/// Rows of four, more than a message carries, of which the model gives as many columns as the largest says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_that_lies_about_its_outputs_is_answered_right_from_a_worker() {
    let repository = Repository::new();
    repository.add("misdeclared", 1);
    repository.configure("misdeclared", "batch_axis = \"none\"");
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), isolated.settings()).await;
    for columns in [4, 4, 3, 3, 4, 2] {
        let numbers = (0..8_000).map(|number| (number % 4 + 1).min(columns) as f32);
        let sent = raw(
            "misdeclared",
            input("x", "FP32", &[2_000, 4]),
            bytes_of(numbers.clone()),
        );
        let answer = node.infer(sent).await.unwrap();
        assert_eq!(answer.outputs[0].shape, [2_000, columns]);
        let rows: Vec<f32> = numbers.collect();
        let kept = rows
            .chunks(4)
            .flat_map(|row| row[..columns as usize].iter().copied());
        assert!(answer.raw_output_contents[0] == bytes_of(kept), "{columns}");
    }
    assert!(node.version("misdeclared").casualties().deaths.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_worker_of_onnx_runtime_is_replaced() {
    let repository = Repository::new();
    repository.add("variable_shape", 1);
    let isolated = Isolated::new();
    let node = Node::with(&repository.path(), isolated.settings()).await;
    let numbers = [1.0, 2.0, 3.0];
    for _ in 0..2 {
        assert_doubled(&node.infer(sequence(&numbers)).await.unwrap(), &numbers);
        isolated.kill().await;
    }
    assert_doubled(&node.infer(sequence(&numbers)).await.unwrap(), &numbers);
    assert_eq!(deaths(&node, "variable_shape", Cause::Killed), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unloaded_model_leaves_no_worker() {
    let repository = simulated("", "");
    let isolated = Isolated::new();
    let settings = RawServer {
        model_control: Some("explicit".to_owned()),
        load_model: vec!["m".to_owned()],
        ..isolated.settings()
    };
    let node = Node::with(&repository.path(), settings).await;
    isolated.worker();
    node.unload("m").await.unwrap();
    until("its worker ends", || isolated.workers().is_empty()).await;
}

#[test]
fn a_server_that_is_killed_takes_its_workers_with_it() {
    let repository = simulated("", "");
    repository.add("add_sub", 1);
    let isolated = Isolated::new();
    let (mut server, _) = isolated.spawn(&repository.path(), &[]);
    let workers = isolated.workers();
    assert_eq!(workers.len(), 2);
    // One that is stopped notices nothing by itself.
    signal(workers[0], Signal::STOP);
    server.kill().unwrap();
    server.wait().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(until("its workers end", || isolated.workers().is_empty()));
}

/// Descriptors, threads and memory that is shared, of a process.
fn held(process: u32) -> (usize, usize, usize) {
    let count = |what: &str| {
        std::fs::read_dir(format!("/proc/{process}/{what}"))
            .unwrap()
            .count()
    };
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let shared = maps.lines().filter(|line| line.contains("memfd:jitney"));
    (count("fd"), count("task"), shared.count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_deaths_leave_nothing_behind() {
    let repository = simulated("max_batch_size = 4", "");
    let isolated = Isolated::new();
    // No two of them count together, so that none is waited for.
    let flags = ["--worker-death-window-ms", "1"];
    let (mut server, address) = isolated.spawn(&repository.path(), &flags);
    let client = Client::connect(format!("http://{address}")).await.unwrap();
    // Large enough for memory of its own on the way back, too.
    let numbers: Vec<f32> = (0..50_000).map(|number| number as f32).collect();
    let data = bytes_of(numbers.into_iter());
    let sent = raw("m", input("x", "FP32", &[1, 50_000]), data);
    // What the executors have for their tensors is made when they first have some.
    let mut first = (0, 0, 0);
    for round in 0..50 {
        let answers = (0..8).map(|_| infer(client.clone(), sent.clone()));
        for answer in futures_util::future::join_all(answers).await {
            assert_echo(&answer.unwrap(), &sent);
        }
        if round < 10 {
            let now = held(server.id());
            first = (first.0.max(now.0), first.1.max(now.1), first.2.max(now.2));
        }
        isolated.kill().await;
        until("another is there", || !isolated.workers().is_empty()).await;
    }
    assert_echo(&infer(client.clone(), sent.clone()).await.unwrap(), &sent);
    let no_more = || {
        let now = held(server.id());
        now.0 <= first.0 && now.1 <= first.1 && now.2 <= first.2
    };
    until("nothing is left of the dead", no_more).await;
    server.kill().unwrap();
    server.wait().unwrap();
    until("its workers end", || isolated.workers().is_empty()).await;
}
