//! Drives a server with a fixed number of requests in flight: what a benchmark of throughput wants.

use std::time::Duration;

use anyhow::ensure;
use jitney_load::proto::ModelInferRequest;
use jitney_load::{Arrivals, Endpoint, Mix, Plan, Protocol, Recording, Request, Target};

pub(crate) struct ClosedLoop {
    pub(crate) address: String,
    pub(crate) protocol: Protocol,
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
    /// What is left out of the figures at the start.
    pub(crate) warm_up: Duration,
    /// What is measured.
    pub(crate) duration: Duration,
}

impl ClosedLoop {
    /// Sends these requests in turn, again and again. All have to be answered.
    pub(crate) async fn run(&self, requests: &[ModelInferRequest]) -> anyhow::Result<Recording> {
        let endpoint = Endpoint {
            protocol: self.protocol,
            ..Endpoint::from(&self.address)
        };
        let target = Target::connect(endpoint, self.connections).await?;
        let requests = requests.iter().map(Request::new);
        let requests: anyhow::Result<_> = requests
            .map(|one| one.for_protocol(self.protocol))
            .collect();
        let mix = Mix::new(requests?);
        let in_flight = self.in_flight;
        let plan = Plan {
            timeout: Duration::from_secs(60),
            ..Plan::new(Arrivals::Closed { in_flight }, self.warm_up, self.duration)
        };
        let recording = plan.run(&target, &mix).await?;
        let ok = recording.outcomes.ok;
        ensure!(ok == recording.outcomes.all(), "{:?}", recording.outcomes);
        Ok(recording)
    }
}
