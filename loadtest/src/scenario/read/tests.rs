use super::*;
use crate::arrivals::{Process, Profile, Schedule};
use crate::faults::Kind as Wrong;

fn read(source: &str) -> Result<Scenario, String> {
    let report = read_scenario(Path::new("s/load.toml"), source);
    report.map_err(|report| report.to_string())
}

#[test]
fn every_key_has_its_meaning() {
    let scenario = read(
        r#"
seed = 7
timeout_ms = 500
max_outstanding = 10
max_lag_ms = 2

[server]
command = ["jitney", "serve", "models"]
connections = 3

[[requests]]
model = "minilm"
version = "2"
weight = 0.5
deadline_ms = 20
priority = 1
rows = 4
variants = 9
file = "texts.txt"
dimensions = { "input_ids.1" = { median = 40, low = 8, high = 256 }, default = 5 }
values = { input_ids = [1, 100] }
check = { relative = 0.01 }

[[steps]]
name = "a day"
arrivals = "bursty"
variation = 2
diurnal = { low = 1, high = 9, period_s = 60 }
warm_up_s = 1
duration_s = 120
slo = { percentile = 99.9, latency_ms = 50, max_error_share = 0.001, min_goodput = 4, max_late = 0, max_growth = { memory = 0.1 } }
faults = [{ kind = "reload", model = "m", every_ms = 9 }, { kind = "file", path = "f", lasts_ms = 2, every_ms = 8 }]

[[steps]]
arrivals = "closed"
in_flight = 64
duration_s = 2
"#,
    )
    .unwrap();
    assert_eq!((scenario.seed, scenario.connections), (7, 3));
    assert_eq!(scenario.timeout, Duration::from_millis(500));
    assert!(matches!(&scenario.server, Server::Start(command) if command.len() == 3));
    let [request] = &scenario.requests[..] else {
        panic!("one request")
    };
    assert_eq!(request.file.as_deref(), Some(Path::new("s/texts.txt")));
    assert_eq!(request.dimensions.len(), 2);
    assert_eq!(request.values, [("input_ids".to_owned(), (1.0, 100.0))]);
    assert_eq!(request.check, Some((1e-5, 0.01)));
    let [day, closed] = &scenario.steps[..] else {
        panic!("two steps")
    };
    let (share, latency) = day.slo.latency.unwrap();
    assert!((share - 0.999).abs() < 1e-9 && latency == Duration::from_millis(50));
    assert_eq!(day.slo.max_growth.memory, Some(0.1));
    let [reload, file] = &day.faults[..] else {
        panic!("two faults")
    };
    assert_eq!(reload.kind, Wrong::Reload("m".to_owned()));
    let lasts = Duration::from_millis(2);
    assert_eq!(file.kind, Wrong::File("s/f".into(), lasts));
    assert!(matches!(
        day.arrivals,
        Arrivals::Open(Schedule::Process(
            Process::Bursty { variation: 2.0 },
            Profile::Diurnal { .. }
        ))
    ));
    assert!(matches!(
        closed.arrivals,
        Arrivals::Closed { in_flight: 64 }
    ));
    assert_eq!(closed.slo, Slo::default());
}

#[test]
fn all_mistakes_are_told_at_once_with_their_lines() {
    let report = read(
        r#"sed = 1
[server]
address = "a"
command = ["b"]
[[requests]]
modl = "digits"
dimensions = { x = { low = 9, high = 3 } }
[[steps]]
arrivals = "sometimes"
duration_s = 0
[[steps]]
arrivals = "poisson"
duration_s = 1
[[steps]]
arrivals = "poisson"
duration_s = 1
rate = 3
ramp = { from = 1, to = 2 }
slo = { percentile = 100 }
"#,
    )
    .unwrap_err();
    let lines: Vec<&str> = report.lines().collect();
    for (line, said) in [
        (1, "sed: unknown key; did you mean seed?"),
        (4, "server.command: contradicts address"),
        (5, "requests[0].model: missing"),
        (6, "requests[0].modl: unknown key; did you mean model?"),
        (7, "requests[0].dimensions.x.high: found 3"),
        (9, "steps[0].arrivals: found \"sometimes\""),
        (10, "steps[0].duration_s: found 0; allowed: seconds"),
        (11, "steps[1].rate: missing"),
        (15, "steps[2].arrivals: say one of"),
        (18, "steps[2].ramp.over_s: missing"),
        (19, "steps[2].slo.percentile: found 100"),
    ] {
        let start = format!("s/load.toml:{line}: {said}");
        assert!(
            lines.iter().any(|line| line.starts_with(&start)),
            "{start}\n{report}"
        );
    }
    assert_eq!(lines.len(), 11, "{report}");
}

#[test]
fn what_cannot_be_done_together_is_told() {
    let report = read(
        r#"[server]
protocol = "rest"
tls = { key = "k.pem" }
[[requests]]
model = "m"
expected = "out.npy"
[[steps]]
arrivals = "trace"
trace = "not_there.csv"
duration_s = 1
stop_early = true
faults = [{ kind = "unload", every_ms = 5 }]
"#,
    )
    .unwrap_err();
    for (line, said) in [
        (3, "server.tls.key: certificate and key belong together"),
        (3, "server.tls.authority: missing"),
        (3, "server.tls: is offered over gRPC alone"),
        (6, "requests[0].expected: says the answers"),
        (9, "steps[0].trace: cannot read s/not_there.csv"),
        (11, "steps[0].stop_early: needs slo.latency_ms"),
        (12, "steps[0].faults[0].model: missing"),
        (12, "steps[0].faults[0].lasts_ms: missing"),
    ] {
        let start = format!("s/load.toml:{line}: {said}");
        assert!(report.contains(&start), "{start}\n{report}");
    }
    assert_eq!(report.lines().count(), 8, "{report}");
}
