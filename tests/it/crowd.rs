//! More connections than there are places: whom nobody needs makes room, and no call is ended for it.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::SendRequest;
use jitney::config::RawServer;
use tokio::net::TcpStream;

use super::http::{Wire, assert_echo, get, post, row};
use super::node::{Node, infer, until, within};
use super::occupant::Gate;
use super::repository::Repository;
use super::request::{assert_echo as assert_echoed, rows};

const NUMBERS: [f32; 2] = [1.5, 2.5];

/// A server with so many places, of which the test's own client has one.
async fn node(places: usize, simulated: &str) -> (Repository, Node) {
    let repository = Repository::of("max_batch_size = 1", simulated);
    let settings = RawServer {
        max_connections: Some(places.to_string()),
        ..RawServer::default()
    };
    let node = Node::with(&repository.path(), settings).await;
    (repository, node)
}

fn question() -> Vec<u8> {
    post("/v2/models/m/infer", &[], row(&NUMBERS))
}

/// So many more, all of which are served and stay.
async fn served(address: SocketAddr, clients: usize) -> Vec<Wire> {
    let mut wires = Vec::new();
    for _ in 0..clients {
        let mut wire = Wire::to(address).await;
        assert_echo(&wire.ask(question()).await, &NUMBERS);
        wires.push(wire);
    }
    wires
}

/// A connection of HTTP/2 that asks nothing, and says that it is there when it is asked.
async fn idle(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (requests, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    requests
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_nothing_makes_room_in_http_2() {
    let (_repository, node) = node(4, "").await;
    let address = node.server.address();
    let mut idle = [
        idle(address).await,
        idle(address).await,
        idle(address).await,
    ];
    let _others = served(address, 4).await;
    for requests in &mut idle {
        within("it is told to go", async {
            while std::future::poll_fn(|context| requests.poll_ready(context))
                .await
                .is_ok()
            {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_been_answered_makes_room_in_http_1() {
    let (_repository, node) = node(3, "").await;
    let address = node.server.address();
    let wires = served(address, 2).await;
    let _others = served(address, 3).await;
    for wire in wires {
        assert!(wire.closed().await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_even_answer_makes_room() {
    let (_repository, node) = node(3, "").await;
    let address = node.server.address();
    let mut silent = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(address).await;
        // What HTTP/2 begins with, and settings that say nothing.
        wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await;
        silent.push(wire);
    }
    let _others = served(address, 3).await;
    for wire in silent {
        wire.closed().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_ended_to_make_room() {
    // Longer than who does not answer has, once asked to go.
    let (_repository, node) = node(3, "fixed_ms = 1500").await;
    let address = node.server.address();
    let version = node.version("m");
    let gate = Gate::close(&node, "m");
    // One by HTTP/2 and two by HTTP/1, so that all places have a call.
    let by_grpc = tokio::spawn(infer(node.client(), rows("m", 0, 1)));
    let mut wires = [Wire::to(address).await, Wire::to(address).await];
    for wire in &mut wires {
        wire.send(question()).await;
    }
    // One runs.
    let are_there = || version.queued() == 2 && version.demand().unwrap().offered == 3;
    until("the calls are there", are_there).await;
    let mut late = Wire::to(address).await;
    late.send(get("/v2/health/live")).await;
    gate.open();
    let answer = within("an answer", by_grpc).await.unwrap().unwrap();
    assert_echoed(&answer, &rows("m", 0, 1));
    for wire in &mut wires {
        assert_echo(&wire.answer().await, &NUMBERS);
    }
    assert_eq!(late.answer().await.status, 200);
}
