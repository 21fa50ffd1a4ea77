//! Scenario files: TOML, all mistakes at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jitney_settings::rule::{Between, Number, OneOf, Text, Truth, milliseconds, seconds, whole};
use jitney_settings::{Report, Table, Written, read_document, rule::Rule};

use super::{RequestSpec, Scenario, Server, Sizes, Step};
use crate::arrivals::{Arrivals, Process, Profile, Schedule, Step as RateStep, read_trace};
use crate::driver::Stop;
use crate::faults::{Fault, Kind as Wrong};
use crate::slo::{Growth, Slo};
use crate::target::{Protocol, Tls};

/// Requests a second, or in flight.
const RATES: std::ops::RangeInclusive<f64> = 0.001..=10_000_000.0;
const A_DAY: f64 = 86_400.0;

/// What `source`, the text of the scenario at `file`, means; or everything wrong with it.
///
/// The file is not opened: `file` is for the messages, and its folder is where paths in it start.
pub fn read_scenario(file: &Path, source: &str) -> Result<Scenario, Report> {
    read_document(file, source, |table| scenario(file, table))
}

fn scenario(file: &Path, table: &mut Table<'_, '_>) -> Scenario {
    let folder = folder_of(file);
    let written = table.section("server", |table| server(folder_of(file), table));
    let ServerTable {
        server,
        protocol,
        tls,
        connections,
    } = written.unwrap_or_default();
    let requests = table.sections("requests", |table| request(folder, table));
    let why = "say what is sent, such as [[requests]] with model = \"digits\"";
    let requests = table.required("requests", requests, why);
    let steps = table.sections("steps", |table| step(folder, table));
    let why = "say what happens, such as [[steps]] with arrivals = \"poisson\" and rate = 100";
    let steps = table.required("steps", steps, why);
    let timeout = table.value("timeout_ms", milliseconds(1.0..=A_DAY * 1e3));
    let lag = table.value("max_lag_ms", milliseconds(0.1..=60_000.0));
    Scenario {
        server,
        protocol,
        tls,
        connections,
        seed: table.value("seed", whole(0..=u64::MAX)).unwrap_or(1),
        timeout: timeout.unwrap_or(Duration::from_secs(10)),
        max_outstanding: table
            .value("max_outstanding", whole(1..=1_000_000))
            .unwrap_or(16_384),
        max_lag: lag.unwrap_or(Duration::from_millis(5)),
        requests: requests.unwrap_or_default(),
        steps: steps.unwrap_or_default(),
    }
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

/// What `[server]` says.
struct ServerTable {
    server: Server,
    protocol: Protocol,
    tls: Option<Tls>,
    connections: usize,
}

impl Default for ServerTable {
    fn default() -> Self {
        Self {
            server: Server::At("127.0.0.1:8001".to_owned()),
            protocol: Protocol::default(),
            tls: None,
            connections: 1,
        }
    }
}

const PROTOCOLS: OneOf<'_, Protocol> = OneOf(&[
    ("grpc", Protocol::Grpc),
    ("grpc_stream", Protocol::GrpcStream),
]);

fn server(folder: &Path, table: &mut Table<'_, '_>) -> ServerTable {
    let default = ServerTable::default();
    let address = table.value("address", Text);
    let command = table.list("command", Text);
    if address.is_some() && command.is_some() {
        let message = "contradicts address: a server that is started says where it is";
        table.contradict("command", message.to_owned());
    }
    let connections = table.value("connections", whole(1..=10_000));
    ServerTable {
        server: match (address, command) {
            (_, Some(command)) => Server::Start(command),
            (Some(address), None) => Server::At(address),
            (None, None) => default.server,
        },
        protocol: table.value("protocol", PROTOCOLS).unwrap_or_default(),
        tls: table.section("tls", |table| tls(folder, table)),
        connections: connections.unwrap_or(default.connections),
    }
}

fn tls(folder: &Path, table: &mut Table<'_, '_>) -> Tls {
    let mut file = |key| table.value(key, Text).map(|file| folder.join(file));
    let (authority, certificate, key) = (file("authority"), file("certificate"), file("key"));
    if certificate.is_some() != key.is_some() {
        let message = "certificate and key belong together";
        let present = if key.is_some() { "key" } else { "certificate" };
        table.contradict(present, message.to_owned());
    }
    let why = "the file of certificates, as PEM, of who vouches for the server";
    let authority = table.required("authority", authority, why);
    Tls {
        authority: authority.unwrap_or_default(),
        name: table.value("name", Text),
        identity: certificate.zip(key),
    }
}

