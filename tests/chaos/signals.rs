//! What an operator, or a kernel, does to a process.

use std::time::Duration;

use rustix::process::Signal;
use tonic::Code;

use super::extent;
use super::repository::Repository;
use super::server::Server;
use super::witness::Witness;

#[tokio::test(flavor = "multi_thread")]
async fn who_was_stopped_goes_on_as_if_nothing_had_been() {
    let times = extent(3, 20);
    let repository = Repository::of("", "fixed_ms = 5");
    let server = Server::start(&repository.path(), &[]);
    let before = server.rests_after(2000).await;
    let witness = Witness::begin(&server, 16);
    for _ in 0..times {
        witness.sees(100).await;
        server.signal(Signal::STOP);
        tokio::time::sleep(Duration::from_millis(500)).await;
        server.signal(Signal::CONT);
    }
    witness.sees(100).await;
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    println!(
        "chaos: stopped {times} times for half a second: all {} right, the slowest {:?}; {before:?}, {after:?}",
        tally.right, tally.slowest
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_is_answered_before_the_end() {
    let repository = Repository::of("max_batch_size = 4", "fixed_ms = 5");
    let mut server = Server::start(&repository.path(), &[]);
    let witness = Witness::begin(&server, 64);
    witness.sees(1000).await;
    server.signal(Signal::TERM);
    let status = server.exit().await;
    assert!(status.success(), "{status}: {}", server.log());
    let tally = witness.tells().await;
    // Nobody is there any more, and what never arrived may be asked of another. Of a call that it had
    // not sent when its connection went this client says that it was cancelled.
    let away = tally.of(Code::Unavailable) + tally.of(Code::Cancelled);
    assert_eq!(tally.codes.values().sum::<usize>(), away, "{tally:?}");
    println!(
        "chaos: SIGTERM with 64 requests in flight: {} right, and none lost; after it {} found no server",
        tally.right, away
    );
}
