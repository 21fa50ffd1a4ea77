//! Whether the figures are true, against a server that does as it is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // all of this is a test

mod cli;
mod rest;
mod scripted;

use std::collections::BTreeMap;
use std::time::Duration;

use jitney_load::arrivals::{Process, Profile, Schedule, Step};
use jitney_load::proto::ModelInferRequest;
use jitney_load::{Arrivals, Endpoint, Mix, Plan, Protocol, Recording, Request, Stop, Target, Tls};
use scripted::{Reply, Scripted};

const SECOND: Duration = Duration::from_secs(1);

async fn driven(server: &Scripted, request: Request, plan: Plan) -> Recording {
    let target = Target::connect(&server.address, 2).await.unwrap();
    let mix = Mix::new(vec![request]);
    plan.run(&target, &mix).await.unwrap()
}

fn request() -> Request {
    Request::new(&ModelInferRequest {
        model_name: "m".to_owned(),
        ..ModelInferRequest::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ending_is_counted_apart() {
    let reply = |number: u64| match number % 10 {
        3 => Reply::Fails(tonic::Code::Unavailable),
        5 => Reply::OfAnother,
        7 => Reply::Never,
        8 => Reply::After(Duration::from_millis(5_500)),
        _ => Reply::After(Duration::ZERO),
    };
    let server = Scripted::start(move |number, _| reply(number)).await;
    let plan = Plan {
        timeout: 9 * SECOND,
        ..Plan::new(Arrivals::constant(100.0), Duration::ZERO, 2 * SECOND)
    };
    let recording = driven(&server, request().worth(5 * SECOND), plan).await;
    // The first is sent after the first gap, and the one at the very end no more.
    let sent = 199;
    let expected = |ending: u64| (0..sent).filter(|number| number % 10 == ending).count() as u64;
    let outcomes = &recording.outcomes;
    assert_eq!(outcomes.all(), sent);
    assert_eq!(outcomes.wrong, expected(5));
    assert_eq!(outcomes.missing, expected(7));
    assert_eq!(outcomes.late, expected(8));
    let failed = BTreeMap::from([("UNAVAILABLE", expected(3))]);
    assert_eq!(outcomes.failed, failed);
    assert_eq!(outcomes.skipped, 0);
    let rest: u64 = [0, 1, 2, 4, 6, 9].map(expected).iter().sum();
    assert_eq!(outcomes.ok, rest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_is_seen_by_all_who_came_meanwhile() {
    // Whoever comes in the second second is answered at its end.
    let server = Scripted::start(|_, since_start| {
        let stalled = since_start >= SECOND && since_start < 2 * SECOND;
        Reply::After(match stalled {
            true => 2 * SECOND - since_start,
            false => Duration::ZERO,
        })
    })
    .await;
    let plan = Plan::new(Arrivals::constant(200.0), Duration::ZERO, 4 * SECOND);
    let recording = driven(&server, request(), plan).await;
    // A quarter of the requests, whose latencies are even between 0 and 1 s: the share q of all is
    // answered within 1 - (1 - q) / 0.25 s. The server sees to it that it is not less.
    for (share, least) in [(0.8, 0.2), (0.9, 0.6), (0.99, 0.96)] {
        let seen = recording.quantile(share).as_secs_f64();
        assert!(seen >= least * 0.99 - 0.005, "{share}: {seen} of {least}");
    }
    assert_eq!(recording.outcomes.ok, recording.outcomes.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn service_times_are_the_servers() {
    let times = |number: u64| Duration::from_millis(20 + number % 100);
    let server = Scripted::start(move |number, _| Reply::After(times(number))).await;
    let plan = Plan::new(Arrivals::constant(100.0), Duration::ZERO, 4 * SECOND);
    let recording = driven(&server, request(), plan).await;
    // Even between 20 and 119 ms; the server takes no less.
    for share in [0.5, 0.9, 0.99] {
        let least = 0.020 + 0.099 * share;
        let seen = Duration::from_nanos(recording.service.value_at_quantile(share));
        assert!(seen.as_secs_f64() >= least * 0.99, "{share}: {seen:?}");
        assert!(recording.quantile(share) >= seen.mul_f64(0.999));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_sent_is_counted() {
    let server = Scripted::start(|_, _| Reply::Never).await;
    let plan = Plan {
        max_outstanding: 10,
        timeout: 6 * SECOND,
        ..Plan::new(Arrivals::constant(100.0), Duration::ZERO, SECOND)
    };
    let recording = driven(&server, request(), plan).await;
    assert_eq!(recording.outcomes.missing, 10);
    assert_eq!(recording.outcomes.skipped, 89);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_loop_keeps_so_many_in_flight() {
    let server = Scripted::start(|_, _| Reply::After(Duration::from_millis(20))).await;
    let plan = Plan::new(
        Arrivals::Closed { in_flight: 7 },
        Duration::from_millis(100),
        SECOND,
    );
    let recording = driven(&server, request(), plan).await;
    assert_eq!(server.most_at_once(), 7);
    // No faster than the server.
    assert!(recording.rate() <= 7.0 * 51.0, "{}", recording.rate());
    assert_eq!(recording.outcomes.ok, recording.outcomes.all());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rate_follows_its_profile() {
    let server = Scripted::start(|_, _| Reply::After(Duration::ZERO)).await;
    let steps = Profile::Steps(vec![Step::new(1.0, 100.0), Step::new(1.0, 400.0)]);
    let arrivals = Arrivals::Open(Schedule::Process(Process::Even, steps));
    let plan = Plan::new(arrivals, Duration::ZERO, 2 * SECOND);
    let recording = driven(&server, request(), plan).await;
    let seconds: Vec<u64> = recording
        .seconds
        .iter()
        .map(|one| one.outcomes.all())
        .collect();
    // The hundredth falls on the border.
    assert_eq!(seconds, [99, 400]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_a_stream_every_ending_is_counted_apart_too() {
    let server = Scripted::start(|number, _| match number % 10 {
        3 => Reply::Fails(tonic::Code::Unavailable),
        5 => Reply::Twice,
        7 => Reply::Never,
        _ => Reply::After(Duration::from_millis(number % 10)),
    })
    .await;
    let endpoint = Endpoint {
        protocol: Protocol::GrpcStream,
        ..Endpoint::from(&server.address)
    };
    let plan = Plan {
        timeout: 4 * SECOND,
        ..Plan::new(Arrivals::constant(100.0), Duration::ZERO, 2 * SECOND)
    };
    let target = Target::connect(endpoint, 1).await.unwrap();
    let recording = plan.run(&target, &Mix::new(vec![request()])).await;
    let outcomes = recording.unwrap().outcomes;
    // Ids count from 1 on a stream.
    let expected = |ending: u64| (1..=199).filter(|id| id % 10 == ending).count() as u64;
    assert_eq!(outcomes.all(), 199);
    assert_eq!(outcomes.missing, expected(7));
    // An answer of a stream says why a request failed, and no code.
    let failed = BTreeMap::from([("UNKNOWN", expected(3))]);
    assert_eq!(outcomes.failed, failed);
    assert_eq!(outcomes.doubled, expected(5));
    assert_eq!(outcomes.ok, 199 - expected(3) - expected(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_trusted_if_its_certificate_is() {
    let certified = rcgen::generate_simple_self_signed(["models.test".to_owned()]).unwrap();
    let certificate = certified.cert.pem();
    let key = certified.signing_key.serialize_pem();
    let identity = tonic::transport::Identity::from_pem(&certificate, key);
    let script = |_, _| Reply::After(Duration::ZERO);
    let server = Scripted::start_encrypted(identity, script).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.pem");
    std::fs::write(&authority, certificate).unwrap();
    let named = |name: &str| Endpoint {
        tls: Some(Tls {
            authority: authority.clone(),
            name: Some(name.to_owned()),
            identity: None,
        }),
        ..Endpoint::from(&server.address)
    };
    assert!(Target::connect(named("others.test"), 1).await.is_err());
    let target = Target::connect(named("models.test"), 2).await.unwrap();
    let plan = Plan::new(Arrivals::constant(100.0), Duration::ZERO, SECOND);
    let recording = plan.run(&target, &Mix::new(vec![request()])).await.unwrap();
    assert_eq!(recording.outcomes.ok, 99);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_when_enough_is_known() {
    // One in two takes longer than is asked, where one in ten may.
    for (slow, held) in [(2, false), (1_000_000, true)] {
        // So long that a busy machine alone does not exceed it.
        let bound = 3 * SECOND;
        let server = Scripted::start(move |number, _| match number % slow {
            1 => Reply::After(2 * bound),
            _ => Reply::After(Duration::ZERO),
        })
        .await;
        let plan = Plan {
            stop: Stop::WhenKnown(0.9, bound),
            ..Plan::new(Arrivals::constant(200.0), Duration::ZERO, 60 * SECOND)
        };
        let recording = driven(&server, request(), plan).await;
        assert!(recording.elapsed < 20 * SECOND, "{:?}", recording.elapsed);
        let all = recording.outcomes.all();
        assert_eq!(recording.over(bound) * 10 < all, held, "{all}");
        // Whatever was sent is waited for and counted.
        let sent = recording.elapsed.as_secs_f64() * 200.0;
        assert!((all as f64 - sent).abs() < 4.0, "{all} of {sent}");
    }
}
