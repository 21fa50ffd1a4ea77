//! Clients that send slowly, read slowly, or never read.

use std::time::Duration;

use jitney::proto::ModelStreamInferResponse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tonic::Streaming;

use super::connections::answer;
use super::extent;
use super::repository::Repository;
use super::request::{input, raw};
use super::server::{Possessions, Server, client};
use super::within;
use super::witness::Witness;

/// Requests of a stream, and numbers in each.
const STREAMED: usize = 1000;
const LARGE: usize = 40_000;
const BODY: &str = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[7]}]}"#;

fn request() -> String {
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: jitney\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{BODY}", BODY.len())
}

/// So many clients at once, a byte in ten milliseconds.
async fn crawl(server: &Server, clients: usize) {
    let mut slow = JoinSet::new();
    for _ in 0..clients {
        let address = server.address;
        slow.spawn(async move {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.set_nodelay(true).unwrap();
            for byte in request().bytes() {
                connection.write_all(&[byte]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let mut first = [0; 8];
            for byte in &mut first {
                *byte = connection.read_u8().await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(&first, b"HTTP/1.1");
            assert!(answer(&mut connection).await.unwrap().contains("[7.0]"));
        });
    }
    while let Some(one) = within("a slow client", slow.join_next()).await {
        one.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_and_reads_a_byte_at_a_time_is_answered_and_holds_nobody_up() {
    let many = extent(100, 500);
    let repository = Repository::of("", "");
    let server = Server::start(&repository.path(), &[]);
    crawl(&server, many).await;
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 4);
    crawl(&server, many).await;
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    println!(
        "chaos: {many} clients of a byte in 10 ms: all answered; {} others right, the slowest {:?}; \
         {before:?}, {after:?}",
        tally.right, tally.slowest
    );
}

/// A connection whose client sends until nothing more is taken, and reads nothing. How much that was.
async fn stuff(server: &Server) -> (TcpStream, usize) {
    // HTTP/1.1 lets a client send on before it has read.
    let mut connection = TcpStream::connect(server.address).await.unwrap();
    let (request, mut sent) = (request(), 0);
    while let Ok(written) = tokio::time::timeout(
        Duration::from_millis(200),
        connection.write_all(request.as_bytes()),
    )
    .await
    {
        written.unwrap();
        sent += 1;
    }
    (connection, sent)
}

/// A stream of requests, of whose answers none is read; it ends with this runtime, and not sooner.
async fn stream(clients: &Runtime, server: &Server) -> Streaming<ModelStreamInferResponse> {
    let address = server.address;
    let answers = clients.spawn(async move {
        let large = raw("m", input("x", "FP32", &[1, LARGE]), vec![0; LARGE * 4]);
        let requests = tokio_stream::iter(std::iter::repeat_n(large, STREAMED));
        let mut client = client(address);
        client
            .model_stream_infer(requests)
            .await
            .unwrap()
            .into_inner()
    });
    within("a stream begins", answers).await.unwrap()
}

/// Clients that never read: how many requests they sent beside their streams, and what the server had then.
async fn ignore(server: &Server, clients: usize) -> (usize, Possessions) {
    let bad = Runtime::new().unwrap();
    let (mut open, mut sent) = (Vec::new(), 0);
    for _ in 0..clients {
        let (connection, requests) = stuff(server).await;
        sent += requests;
        open.push((connection, stream(&bad, server).await));
    }
    let others = Witness::begin(server, 4);
    others.sees(500).await;
    others.tells().await.assert_all_right();
    let during = server.has();
    let (_, answers) = &mut open[0];
    let first = within("the first answer", answers.next()).await;
    assert_eq!(first.unwrap().unwrap().error_message, "");
    drop(open);
    bad.shutdown_background();
    (sent, during)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_is_held_back_and_holds_nobody_up() {
    let clients = extent(8, 64);
    // What executors keep for a batch is little.
    let repository = Repository::of("max_batch_size = 4", "");
    // They are to be held back, and not only for a while.
    let server = Server::start(&repository.path(), &["--write-timeout-ms", "off"]);
    let start = server.rests_after(2000).await;
    // All their answers would be so much.
    let all = (clients * STREAMED * LARGE * 4 / 1024) as u64;
    ignore(&server, clients).await;
    // An allocator's own books are as large as what it once had.
    server.settles(start.with_more(all / 128)).await;
    let before = server.rests_after(64).await;
    let (sent, during) = ignore(&server, clients).await;
    assert!(
        during.resident_kib < before.resident_kib + all / 4,
        "{during:?}"
    );
    let after = server.settles(before).await;
    println!(
        "chaos: {clients} clients that never read after {sent} requests, and as many streams: the others right; \
         {start:?}, {before:?}, {during:?}, {after:?}"
    );
}