fn request(folder: &Path, table: &mut Table<'_, '_>) -> RequestSpec {
    let model = table.value("model", Text);
    let model = table.required("model", model, "a model's name");
    let file = table.value("file", Text).map(|file| folder.join(file));
    let check = table.section("check", |table| {
        let absolute = table.value("absolute", Between(0.0..=f64::MAX));
        let relative = table.value("relative", Between(0.0..=f64::MAX));
        let (near, close) = RequestSpec::TOLERANCE;
        (absolute.unwrap_or(near), relative.unwrap_or(close))
    });
    RequestSpec {
        model: model.unwrap_or_default(),
        version: table.value("version", Text).unwrap_or_default(),
        weight: table.value("weight", Between(0.0..=1e9)).unwrap_or(1.0),
        deadline: table.value("deadline_ms", milliseconds(0.001..=A_DAY * 1e3)),
        priority: table.value("priority", whole(1..=u64::MAX)),
        rows: table.value("rows", whole(1..=65_536)).unwrap_or(1),
        variants: table.value("variants", whole(1..=65_536)).unwrap_or(64),
        file,
        dimensions: table.section("dimensions", dimensions).unwrap_or_default(),
        values: table.section("values", values).unwrap_or_default(),
        check,
        expected: expected(folder, table),
    }
}

fn expected(folder: &Path, table: &mut Table<'_, '_>) -> Option<PathBuf> {
    let file = table.value("expected", Text)?;
    if table.lacks("file") {
        let message = "says the answers of what file holds, and there is no file";
        table.contradict("expected", message.to_owned());
    }
    Some(folder.join(file))
}

fn dimensions(table: &mut Table<'_, '_>) -> Vec<(String, Sizes)> {
    let mut dimensions = Vec::new();
    for name in table.keys() {
        let is_table = matches!(table.written(name), Some(value) if value.is_table());
        let sizes = match is_table {
            true => table.section(name, distribution).flatten(),
            false => table.value(name, whole(1..=1 << 30)).map(Sizes::Fixed),
        };
        dimensions.extend(sizes.map(|sizes| (name.to_owned(), sizes)));
    }
    dimensions
}

fn distribution(table: &mut Table<'_, '_>) -> Option<Sizes> {
    let median = table.value("median", Between(1.0..=1e9));
    let sigma = table.value("sigma", Between(0.0..=10.0));
    let low = table.value("low", whole(1..=1 << 30));
    let low = table.required("low", low, "the smallest size")?;
    let high = table.value("high", whole(1..=1 << 30));
    let high = table.required("high", high, "the largest size")?;
    if high < low {
        table.contradict(
            "high",
            format!("found {high}; allowed: at least low, {low}"),
        );
    }
    Some(match median {
        None => Sizes::Uniform(low, high.max(low)),
        Some(median) => Sizes::LogNormal {
            median,
            sigma: sigma.unwrap_or(0.7),
            low,
            high: high.max(low),
        },
    })
}

fn values(table: &mut Table<'_, '_>) -> Vec<(String, (f64, f64))> {
    let mut values = Vec::new();
    for name in table.keys() {
        match table.list(name, Number).as_deref() {
            Some([low, high]) if low <= high => values.push((name.to_owned(), (*low, *high))),
            Some(_) => table.contradict(name, "allowed: [lowest, highest]".to_owned()),
            None => {}
        }
    }
    values
}

fn step(folder: &Path, table: &mut Table<'_, '_>) -> Step {
    let arrivals = arrivals(folder, table);
    let duration = table.value("duration_s", seconds(0.1..=30.0 * A_DAY));
    let warm_up = table.value("warm_up_s", seconds(0.0..=A_DAY));
    let warm_up = warm_up.unwrap_or(Duration::from_secs(2));
    // A recording says itself how long it lasts.
    let recorded = match (&arrivals, table.lacks("duration_s")) {
        (Arrivals::Open(schedule), true) => schedule.end(),
        _ => None,
    };
    let duration = duration.or(recorded.map(|end| end.saturating_sub(warm_up)));
    let duration = table.required("duration_s", duration, "the seconds that count");
    let slo = table.section("slo", slo).unwrap_or_default();
    Step {
        name: table
            .value("name", Text)
            .unwrap_or_else(|| "load".to_owned()),
        arrivals,
        warm_up,
        duration: duration.unwrap_or_default(),
        stop: stop(&slo, table),
        faults: table
            .sections("faults", |table| fault(folder, table))
            .unwrap_or_default(),
        slo,
    }
}

