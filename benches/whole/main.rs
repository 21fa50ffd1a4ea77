//! The whole server against what it is built on: `make bench`.
//!
//! Each figure is a ratio within one run, the two sides measured in turn, because the machines that
//! run this are shared and noisy. The echo answers the same messages over the same transport with
//! the same allocator and does nothing else, so it is the ceiling of any server made with it.

mod deadlines;
mod devices;
mod direct;
mod drive;
mod echo;
mod ensemble;
mod isolation;
mod lengths;
mod processes;
mod requests;
mod rest;
mod shared;
mod table;
mod traces;
mod weights;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use jitney_load::{Protocol, Recording};

use direct::direct_rates;
use drive::ClosedLoop;
use processes::{Process, jitney};
use requests::{embedding, identity, tiny};
use table::{Row, Table};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Turns that each side takes.
const ROUNDS: usize = 7;
const WARM_UP: Duration = Duration::from_millis(500);
const DURATION: Duration = Duration::from_secs(3);

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let role: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    match role.as_slice() {
        ["echo"] => echo::serve(),
        ["echo-rest"] => rest::echo(),
        ["receiver"] => traces::receive(),
        ["direct", model] => direct::run(model),
        ["oracle", model] => direct::oracle(model),
        ["bare", model] => direct::bare(model),
        ["drive", address, connections, in_flight] => {
            drive(address, connections.parse()?, in_flight.parse()?)
        }
        // cargo passes --bench; names choose what is measured.
        names => measure(names),
    }
}

fn measure(names: &[&str]) -> anyhow::Result<()> {
    let all = names.iter().all(|name| name.starts_with('-'));
    let chosen = |name: &str| all || names.contains(&name);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(async {
            let mut table = Table::default();
            if chosen("overhead") {
                overhead(&mut table).await?;
            }
            if chosen("large") {
                large(&mut table).await?;
            }
            if chosen("rest") {
                rest::measure(&mut table).await?;
            }
            if chosen("shared") {
                shared::measure(&mut table).await?;
            }
            if chosen("idle") {
                idle(&mut table).await?;
            }
            if chosen("batching") {
                batching(&mut table).await?;
            }
            if chosen("lengths") {
                lengths::measure(&mut table).await?;
            }
            if chosen("deadlines") {
                deadlines::measure(&mut table).await?;
            }
            if chosen("devices") {
                devices::measure(&mut table).await?;
            }
            if chosen("ensemble") {
                ensemble::measure(&mut table).await?;
            }
            if chosen("isolation") {
                isolation::measure(&mut table).await?;
            }
            if chosen("traces") {
                traces::measure(&mut table).await?;
            }
            if chosen("weights") {
                weights::measure(&mut table).await?;
            }
            if chosen("start") {
                start(&mut table)?;
            }
            table.print();
            Ok(())
        })
}

/// Sends the tiny model's requests to a server that is running, for a profiler to look at.
fn drive(address: &str, connections: usize, in_flight: usize) -> anyhow::Result<()> {
    let measured = tokio::runtime::Runtime::new()?
        .block_on(closed(address, connections, in_flight).run(&[tiny()]))?;
    println!("{:.0}/s", measured.rate());
    Ok(())
}

fn folder(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn closed(address: &str, connections: usize, in_flight: usize) -> ClosedLoop {
    ClosedLoop {
        address: address.to_owned(),
        protocol: Protocol::Grpc,
        connections,
        in_flight,
        warm_up: WARM_UP,
        duration: DURATION,
    }
}

/// Runs both sides in turn and gives the pairs, ours second.
async fn in_turn(
    request: &jitney_load::proto::ModelInferRequest,
    connections: usize,
    in_flight: usize,
) -> anyhow::Result<Vec<(Recording, Recording)>> {
    let echo = Process::echo()?;
    let server = jitney(&folder("tests/models"))?;
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        let bare = closed(&echo.address, connections, in_flight)
            .run(std::slice::from_ref(request))
            .await?;
        let ours = closed(&server.address, connections, in_flight)
            .run(std::slice::from_ref(request))
            .await?;
        pairs.push((bare, ours));
    }
    Ok(pairs)
}

fn counted(connections: usize) -> String {
    match connections {
        1 => "1 connection".to_owned(),
        several => format!("{several} connections"),
    }
}

async fn overhead(table: &mut Table) -> anyhow::Result<()> {
    for (connections, in_flight) in [(1, 64), (4, 64)] {
        let pairs = in_turn(&tiny(), connections, in_flight).await?;
        table.add(Row::share(
            &format!(
                "tiny model, {in_flight} in flight over {}: requests/s as a share of a bare echo",
                counted(connections)
            ),
            &pairs,
            "0.8",
        ));
    }
    Ok(())
}

async fn large(table: &mut Table) -> anyhow::Result<()> {
    for connections in [1, 4] {
        let pairs = in_turn(&identity(600 * 1024 / 4), connections, 8).await?;
        table.add(Row::share(
            &format!(
                "600 KiB identity, 8 in flight over {}: requests/s as a share of a bare echo",
                counted(connections)
            ),
            &pairs,
            "0.85",
        ));
    }
    Ok(())
}

async fn idle(table: &mut Table) -> anyhow::Result<()> {
    let pairs = in_turn(&tiny(), 1, 1).await?;
    table.add(Row::added_median(
        "tiny model, 1 in flight: p50 over a bare echo's",
        &pairs,
        "under 100 us",
    ));
    Ok(())
}

async fn batching(table: &mut Table) -> anyhow::Result<()> {
    let model = folder("examples/models/minilm/1/model.onnx");
    if !model.exists() {
        table.add(Row::note("MiniLM: not measured, `make minilm` builds it"));
        return Ok(());
    }
    let server = jitney(&folder("examples/models"))?;
    let request = embedding(32);
    let mut shares = Vec::new();
    let mut rates = Vec::new();
    for _ in 0..3 {
        let direct = direct_rates(&model)?;
        let best = direct
            .iter()
            .copied()
            .map(|(_, rate)| rate)
            .fold(0.0, f64::max);
        let ours = ClosedLoop {
            duration: Duration::from_secs(10),
            warm_up: Duration::from_secs(2),
            ..closed(&server.address, 1, 64)
        };
        let ours = ours.run(std::slice::from_ref(&request)).await?.rate();
        shares.push(ours / best);
        rates.push((best, ours));
    }
    table.add(Row::shares(
        "MiniLM, 32 tokens, 64 in flight: rows/s as a share of ONNX Runtime called directly at its best batch size",
        shares,
        &rates,
        "0.95",
    ));
    Ok(())
}

fn start(table: &mut Table) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut memory = Vec::new();
    let repository = tempfile::tempdir()?;
    let version = repository.path().join("digits/1");
    std::fs::create_dir_all(&version)?;
    let model = folder("examples/models/digits/1/model.onnx");
    std::fs::copy(&model, version.join("model.onnx")).context("the digits model is missing")?;
    for _ in 0..ROUNDS {
        let server = jitney(repository.path())?;
        let bare = Process::bare(&model)?;
        times.push(server.ready_after);
        memory.push((server.resident_kibibytes()?, bare.resident_kibibytes()?));
    }
    table.add(Row::start(times, memory));
    Ok(())
}
