//! Workers, devices, memory and repositories that fail, and are well again.

use std::fs;
use std::time::Duration;

use jitney::proto::{ModelConfigRequest, ModelStatisticsRequest, RepositoryIndexRequest};
use rustix::process::Signal;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::extent;
use super::repository::{Repository, Simulated};
use super::request::rows;
use super::server::Server;
use super::within;
use super::witness::{Tally, Witness};

/// Workers, none of whose deaths is counted with another: none is waited for.
const WORKERS: [&str; 4] = ["--isolation", "process", "--worker-death-window-ms", "1"];

/// Threads for files beside the two that there usually are.
const LOOKERS: usize = 4;

/// Requests that a server has answered.
async fn succeeded(server: &Server) -> u64 {
    let request = ModelStatisticsRequest {
        name: "m".to_owned(),
        ..ModelStatisticsRequest::default()
    };
    let mut client = server.client();
    let answer = within("statistics", client.model_statistics(request));
    let answer = answer.await.unwrap();
    let statistics = answer.into_inner().model_stats.remove(0).inference_stats;
    statistics.unwrap().success.unwrap().count
}

/// Deals the worker a signal `times` times, with so many clients. How long it took at most until each of
/// them was answered again.
async fn deal(server: &Server, signal: Signal, times: usize, clients: usize) -> (usize, Duration) {
    let before = succeeded(server).await;
    let witness = Witness::begin(server, clients);
    let mut longest = Duration::ZERO;
    for _ in 0..times {
        witness.sees(4 * clients).await;
        let worker = server.deal_worker(signal).await;
        let began = Instant::now();
        // Answers of the dead one are of those that were asked before, one for each client.
        witness.sees(2 * clients).await;
        longest = longest.max(began.elapsed());
        assert_ne!(server.worker().await, worker);
    }
    let tally = witness.tells().await;
    tally.assert_all_right();
    // It counts an answer after it is gone; none was given twice.
    let expected = before + tally.right as u64;
    within("each answer is counted", async {
        while succeeded(server).await < expected {}
    })
    .await;
    assert_eq!(succeeded(server).await, expected);
    (tally.right, longest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_at_full_load_costs_no_answer() {
    let times = extent(3, 50);
    let repository = Repository::of("max_batch_size = 8", "fixed_ms = 2");
    let server = Server::start(&repository.path(), &WORKERS);
    let before = server.rests_after(2000).await;
    let (right, longest) = deal(&server, Signal::KILL, times, 64).await;
    let after = server.settles(before).await;
    println!(
        "chaos: worker killed {times} times at full load: all {right} right, each once; at most {longest:?} until all \
         64 clients were answered again; {before:?}, {after:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_hangs_costs_no_answer() {
    let times = extent(2, 10);
    let repository = Repository::of("max_batch_size = 8", "fixed_ms = 2");
    let flags = [&WORKERS[..], &["--executor-timeout-ms", "2000"]].concat();
    let server = Server::start(&repository.path(), &flags);
    let before = server.rests_after(2000).await;
    let (right, longest) = deal(&server, Signal::STOP, times, 16).await;
    let after = server.settles(before).await;
    println!(
        "chaos: worker hung {times} times, of whose runs none may take more than 2 s: all {right} right, each once; at \
         most {longest:?} until all 16 clients were answered again; {before:?}, {after:?}"
    );
}

/// Asks until it is answered so, and gives how long that took.
async fn until(
    server: &Server,
    what: &str,
    holds: impl Fn(&Result<(), Status>) -> bool,
) -> Duration {
    let began = Instant::now();
    let mut client = server.client();
    within(what, async {
        loop {
            let answer = client.model_infer(rows("m", 1, 1)).await;
            if holds(&answer.map(|_| ())) {
                break;
            }
        }
    })
    .await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_lost_is_told_of_until_it_is_back() {
    let times = extent(3, 20);
    for flags in [&WORKERS[..], &[]] {
        let repository = Repository::new();
        let lost = repository.beside("lost");
        let model = Simulated {
            policy: "max_batch_size = 8",
            instances: "[[instances]]\ndevice = \"simulated:0\"",
            simulated: &format!("fixed_ms = 2\nlost_while_exists = {lost:?}"),
        };
        repository.simulate("m", model);
        let server = Server::start(&repository.path(), flags);
        let before = server.rests_after(2000).await;
        let witness = Witness::begin(&server, 16);
        let (mut told, mut back) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..times {
            witness.sees(64).await;
            fs::write(&lost, "").unwrap();
            told = told.max(until(&server, "the loss is told", Result::is_err).await);
            fs::remove_file(&lost).unwrap();
            back = back.max(until(&server, "it is back", Result::is_ok).await);
        }
        witness.sees(64).await;
        let tally = witness.tells().await;
        // Another server may run them.
        let unavailable = tally.of(Code::Unavailable);
        assert_eq!(
            tally.codes.values().sum::<usize>(),
            unavailable,
            "{tally:?}"
        );
        let after = server.settles(before).await;
        println!(
            "chaos: device lost {times} times ({}): {} right, {unavailable} told UNAVAILABLE; told after at most \
             {told:?}, back after at most {back:?}; {before:?}, {after:?}",
            flags.get(1).unwrap_or(&"thread"),
            tally.right
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_a_devices_memory_is_told_alone() {
    let many = extent(200, 10_000);
    // Five rows fit, and batches of up to eight are put together until that is known.
    let repository = Repository::new();
    let model = Simulated {
        policy: "max_batch_size = 8",
        instances: "[[instances]]\ndevice = \"simulated:0\"",
        simulated: "fixed_ms = 1\ndevice_memory_bytes = 100\nmemory_per_row_bytes = 20",
    };
    repository.simulate("m", model);
    let server = Server::start(&repository.path(), &[]);
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 16);
    let mut client = server.client();
    for seed in 0..many {
        let large = within("an answer", client.model_infer(rows("m", seed, 6))).await;
        let told = large.unwrap_err();
        assert_eq!(told.code(), Code::ResourceExhausted, "{told:?}");
    }
    drop(client);
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    println!(
        "chaos: {many} requests that do not fit into a device's memory: each told, {} others right, the slowest {:?}; \
         {before:?}, {after:?}",
        tally.right, tally.slowest
    );
}

/// Why the repository's index says that models do not serve.
async fn reasons(server: &Server) -> String {
    let request = RepositoryIndexRequest::default();
    let answer = server.client().repository_index(request).await.unwrap();
    let models = answer.into_inner().models;
    models
        .into_iter()
        .map(|entry| entry.reason + "\n")
        .collect()
}

/// Breaks and mends a simulated model's `model.toml`, and a version of a model in a file, as often as this.
async fn break_and_mend(server: &Server, repository: &Repository, times: usize) -> Tally {
    let text = |rows: usize| {
        let policy = format!("max_batch_size = {rows}");
        let model = Simulated {
            policy: &policy,
            simulated: "fixed_ms = 1",
            ..Simulated::default()
        };
        model.text()
    };
    let witness = Witness::begin(server, 16);
    for round in 0..times {
        repository.configure("m", "max_batch_size = 0\nversion = 3");
        repository.add_file("add_sub", 2, b"no model");
        within("both are told", async {
            loop {
                let told = reasons(server).await;
                if told.contains("toml:1: max_batch_size") && told.contains("model.onnx") {
                    break;
                }
            }
        })
        .await;
        witness.sees(64).await;
        fs::remove_dir_all(repository.folder("add_sub").join("2")).unwrap();
        let rows = 4 + round % 2;
        repository.configure("m", &text(rows));
        let request = ModelConfigRequest {
            name: "m".to_owned(),
            ..ModelConfigRequest::default()
        };
        within("it is mended", async {
            loop {
                let answer = server.client().model_config(request.clone()).await;
                let config = answer.unwrap().into_inner().config.unwrap();
                if config.max_batch_size == rows as i32 {
                    break;
                }
            }
        })
        .await;
    }
    witness.sees(64).await;
    let tally = witness.tells().await;
    tally.assert_all_right();
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_broken_serves_what_it_did_until_it_is_mended() {
    let times = extent(3, 20);
    let repository = Repository::of("max_batch_size = 8", "fixed_ms = 1");
    repository.add("add_sub", 1);
    let flags = ["--model-control", "watch", "--watch-interval-ms", "50"];
    let server = Server::start(&repository.path(), &flags);
    let mut before = server.rests_after(2000).await;
    // Those that look at files stay as many as there ever were at once: they have something to do 20 times a second.
    before.threads += LOOKERS;
    // What is not optimized has some memory with each.
    let before = before.with_more(extent(LOOKERS * 1024, 0) as u64);
    let tally = break_and_mend(&server, &repository, times).await;
    let after = server.settles(before).await;
    println!(
        "chaos: model.toml and a model's file broken and mended {times} times under watch: all {} right, the slowest \
         {:?}; {before:?}, {after:?}",
        tally.right, tally.slowest
    );
}