fn stop(slo: &Slo, table: &mut Table<'_, '_>) -> Stop {
    let early = table.value("stop_early", Truth).unwrap_or_default();
    match slo.latency {
        Some((share, bound)) if early => Stop::WhenKnown(share, bound),
        None if early => {
            let message = "needs slo.latency_ms: it stops when it is known whether that holds";
            table.contradict("stop_early", message.to_owned());
            Stop::AtTheEnd
        }
        _ => Stop::AtTheEnd,
    }
}

#[derive(Clone, Copy)]
enum FaultName {
    Cancel,
    Vanish,
    Churn,
    HalfOpen,
    Malformed,
    Huge,
    SlowReader,
    Reload,
    Unload,
    File,
    Terminate,
    Kill,
}

const FAULTS: OneOf<'_, FaultName> = OneOf(&[
    ("cancel", FaultName::Cancel),
    ("vanish", FaultName::Vanish),
    ("churn", FaultName::Churn),
    ("half_open", FaultName::HalfOpen),
    ("malformed", FaultName::Malformed),
    ("huge", FaultName::Huge),
    ("slow_reader", FaultName::SlowReader),
    ("reload", FaultName::Reload),
    ("unload", FaultName::Unload),
    ("file", FaultName::File),
    ("terminate", FaultName::Terminate),
    ("kill", FaultName::Kill),
]);

fn fault(folder: &Path, table: &mut Table<'_, '_>) -> Fault {
    let kind = table.value("kind", FAULTS);
    let kind = table.required("kind", kind, &format!("allowed: {}", FAULTS.allowed()));
    let every = table.value("every_ms", milliseconds(1.0..=A_DAY * 1e3));
    let every = table.required("every_ms", every, "from one time to the next");
    let kind = match kind {
        None | Some(FaultName::Cancel) => Wrong::Cancel,
        Some(FaultName::Vanish) => Wrong::Vanish,
        Some(FaultName::Churn) => Wrong::Churn,
        Some(FaultName::HalfOpen) => Wrong::HalfOpen,
        Some(FaultName::Malformed) => Wrong::Malformed,
        Some(FaultName::Huge) => Wrong::Huge,
        Some(FaultName::SlowReader) => Wrong::SlowReader,
        Some(FaultName::Terminate) => Wrong::Terminate,
        Some(FaultName::Kill) => Wrong::Kill,
        Some(FaultName::Reload) => Wrong::Reload(a_model(table)),
        Some(FaultName::Unload) => Wrong::Unload(a_model(table), lasts(table)),
        Some(FaultName::File) => {
            let path = table.value("path", Text).map(|path| folder.join(path));
            let path = table.required("path", path, "the file that appears");
            Wrong::File(path.unwrap_or_default(), lasts(table))
        }
    };
    Fault {
        kind,
        every: every.unwrap_or(Duration::from_secs(1)),
    }
}

fn a_model(table: &mut Table<'_, '_>) -> String {
    let model = table.value("model", Text);
    let model = table.required("model", model, "the model that is loaded anew");
    model.unwrap_or_default()
}

fn lasts(table: &mut Table<'_, '_>) -> Duration {
    let lasts = table.value("lasts_ms", milliseconds(1.0..=A_DAY * 1e3));
    let lasts = table.required("lasts_ms", lasts, "how long it lasts");
    lasts.unwrap_or_default()
}

#[derive(Clone, Copy)]
enum Kind {
    Closed,
    Constant,
    Poisson,
    Bursty,
    Trace,
}

const KINDS: OneOf<'_, Kind> = OneOf(&[
    ("closed", Kind::Closed),
    ("constant", Kind::Constant),
    ("poisson", Kind::Poisson),
    ("bursty", Kind::Bursty),
    ("trace", Kind::Trace),
]);

fn arrivals(folder: &Path, table: &mut Table<'_, '_>) -> Arrivals {
    let kind = table.value("arrivals", KINDS);
    let kind = table.required("arrivals", kind, &format!("allowed: {}", KINDS.allowed()));
    let in_flight = table.value("in_flight", whole(1..=1_000_000));
    let variation = table.value("variation", Between(0.01..=1_000.0));
    let process = match kind {
        None => return Arrivals::constant(1.0),
        Some(Kind::Closed) => {
            let in_flight = table.required("in_flight", in_flight, "requests in flight");
            return Arrivals::Closed {
                in_flight: in_flight.unwrap_or(1),
            };
        }
        Some(Kind::Trace) => return Arrivals::Open(trace(folder, table)),
        Some(Kind::Constant) => Process::Even,
        Some(Kind::Poisson) => Process::Poisson,
        Some(Kind::Bursty) => Process::Bursty {
            variation: variation.unwrap_or(4.0),
        },
    };
    Arrivals::Open(Schedule::Process(process, profile(table)))
}

