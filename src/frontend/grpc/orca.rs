//! Load reports for clients that balance (ORCA): beside requests as a stream, and with each answer as a
//! trailer where the operator says so.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use pin_project_lite::pin_project;
use prost::Message;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::{Request as Call, Response as Answer, Status};
use tower::{Layer, Service};

use super::ending::Ending;
use super::trailing::followed;
use crate::clock::Clock;
use crate::frontend::limits::Content;
use crate::proto::xds::data::orca::v3::OrcaLoadReport;
use crate::proto::xds::service::orca::v3::OrcaLoadReportRequest;
use crate::proto::xds::service::orca::v3::open_rca_service_server::{
    OpenRcaService, OpenRcaServiceServer,
};
use crate::telemetry::{Metrics, Report};

/// The trailer in which clients look for a report of each call.
const TRAILER: HeaderName = HeaderName::from_static("endpoint-load-metrics-bin");
/// Reports are made once a second; none comes sooner.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);
/// If a client does not say.
const INTERVAL: Duration = Duration::from_secs(10);

/// Tells a report at once, and one after each interval.
#[derive(Clone)]
pub(super) struct LoadReports {
    pub(super) metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
    /// Becomes true when the server stops.
    pub(super) ends: tokio::sync::watch::Receiver<bool>,
}

impl LoadReports {
    pub(super) fn service(self) -> Ending<OpenRcaServiceServer<Self>> {
        let ends = self.ends.clone();
        Ending::new(OpenRcaServiceServer::new(self), ends)
    }
}

#[tonic::async_trait]
impl OpenRcaService for LoadReports {
    type StreamCoreMetricsStream =
        Pin<Box<dyn Stream<Item = Result<OrcaLoadReport, Status>> + Send + 'static>>;

    async fn stream_core_metrics(
        &self,
        asked: Call<OrcaLoadReportRequest>,
    ) -> Result<Answer<Self::StreamCoreMetricsStream>, Status> {
        let asked = asked.into_inner().report_interval;
        let interval = asked.and_then(|asked| Duration::try_from(asked).ok());
        let interval = interval.unwrap_or(INTERVAL).max(LEAST_INTERVAL);
        let reports = stream::unfold(
            (self.clone(), Duration::ZERO),
            move |(mut own, wait)| async move {
                let next = own.clock.now() + wait;
                tokio::select! {
                    () = own.clock.sleep_until(next) => {}
                    _ = own.ends.wait_for(|ends| *ends) => return None,
                }
                let report = message(&own.metrics.report());
                Some((Ok(report), (own, interval)))
            },
        );
        Ok(Answer::new(Box::pin(reports)))
    }
}

fn message(report: &Report) -> OrcaLoadReport {
    let devices = report.devices.iter();
    OrcaLoadReport {
        cpu_utilization: report.processor,
        mem_utilization: report.memory,
        rps_fractional: report.requests,
        eps: report.errors,
        utilization: devices.map(|(name, used)| (name.clone(), *used)).collect(),
        named_metrics: [("queued_requests".to_owned(), report.queued as f64)].into(),
        application_utilization: report.used.unwrap_or(0.0),
        ..OrcaLoadReport::default()
    }
}

/// Puts a report into the trailers of every answer of gRPC.
#[derive(Clone, Debug)]
pub(in crate::frontend) struct ReportLayer(pub(in crate::frontend) Arc<Metrics>);

impl<S> Layer<S> for ReportLayer {
    type Service = Reporting<S>;

    fn layer(&self, inner: S) -> Reporting<S> {
        Reporting {
            inner,
            metrics: Arc::clone(&self.0),
        }
    }
}

/// A service whose answers carry a report.
#[derive(Clone, Debug)]
pub(in crate::frontend) struct Reporting<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Service<Request<Body>> for Reporting<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ReportingFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let is_grpc = Content::of(&request) == Content::Grpc;
        ReportingFuture {
            future: self.inner.call(request),
            metrics: is_grpc.then(|| Arc::clone(&self.metrics)),
        }
    }
}

pin_project! {
    /// The answer of a service that reports.
    pub(in crate::frontend) struct ReportingFuture<F> {
        #[pin]
        future: F,
        metrics: Option<Arc<Metrics>>,
    }
}

impl<F, E> Future for ReportingFuture<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = Result<Response<Body>, E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.future.poll(context))?;
        let Some(metrics) = this.metrics.take() else {
            return Poll::Ready(Ok(response));
        };
        let report = trailer(&metrics.report()).map(|report| (TRAILER, report));
        let trailers = HeaderMap::from_iter(report);
        Poll::Ready(Ok(response.map(|body| followed(body, trailers))))
    }
}

/// Base64 without padding, as gRPC has what is not text.
fn trailer(report: &Report) -> Option<HeaderValue> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD_NO_PAD;
    let text = STANDARD_NO_PAD.encode(message(report).encode_to_vec());
    HeaderValue::try_from(text).ok()
}
