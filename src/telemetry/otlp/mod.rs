//! OTLP: traces and metrics as receivers of OpenTelemetry take them (<https://opentelemetry.io/docs/specs/otlp/>).
//! Uses the stories and the families of `telemetry`, and `tonic` as a client.
//! Never has anybody wait for a receiver but its own two tasks.

mod families;
mod receiver;
mod spans;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::{mpsc, watch};
use url::Url;

use super::source::{InFlight, Metrics};
use super::story::Story;
use super::tracer::{Spans, Tracer};
use crate::clock::{Clock, wall_nanoseconds};
use receiver::Receiver;
pub use receiver::SendError;

/// Requests that are sent at once: with all their spans less than the 4 MiB that receivers take.
const BATCH: usize = 256;
/// Between batches that were not full, so that they become fuller.
const REST: Duration = Duration::from_millis(200);
/// After one that did not arrive.
const RECOVERY: Duration = Duration::from_secs(1);
/// How long a receiver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How messages travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    #[default]
    Grpc,
    /// OTLP/HTTP, in protobuf.
    Http,
}

/// Where to send what, and how.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The receiver.
    pub endpoint: Url,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// Headers that it wants to see.
    pub headers: Vec<(String, String)>,
    /// What is said of this server, beside what it knows itself.
    pub resource: Vec<(String, String)>,
    /// The share of requests that is told in traces.
    pub trace_ratio: f64,
    /// Between metrics and metrics.
    pub metrics_interval: Duration,
}

/// The sending half of telemetry, before it runs.
pub struct Exporter {
    sender: Sender,
    stories: mpsc::Receiver<Arc<Story>>,
    spans: Arc<Spans>,
    interval: Duration,
}

/// Counts what the frontend holds.
pub type Holds = Box<dyn Fn() -> InFlight + Send + Sync>;

impl Exporter {
    /// One for this destination, and who decides what is told. Connects when there is something to send.
    pub fn new(to: &Destination, clock: Arc<dyn Clock>) -> Result<(Self, Tracer), SendError> {
        let (tracer, stories) = Tracer::new(to.trace_ratio);
        let sender = Sender {
            receiver: Receiver::new(to)?,
            resource: resource(&to.resource),
            clock,
            has_failed: false,
        };
        let exporter = Self {
            sender,
            stories,
            spans: Arc::clone(tracer.spans()),
            interval: to.metrics_interval,
        };
        Ok((exporter, tracer))
    }

    /// Sends until `ends` is true, and then what is left.
    pub async fn run(self, metrics: Metrics, holds: Holds, ends: watch::Receiver<bool>) {
        let of_metrics = self.sender.clone();
        let families = push_metrics(of_metrics, metrics, holds, self.interval, ends.clone());
        let stories = push_stories(self.sender, self.stories, self.spans, ends);
        tokio::join!(stories, families);
    }
}

async fn push_stories(
    mut sender: Sender,
    mut stories: mpsc::Receiver<Arc<Story>>,
    counts: Arc<Spans>,
    mut ends: watch::Receiver<bool>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            came = stories.recv_many(&mut batch, BATCH) => {
                if came == 0 {
                    return;
                }
            }
            _ = ends.wait_for(|ends| *ends), if !stories.is_closed() => {
                stories.close();
                continue;
            }
        }
        let is_full = batch.len() == BATCH;
        let sent = sender.send_stories(&mut batch, &counts).await;
        let rest = match sent {
            true if is_full => continue,
            true => REST,
            false => RECOVERY,
        };
        sender.rest(rest, &mut ends).await;
    }
}

async fn push_metrics(
    mut sender: Sender,
    metrics: Metrics,
    holds: Holds,
    interval: Duration,
    mut ends: watch::Receiver<bool>,
) {
    let start = wall_nanoseconds();
    loop {
        let is_over = sender.rest(interval, &mut ends).await;
        let families = metrics.families(holds());
        for message in families::messages(&families, start, wall_nanoseconds()) {
            // What one does not arrive for, the next would not.
            if !sender.send_metrics(message).await {
                break;
            }
        }
        if is_over {
            return;
        }
    }
}

/// Sends one message after the other.
#[derive(Clone)]
struct Sender {
    receiver: Receiver,
    resource: Resource,
    clock: Arc<dyn Clock>,
    has_failed: bool,
}

impl Sender {
    /// Empties the batch; true if it arrived.
    async fn send_stories(&mut self, batch: &mut Vec<Arc<Story>>, counts: &Spans) -> bool {
        let told: Vec<_> = batch
            .drain(..)
            .flat_map(|story| spans::of(&story))
            .collect();
        let all = told.len();
        let message = spans::message(told, self.resource.clone());
        let sent = self.within(self.receiver.traces(message)).await;
        let refused = match &sent {
            Ok(refused) => (*refused).min(all),
            Err(_) => all,
        };
        counts
            .sent
            .fetch_add((all - refused) as u64, Ordering::Relaxed);
        counts.dropped.fetch_add(refused as u64, Ordering::Relaxed);
        self.note("traces", sent)
    }

    /// True if it arrived.
    async fn send_metrics(&mut self, mut message: families::Message) -> bool {
        for metrics in &mut message.resource_metrics {
            metrics.resource = Some(self.resource.clone());
        }
        let sent = self.within(self.receiver.metrics(message)).await;
        self.note("metrics", sent)
    }

    async fn within<T>(
        &self,
        sent: impl Future<Output = Result<T, SendError>>,
    ) -> Result<T, SendError> {
        let clock = self.clock.as_ref();
        tokio::select! {
            sent = sent => sent,
            () = clock.sleep_until(clock.now() + PATIENCE) => Err(SendError::Silent(PATIENCE)),
        }
    }

    /// A line when it fails first, and one when it is well again.
    fn note<T>(&mut self, what: &str, sent: Result<T, SendError>) -> bool {
        match sent {
            Ok(_) if self.has_failed => tracing::info!(what, "the OTLP receiver takes them again"),
            Ok(_) => {}
            Err(ref error) if !self.has_failed => {
                tracing::warn!(what, %error, "the OTLP receiver does not take them: dropped");
            }
            Err(_) => {}
        }
        self.has_failed = sent.is_err();
        sent.is_ok()
    }

    /// True if everything ends meanwhile.
    async fn rest(&self, time: Duration, ends: &mut watch::Receiver<bool>) -> bool {
        let clock = self.clock.as_ref();
        tokio::select! {
            biased;
            _ = ends.wait_for(|ends| *ends) => true,
            () = clock.sleep_until(clock.now() + time) => false,
        }
    }
}

/// What is said of this server, by OpenTelemetry's conventions; the operator's word goes before ours.
fn resource(given: &[(String, String)]) -> Resource {
    let instance = format!("{:032x}", fastrand::u128(..));
    let own = [
        ("service.name", "jitney"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", &instance),
        ("telemetry.sdk.name", "jitney"),
        ("telemetry.sdk.language", "rust"),
        ("telemetry.sdk.version", env!("CARGO_PKG_VERSION")),
    ];
    let is_given = |key: &str| given.iter().any(|(name, _)| name == key);
    let own = own.into_iter().filter(|(key, _)| !is_given(key));
    let given = given.iter().map(|(key, value)| text(key, value));
    Resource {
        attributes: own
            .map(|(key, value)| text(key, value))
            .chain(given)
            .collect(),
        ..Resource::default()
    }
}

fn scope() -> InstrumentationScope {
    InstrumentationScope {
        name: "jitney".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}
