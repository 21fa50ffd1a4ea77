//! REST against a bare echo over HTTP, and against our own gRPC.

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::http::HeaderName;
use axum::routing::post;
use axum::serve::ListenerExt;
use jitney_load::{Protocol, Recording};
use tokio::net::TcpListener;

use super::drive::ClosedLoop;
use super::processes::{Process, jitney_with_rest};
use super::requests::{identity, tiny};
use super::table::{Row, Table};
use super::{ROUNDS, closed, folder};

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let server = jitney_with_rest(&folder("tests/models"))?;
    let echo = Process::echo_of_rest()?;
    let over = |address: &str, protocol, in_flight, connections| ClosedLoop {
        protocol,
        ..closed(address, connections, in_flight)
    };
    let bare = over(&echo.address, Protocol::Rest, 64, 1);
    let ours = over(&server.address, Protocol::Rest, 64, 1);
    let pairs = in_turn(&bare, &ours, tiny()).await?;
    let what = "REST, tiny model, 64 in flight: requests/s as a share of a bare axum echo";
    table.add(Row::share(what, &pairs, "0.8"));
    let large = || identity(600 * 1024 / 4);
    let grpc = over(&server.address, Protocol::Grpc, 8, 4);
    let rest = over(&server.address, Protocol::Rest, 8, 1);
    let pairs = in_turn(&grpc, &rest, large()).await?;
    let what =
        "REST, 600 KiB identity, 8 in flight: requests/s as a share of our gRPC over 4 connections";
    table.add(Row::share(what, &pairs, "0.8"));
    Ok(())
}

async fn in_turn(
    first: &ClosedLoop,
    second: &ClosedLoop,
    request: jitney_load::proto::ModelInferRequest,
) -> anyhow::Result<Vec<(Recording, Recording)>> {
    let requests = [request];
    let mut pairs = Vec::new();
    for _ in 0..ROUNDS {
        pairs.push((first.run(&requests).await?, second.run(&requests).await?));
    }
    Ok(pairs)
}

/// Answers every request as the tiny model would, under its id, and does nothing else.
pub(crate) fn echo() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("gRPC on {}", listener.local_addr()?);
            println!("ready");
            let listener = listener.tap_io(|stream| {
                let _ = stream.set_nodelay(true);
            });
            let routes = Router::new().route("/v2/models/{model}/infer", post(tiny_answer));
            axum::serve(listener, routes).await.context("the echo")
        })
}

async fn tiny_answer(body: Bytes) -> ([(HeaderName, String); 1], Vec<u8>) {
    // What the load generator sends begins {"id":"7",.
    let id = body
        .get(7..)
        .unwrap_or_default()
        .split(|byte| *byte == b'"');
    let id = String::from_utf8_lossy(id.into_iter().next().unwrap_or_default()).into_owned();
    let mut answer = format!(
        r#"{{"id":"{id}","model_name":"tiny_mlp","model_version":"1","outputs":[{{"name":"y","datatype":"FP32","shape":[1,4],"parameters":{{"binary_data_size":16}}}}]}}"#
    )
    .into_bytes();
    let length = HeaderName::from_static("inference-header-content-length");
    let header = [(length, answer.len().to_string())];
    answer.extend([0; 16]);
    (header, answer)
}
