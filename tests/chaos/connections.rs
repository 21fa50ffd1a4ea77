//! More connections than anybody needs.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::extent;
use super::repository::Repository;
use super::server::Server;
use super::witness::Witness;
use super::{HANG, within};

const BODY: &str =
    r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"data":[1.5,2.5,3.5,4.5]}]}"#;

/// Asks over REST, and leaves the connection open.
pub(crate) async fn ask(connection: &mut TcpStream) -> std::io::Result<String> {
    let head = "POST /v2/models/m/infer HTTP/1.1\r\nHost: jitney\r\nContent-Length:";
    let request = format!("{head} {}\r\n\r\n{BODY}", BODY.len());
    connection.write_all(request.as_bytes()).await?;
    answer(connection).await
}

/// One answer, of which nothing is left behind.
pub(crate) async fn answer(connection: &mut TcpStream) -> std::io::Result<String> {
    let mut read = Vec::new();
    loop {
        if connection.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = String::from_utf8_lossy(&read);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Some(length) = length(head)
            && body.len() >= length
        {
            return Ok(text.into_owned());
        }
    }
}

fn length(head: &str) -> Option<usize> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let (_, length) = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    length.parse().ok()
}

fn assert_right(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains("[1.5,2.5,3.5,4.5]"), "{answer}");
}

/// So many connections, each of which has been answered.
async fn connect(server: &Server, many: usize) -> Vec<TcpStream> {
    let address = server.address;
    let one = || async move {
        let mut connection = TcpStream::connect(address).await.unwrap();
        assert_right(&within("an answer", ask(&mut connection)).await.unwrap());
        connection
    };
    let mut open = Vec::new();
    // Many at a time: the first are not to be idle for too long before the last have asked.
    while open.len() < many {
        let together = (many - open.len()).min(32);
        let asked: JoinSet<_> = (0..together).map(|_| one()).collect();
        open.extend(asked.join_all().await);
    }
    open
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_connections_are_all_answered() {
    let many = extent(1000, 10_000);
    let repository = Repository::of("", "");
    let server = Server::start(&repository.path(), &["--max-connections", "11000"]);
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 4);
    let open = connect(&server, many).await;
    let during = server.has();
    assert!(during.descriptors >= many);
    let tally = witness.tells().await;
    tally.assert_all_right();
    drop(open);
    let after = server.settles(before).await;
    println!(
        "chaos: {many} connections: all answered; {} others right, the slowest {:?}; \
         {before:?}, {during:?}, {after:?}",
        tally.right, tally.slowest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_descriptors_who_is_idle_makes_room_for_who_asks() {
    let repository = Repository::of("", "");
    let server = Server::start(&repository.path(), &[]);
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 4);
    witness.sees(100).await;
    server.allow_descriptors(server.has().descriptors + 10);
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut answered = 0;
    for connection in &mut open {
        // One is let in sooner or later.
        let patience = match answered {
            0 => HANG / 10,
            _ => Duration::from_millis(20),
        };
        // Who hears nothing waits to be let in; who was let in and asked nothing for a second may have made room.
        if let Ok(Ok(answer)) = tokio::time::timeout(patience, ask(connection)).await {
            assert_right(&answer);
            answered += 1;
        }
    }
    assert!(answered > 0, "{answered}");
    witness.sees(100).await;
    // Nobody goes by himself.
    let mut late = TcpStream::connect(server.address).await.unwrap();
    assert_right(&within("an answer", ask(&mut late)).await.unwrap());
    drop((open, late));
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    println!(
        "chaos: no descriptors left: {answered} of 100 got in; {} others right; {before:?}, {after:?}",
        tally.right
    );
}
