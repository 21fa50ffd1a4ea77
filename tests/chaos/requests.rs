//! Requests that nobody wants any more, and what is no request at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tonic::client::Grpc;
use tonic::{Code, Request};

use super::dice::Dice;
use super::extent;
use super::plain_bytes::PlainBytes;
use super::repository::Repository;
use super::request::{assert_echo, rows};
use super::server::{Server, channel};
use super::within;
use super::witness::Witness;

/// Clients that do it at the same time.
const CLIENTS: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_requests_leave_nothing_behind() {
    let each = extent(4000, 100_000) / CLIENTS;
    // Slow enough that many are still queued when they are given up.
    let repository = Repository::of("max_batch_size = 8", "fixed_ms = 1");
    let server = Server::start(&repository.path(), &[]);
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 4);
    let answered = Arc::new(AtomicUsize::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (mut client, answered) = (server.client(), Arc::clone(&answered));
        clients.spawn(async move {
            let mut dice = Dice::new(number as u64);
            let mut given_up = 0;
            while given_up < each {
                let request = rows("m", given_up, 1);
                let asked = client.model_infer(request.clone());
                let patience = Duration::from_micros(dice.below(4000) as u64);
                match tokio::time::timeout(patience, asked).await {
                    Ok(answer) => {
                        assert_echo(answer.unwrap().get_ref(), &request);
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(_) => given_up += 1,
                }
            }
        });
    }
    clients.join_all().await;
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    println!(
        "chaos: {} requests cancelled, {} more that were not are right; {} others right, the slowest {:?}; \
         {before:?}, {after:?}",
        each * CLIENTS,
        answered.load(Ordering::Relaxed),
        tally.right,
        tally.slowest
    );
}

/// The seeds of a fuzz target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = fs::read_dir(folder).unwrap();
    files
        .map(|file| fs::read(file.unwrap().path()).unwrap())
        .collect()
}

fn spoilt(seeds: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seeds[dice.below(seeds.len())].clone();
    for _ in 0..=dice.below(4) {
        dice.spoil(&mut bytes);
    }
    bytes
}

/// What a client may be told of what it did wrong; by chance it did nothing wrong.
fn is_the_clients_fault(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::Unimplemented
            | Code::OutOfRange
            | Code::FailedPrecondition
            // A parameter may say that there is no time.
            | Code::DeadlineExceeded
    )
}

async fn spoil_messages(server: &Server, each: usize) {
    let seeds = Arc::new(corpus("protobuf_request"));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (channel, seeds) = (channel(server.address), Arc::clone(&seeds));
        clients.spawn(async move {
            let mut dice = Dice::new(number as u64);
            let mut grpc = Grpc::new(channel);
            for _ in 0..each {
                let message = Bytes::from(spoilt(&seeds, &mut dice));
                grpc.ready().await.unwrap();
                let path = "/inference.GRPCInferenceService/ModelInfer";
                let path = http::uri::PathAndQuery::from_static(path);
                let asked = grpc.unary(Request::new(message.clone()), path, PlainBytes);
                if let Err(status) = within("a spoilt message", asked).await {
                    // tonic says INTERNAL of what Protobuf cannot read.
                    let unread = status.code() == Code::Internal
                        && status.message().contains("decode Protobuf");
                    assert!(
                        unread || is_the_clients_fault(status.code()),
                        "{status:?} for {message:?}"
                    );
                }
            }
        });
    }
    clients.join_all().await;
}

async fn spoil_bodies(server: &Server, each: usize) {
    let seeds = Arc::new(corpus("rest_body"));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (address, seeds) = (server.address, Arc::clone(&seeds));
        clients.spawn(async move {
            let mut dice = Dice::new(number as u64);
            let mut connection = TcpStream::connect(address).await.unwrap();
            for _ in 0..each {
                let body = spoilt(&seeds, &mut dice);
                let head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: jitney\r\nContent-Length:";
                let mut request = format!("{head} {}\r\n", body.len()).into_bytes();
                if dice.below(2) == 0 {
                    let json = dice.below(body.len() + 2);
                    let told = format!("Inference-Header-Content-Length: {json}\r\n");
                    request.extend_from_slice(told.as_bytes());
                }
                request.extend_from_slice(b"\r\n");
                request.extend_from_slice(&body);
                connection.write_all(&request).await.unwrap();
                let answer = super::connections::answer(&mut connection);
                let answer = within("a spoilt body", answer).await.unwrap();
                let status = &answer[..answer.len().min(12)];
                assert!(
                    status == "HTTP/1.1 200" || status.starts_with("HTTP/1.1 4"),
                    "{answer} for {body:?}"
                );
            }
        });
    }
    clients.join_all().await;
}

/// What begins like one of the protocols and goes on like none.
async fn spoil_connections(server: &Server, each: usize) {
    const BEGINNINGS: [&[u8]; 4] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v2/models/m/infer HTTP/1.1\r\n",
        b"GET ",
        b"",
    ];
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let address = server.address;
        clients.spawn(async move {
            let mut dice = Dice::new(number as u64);
            for _ in 0..each {
                let mut connection = TcpStream::connect(address).await.unwrap();
                let length = dice.below(2000);
                let mut bytes = dice.one_of(&BEGINNINGS).to_vec();
                bytes.extend(dice.bytes(length));
                // It may be hung up on at any moment.
                let _ = connection.write_all(&bytes).await;
                let _ = connection.shutdown().await;
                let mut read = Vec::new();
                let _ = within("a spoilt connection", connection.read_to_end(&mut read)).await;
            }
        });
    }
    clients.join_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_and_holds_nobody_up() {
    let all = extent(20_000, 1_000_000);
    let repository = Repository::of("", "");
    let server = Server::start(&repository.path(), &["--log", "warn"]);
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 4);
    spoil_messages(&server, all / 2 / CLIENTS).await;
    spoil_bodies(&server, all / 2 / CLIENTS).await;
    spoil_connections(&server, all / 100 / CLIENTS).await;
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    let log = server.log();
    assert!(!log.contains("panic"), "{log}");
    println!(
        "chaos: {all} malformed requests and {} malformed connections: all refused or answered; \
         {} others right, the slowest {:?}; {before:?}, {after:?}",
        all / 100,
        tally.right,
        tally.slowest
    );
}
