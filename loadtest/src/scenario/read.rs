//! Scenario files: TOML, all mistakes at once.

mod arrivals;
mod faults;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::time::Duration;

use jitney_settings::rule::{Between, Number, OneOf, Text, Truth, milliseconds, seconds, whole};
use jitney_settings::{Report, Table, Written, read_document, rule::Rule};

use super::{RequestSpec, Scenario, Server, Sizes, Step};
use crate::arrivals::Arrivals;
use crate::driver::Stop;
use crate::slo::{Growth, Slo};
use crate::target::{Protocol, Tls};
use arrivals::{RATES, arrivals};
use faults::fault;

const A_DAY: f64 = 86_400.0;

/// What `source`, the text of the scenario at `file`, means; or everything wrong with it.
///
/// The file is not opened: `file` is for the messages, and its folder is where paths in it start.
pub fn read_scenario(file: &Path, source: &str) -> Result<Scenario, Report> {
    let scenario = read_document(file, source, |table| scenario(file, table))?;
    Ok(Scenario {
        source: source.to_owned(),
        ..scenario
    })
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
        source: String::new(),
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
    ("rest", Protocol::Rest),
    ("rest_json", Protocol::RestJson),
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
    let protocol = table.value("protocol", PROTOCOLS).unwrap_or_default();
    let tls = table.section("tls", |table| tls(folder, table));
    if tls.is_some() && matches!(protocol, Protocol::Rest | Protocol::RestJson) {
        let message = "is offered over gRPC alone";
        table.contradict("tls", message.to_owned());
    }
    ServerTable {
        server: match (address, command) {
            (_, Some(command)) => Server::Start(command),
            (Some(address), None) => Server::At(address),
            (None, None) => default.server,
        },
        protocol,
        tls,
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
