//! What traces cost: servers that tell none, that only might, and that tell one request of a hundred.

use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::processes::{Process, jitney, jitney_with};
use super::requests::tiny;
use super::table::{Row, Table};
use super::{DURATION, ROUNDS, WARM_UP, closed, folder};

const IN_FLIGHT: usize = 64;
const CONNECTIONS: usize = 4;
/// One percent is little: it takes many turns to see.
const TURNS: usize = 3 * ROUNDS;

/// A server, and what was seen of it.
struct Side {
    server: Process,
    what: &'static str,
    aim: &'static str,
    /// Processor time of a request, turn by turn.
    costs: Vec<f64>,
    rates: Vec<f64>,
}

impl Side {
    fn new(server: Process, what: &'static str, aim: &'static str) -> Self {
        Self {
            server,
            what,
            aim,
            costs: Vec::new(),
            rates: Vec::new(),
        }
    }

    async fn take_turn(&mut self) -> anyhow::Result<()> {
        let before = self.server.processor_seconds()?;
        let run = closed(&self.server.address, CONNECTIONS, IN_FLIGHT);
        let rate = run.run(&[tiny()]).await?.rate();
        let took = self.server.processor_seconds()? - before;
        let requests = rate * (WARM_UP + DURATION).as_secs_f64();
        self.costs.push(took / requests);
        self.rates.push(rate);
        Ok(())
    }
}

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let receiver = Process::receiver()?;
    let url = format!("http://{}", receiver.address);
    let models = folder("tests/models");
    let traced = |ratio| jitney_with(&models, &["--otlp-endpoint", &url, "--trace-ratio", ratio]);
    let mut plain = Side::new(jitney(&models)?, "", "");
    // What two that are the same differ by is noise.
    let mut others = [
        Side::new(jitney(&models)?, "none, once more", "0"),
        Side::new(traced("0")?, "none sampled", "1"),
        Side::new(traced("0.01")?, "1 of 100 sampled", "3"),
    ];
    for turn in 0..TURNS {
        // Whoever comes first is another each time.
        let mut sides: Vec<&mut Side> = others.iter_mut().chain([&mut plain]).collect();
        let first = turn % sides.len();
        sides.rotate_left(first);
        for side in sides {
            side.take_turn().await?;
        }
    }
    for side in &others {
        let name = format!("tiny model, {IN_FLIGHT} in flight, traces: {}", side.what);
        let costs = more(&side.costs, &plain.costs);
        table.add(Row::percent(
            &format!("{name}: processor time a request"),
            costs,
            side.aim,
        ));
        let times = more(&plain.rates, &side.rates);
        table.add(Row::percent(
            &format!("{name}: time a request, by requests/s"),
            times,
            side.aim,
        ));
    }
    Ok(())
}

/// Percent that each is more than its fellow.
fn more(ours: &[f64], plain: &[f64]) -> Vec<f64> {
    let pairs = ours.iter().zip(plain);
    pairs
        .map(|(ours, plain)| (ours / plain - 1.0) * 100.0)
        .collect()
}

struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Sink {
    async fn export(
        &self,
        _request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}

/// Takes traces and metrics until it is killed.
pub(crate) fn receive() -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            println!("gRPC on {}", listener.local_addr()?);
            println!("ready");
            tonic::transport::Server::builder()
                .add_service(TraceServiceServer::new(Sink))
                .add_service(MetricsServiceServer::new(Sink))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await?;
            Ok(())
        })
}
