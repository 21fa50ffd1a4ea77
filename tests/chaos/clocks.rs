//! Wall clocks that jump: by NTP, by hand, or because the machine slept.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jitney::proto::ModelInferRequest;
use tonic::{Code, Request};

use super::repository::Repository;
use super::request::{assert_echo, rows};
use super::server::Server;
use super::witness::Witness;

/// Where Debian's package has it.
const FAKER: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_changes_no_deadline() {
    if !Path::new(FAKER).exists() {
        println!("SKIPPED: libfaketime is not installed: apt-get install libfaketime");
        return;
    }
    let repository = Repository::of("", "fixed_ms = 20");
    let moment = repository.beside("moment");
    fs::write(&moment, "+0").unwrap();
    let set = [
        ("LD_PRELOAD", FAKER),
        ("FAKETIME_TIMESTAMP_FILE", moment.to_str().unwrap()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_DONT_RESET", "1"),
    ];
    let server = Server::start_with(&repository.path(), &[], &set);
    let before = server.rests_after(500).await;
    let witness = Witness::begin(&server, 8);
    for jump in ["+1d", "-1d", "+400d", "-3600s", "+0"] {
        fs::write(&moment, jump).unwrap();
        witness.sees(50).await;
        // Neither sooner nor later than in time.
        let patient = infer(&server, rows("m", 1, 1), Duration::from_secs(60)).await;
        assert!(patient.is_ok(), "{jump}: {patient:?}");
        let hurried = infer(&server, rows("m", 2, 1), Duration::from_millis(1)).await;
        // Who says so first is a matter of chance: the client hears its own header, too.
        let told = hurried.unwrap_err().code();
        assert!(
            matches!(told, Code::DeadlineExceeded | Code::Cancelled),
            "{jump}: {told}"
        );
    }
    let tally = witness.tells().await;
    tally.assert_all_right();
    assert!(!server.log().contains("panic"), "{}", server.log());
    let after = server.settles(before).await;
    println!(
        "chaos: the clock jumps a day, a year, and back: {} right, the slowest {:?}; {before:?}, {after:?}",
        tally.right, tally.slowest
    );
}

async fn infer(
    server: &Server,
    message: ModelInferRequest,
    patience: Duration,
) -> Result<(), tonic::Status> {
    let mut request = Request::new(message.clone());
    let told = format!("{}u", patience.as_micros());
    request
        .metadata_mut()
        .insert("grpc-timeout", told.parse().unwrap());
    let answer = server.client().model_infer(request).await?;
    assert_echo(answer.get_ref(), &message);
    Ok(())
}
