//! Ten times what can be done.

use std::time::Duration;

use jitney_load::proto::ModelInferRequest;
use jitney_load::{Arrivals, Endpoint, Mix, Plan, Recording, Request, Target};
use prost::Message;
use tokio::time::Instant;

use super::extent;
use super::repository::Repository;
use super::request::rows;
use super::server::{Possessions, Server};
use super::witness::{Witness, warm};
use super::{HANG, within};

/// What an answer is worth waiting for.
const DEADLINE: Duration = Duration::from_secs(1);

/// Offers so many requests a second.
async fn offer(server: &Server, rate: f64, duration: Duration) -> Recording {
    let address = server.address.to_string();
    let target = Target::connect(Endpoint::from(&address), 4).await.unwrap();
    let message = rows("m", 1, 1).encode_to_vec();
    let message = ModelInferRequest::decode(message.as_slice()).unwrap();
    let request = Request::with_deadline(message, DEADLINE);
    let mut plan = Plan::new(Arrivals::poisson(rate), Duration::ZERO, duration);
    // What comes late is not lost.
    plan.timeout = HANG;
    plan.run(&target, &Mix::new(vec![request])).await.unwrap()
}

/// What was answered in time, a second.
fn good(recording: &Recording, duration: Duration) -> f64 {
    recording.outcomes.ok as f64 / duration.as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_times_too_much_is_refused_and_passes() {
    // 8 rows in 160 ms: 50 a second.
    let repository = Repository::of(
        "max_batch_size = 8\nmax_queue_size = 256",
        "fixed_ms = 152\nper_row_ms = 1",
    );
    let server = Server::start(&repository.path(), &[]);
    warm(&server, 200).await;
    let usual = Duration::from_secs(extent(8, 60) as u64);
    let peak = good(&offer(&server, 75.0, usual).await, usual);
    let rush = Duration::from_secs(extent(10, 60) as u64);
    let before = server.rests_after(64).await;
    let (most, recording, recovery) = tokio::join!(
        most(&server, rush),
        offer(&server, 500.0, rush),
        recovery(&server, rush)
    );
    assert_pushed_back(&recording);
    // The queue has room for 256; what is not optimized needs more for each.
    let more = most.resident_kib.saturating_sub(before.resident_kib);
    let bound = extent(48, 16) as u64 * 1024;
    assert!(more < bound, "{before:?}, and {most:?}");
    let witness = Witness::begin(&server, 4);
    witness.sees(50).await;
    let tally = witness.tells().await;
    tally.assert_all_right();
    let after = server.settles(before).await;
    println!(
        "chaos: 10 times overload for {rush:?}: {:.1} good answers a second of {peak:.1} at 1.5 times, {} late; \
         {recovery:?} after it the first in time, then the slowest {:?}; {before:?}, at most {most:?}, {after:?}",
        good(&recording, rush),
        recording.outcomes.late,
        tally.slowest
    );
}

/// How long it takes after so long until one more request is answered, which has half of the time that others have.
async fn recovery(server: &Server, after: Duration) -> Duration {
    let mut client = server.client();
    tokio::time::sleep(after).await;
    let began = Instant::now();
    within("it is answered in time again", async {
        loop {
            let mut request = tonic::Request::new(rows("m", 1, 1));
            request.set_timeout(DEADLINE / 2);
            if client.model_infer(request).await.is_ok() {
                return began.elapsed();
            }
        }
    })
    .await
}

/// Everybody was answered, or told that it is too much.
fn assert_pushed_back(recording: &Recording) {
    let told = &recording.outcomes;
    assert_eq!(
        (told.wrong, told.doubled, told.missing),
        (0, 0, 0),
        "{told:?}"
    );
    assert!(
        told.failed.keys().all(|code| is_push_back(code)),
        "{told:?}"
    );
}

fn is_push_back(code: &str) -> bool {
    matches!(code, "RESOURCE_EXHAUSTED" | "DEADLINE_EXCEEDED")
}

/// The most memory that it has meanwhile.
async fn most(server: &Server, time: Duration) -> Possessions {
    let mut most = server.has();
    let end = tokio::time::Instant::now() + time;
    while tokio::time::Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = server.has();
        if now.resident_kib > most.resident_kib {
            most = now;
        }
    }
    most
}