fn trace(folder: &Path, table: &mut Table<'_, '_>) -> Schedule {
    let file = table.value("trace", Text).map(|file| folder.join(file));
    let file = table.required("trace", file, "the file of the recording");
    let speed = table.value("speed", Between(0.001..=1_000.0));
    let recorded = file.map(|file| read_trace(&file, speed.unwrap_or(1.0)));
    if let Some(Err(error)) = &recorded {
        table.contradict("trace", error.clone());
    }
    Schedule::Trace(recorded.and_then(Result::ok).unwrap_or_default().into())
}

fn profile(table: &mut Table<'_, '_>) -> Profile {
    let rate = table.value("rate", Between(RATES)).map(Profile::Constant);
    let rates = table.sections("rates", |table| {
        let lasts = table.value("lasts_s", seconds(0.001..=A_DAY));
        let lasts = table.required("lasts_s", lasts, "how long this rate lasts");
        let rate = table.value("rate", Between(0.0..=*RATES.end()));
        let rate = table.required("rate", rate, "requests a second");
        RateStep {
            duration: lasts.unwrap_or_default(),
            rate: rate.unwrap_or_default(),
        }
    });
    let ramp = table.section("ramp", |table| Profile::Ramp {
        from: a_rate(table, "from"),
        to: a_rate(table, "to"),
        over: a_time(table, "over_s"),
    });
    let diurnal = table.section("diurnal", |table| Profile::Diurnal {
        low: a_rate(table, "low"),
        high: a_rate(table, "high"),
        period: a_time(table, "period_s"),
    });
    let mut given: Vec<Profile> = [rate, rates.map(Profile::Steps), ramp, diurnal]
        .into_iter()
        .flatten()
        .collect();
    if given.len() > 1 {
        let message = "say one of rate, rates, ramp and diurnal";
        table.contradict("arrivals", message.to_owned());
    }
    let any_wrong = ["rate", "rates", "ramp", "diurnal"];
    if given.is_empty() && any_wrong.iter().all(|key| table.lacks(key)) {
        table.required(
            "rate",
            None::<()>,
            "requests a second; or rates, ramp or diurnal",
        );
    }
    given.pop().unwrap_or(Profile::Constant(1.0))
}

fn a_rate<'d>(table: &mut Table<'d, '_>, key: &'d str) -> f64 {
    let rate = table.value(key, Between(0.0..=*RATES.end()));
    let rate = table.required(key, rate, "requests a second");
    rate.unwrap_or_default()
}

fn a_time<'d>(table: &mut Table<'d, '_>, key: &'d str) -> Duration {
    let time = table.value(key, seconds(0.001..=30.0 * A_DAY));
    table.required(key, time, "seconds").unwrap_or_default()
}

/// Percentiles, as they are spoken of.
struct Percent;

impl Rule for Percent {
    type Output = f64;

    fn read(&self, written: Written<'_>) -> Option<f64> {
        let percent = written.number()?;
        (percent > 0.0 && percent < 100.0).then_some(percent / 100.0)
    }

    fn allowed(&self) -> String {
        "a number between 0 and 100, such as 99".to_owned()
    }
}

fn slo(table: &mut Table<'_, '_>) -> Slo {
    let percentile = table.value("percentile", Percent);
    let latency = table.value("latency_ms", milliseconds(0.001..=A_DAY * 1e3));
    if table.lacks("latency_ms") && percentile.is_some() {
        table.required("latency_ms", None::<()>, "percentile says of which");
    }
    Slo {
        latency: latency.map(|latency| (percentile.unwrap_or(0.99), latency)),
        max_error_share: table.value("max_error_share", Between(0.0..=1.0)),
        min_goodput: table.value("min_goodput", Between(RATES)),
        max_growth: table.section("max_growth", growth).unwrap_or_default(),
        max_recovery: table.value("max_recovery_ms", milliseconds(0.0..=A_DAY * 1e3)),
        max_late: table.value("max_late", whole(0..=u64::MAX)),
        max_wrong: table.value("max_wrong", whole(0..=u64::MAX)).unwrap_or(0),
    }
}

/// Shares an hour.
fn growth(table: &mut Table<'_, '_>) -> Growth {
    let mut share = |key| table.value(key, Between(0.0..=1e6));
    Growth {
        memory: share("memory"),
        descriptors: share("descriptors"),
        threads: share("threads"),
        latency: share("latency"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
