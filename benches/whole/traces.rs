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

pub(crate) async fn measure(table: &mut Table) -> anyhow::Result<()> {
    let receiver = Process::receiver()?;
    let url = format!("http://{}", receiver.address);
    let models = folder("tests/models");
    let traced = |ratio| jitney_with(&models, &["--otlp-endpoint", &url, "--trace-ratio", ratio]);
    // The first twice: what two that are the same differ by is noise.
    let servers = [
        (jitney(&models)?, "", ""),
        (jitney(&models)?, "the same again", "0"),
        (traced("0")?, "with a receiver, none sampled", "1"),
        (traced("0.01")?, "1 of 100 sampled", "3"),
    ];
    let mut costs: [Vec<f64>; 4] = Default::default();
    let mut rates: [Vec<f64>; 4] = Default::default();
    for turn in 0..TURNS {
        for place in 0..servers.len() {
            // Whoever comes first is another each time.
            let number = (turn + place) % servers.len();
            let server = &servers[number].0;
            let before = server.processor_seconds()?;
            let run = closed(&server.address, CONNECTIONS, IN_FLIGHT);
            let rate = run.run(&[tiny()]).await?.rate();
            let took = server.processor_seconds()? - before;
            costs[number].push(took / rate / (WARM_UP + DURATION).as_secs_f64());
            rates[number].push(rate);
        }
    }
    for number in 1..servers.len() {
        let (_, what, aim) = &servers[number];
        let over = |ours: &[f64], plain: &[f64]| -> Vec<f64> {
            let pairs = ours.iter().zip(plain);
            pairs
                .map(|(ours, plain)| (ours / plain - 1.0) * 100.0)
                .collect()
        };
        let name = format!("tiny model, {IN_FLIGHT} in flight, traces: {what}");
        let costs = over(&costs[number], &costs[0]);
        table.add(Row::percent(
            &format!("{name}: processor time a request"),
            costs,
            aim,
        ));
        let slower = over(&rates[0], &rates[number]);
        table.add(Row::percent(
            &format!("{name}: time by requests/s"),
            slower,
            aim,
        ));
    }
    Ok(())
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
