//! A closed loop: a fixed number of requests in flight, each answer followed by the next request.
//!
//! It measures a ceiling and service times. It does not measure what users at a given rate would
//! see, because a slow answer delays the requests behind it (coordinated omission).

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

use crate::proto::ModelInferRequest;
use crate::proto::grpc_inference_service_client::GrpcInferenceServiceClient;

/// As large as the server's windows, so that neither side waits for the other's.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// A fixed number of requests in flight, for a time.
#[derive(Clone, Debug)]
pub struct ClosedLoop {
    /// Such as `127.0.0.1:8001`.
    pub address: String,
    /// Connections over which the requests are spread.
    pub connections: usize,
    /// Requests in flight over all connections.
    pub in_flight: usize,
    /// What is left out of the figures at the start.
    pub warm_up: Duration,
    /// What is measured.
    pub duration: Duration,
}

/// What a run measured.
#[derive(Clone, Debug)]
pub struct Measured {
    /// Answers that came within the time measured.
    pub requests: u64,
    /// The time measured.
    pub elapsed: Duration,
    /// From sending to answer, in nanoseconds.
    pub latency: Histogram<u64>,
}

impl Measured {
    /// Answers a second.
    pub fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of requests did not exceed.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_nanos(self.latency.value_at_quantile(share))
    }
}

impl ClosedLoop {
    /// Sends these requests in turn, again and again; the first error ends the run.
    pub async fn run(&self, requests: &[ModelInferRequest]) -> anyhow::Result<Measured> {
        let mut channels = Vec::new();
        for _ in 0..self.connections.max(1) {
            channels.push(connect(&self.address).await?);
        }
        let start = now() + self.warm_up;
        let end = start + self.duration;
        let mut loops = JoinSet::new();
        for (first, channel) in channels.iter().cycle().take(self.in_flight).enumerate() {
            let every = requests.iter().cycle().skip(first).step_by(self.in_flight);
            // As many as there are different ones, so that each is sent as often as any.
            let own: Vec<ModelInferRequest> = every.take(requests.len()).cloned().collect();
            loops.spawn(drive(channel.clone(), own, start, end));
        }
        let mut latency = histogram()?;
        while let Some(one) = loops.join_next().await {
            latency.add(one??)?;
        }
        if latency.is_empty() {
            bail!("no answer came within {:?}", self.duration);
        }
        Ok(Measured {
            requests: latency.len(),
            elapsed: self.duration,
            latency,
        })
    }
}

async fn connect(address: &str) -> anyhow::Result<Channel> {
    Endpoint::from_shared(format!("http://{address}"))?
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .tcp_nodelay(true)
        .connect()
        .await
        .with_context(|| format!("cannot connect to {address}"))
}

async fn drive(
    channel: Channel,
    requests: Vec<ModelInferRequest>,
    start: Instant,
    end: Instant,
) -> anyhow::Result<Histogram<u64>> {
    let mut client = GrpcInferenceServiceClient::new(channel).max_decoding_message_size(usize::MAX);
    let mut latency = histogram()?;
    for request in requests.iter().cycle() {
        let sent = now();
        let answer = client.model_infer(request.clone()).await;
        let received = now();
        if received >= end {
            return Ok(latency);
        }
        answer.context("a request failed")?;
        if sent >= start {
            let nanoseconds = u64::try_from((received - sent).as_nanos()).unwrap_or(u64::MAX);
            latency.saturating_record(nanoseconds);
        }
    }
    bail!("there is no request to send")
}

/// Three digits, up to a minute.
fn histogram() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000_000, 3)?)
}

#[allow(clippy::disallowed_methods)] // measuring is what this crate reads the clock for
fn now() -> Instant {
    Instant::now()
}
