//! Whoever takes traces and metrics: a receiver of OTLP, over gRPC and over HTTP.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
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
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use super::node::within;

/// What came.
pub(crate) struct Receiver {
    pub(crate) url: String,
    traces: UnboundedReceiver<ExportTraceServiceRequest>,
    metrics: UnboundedReceiver<ExportMetricsServiceRequest>,
    /// Every span so far.
    pub(crate) spans: Vec<Span>,
    /// Who sent them.
    pub(crate) resource: Resource,
}

#[derive(Clone)]
struct Takes {
    traces: UnboundedSender<ExportTraceServiceRequest>,
    metrics: UnboundedSender<ExportMetricsServiceRequest>,
}

#[tonic::async_trait]
impl TraceService for Takes {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let _ = self.traces.send(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Takes {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let _ = self.metrics.send(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

impl Receiver {
    /// One for gRPC, or for HTTP below a path of its own.
    pub(crate) async fn start(http: bool) -> Self {
        let (traces, taken_traces) = unbounded_channel();
        let (metrics, taken_metrics) = unbounded_channel();
        let takes = Takes { traces, metrics };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        match http {
            true => tokio::spawn(over_http(listener, takes)),
            false => tokio::spawn(over_grpc(listener, takes)),
        };
        Self {
            url: format!("http://{address}{}", if http { "/otlp/" } else { "" }),
            traces: taken_traces,
            metrics: taken_metrics,
            spans: Vec::new(),
            resource: Resource::default(),
        }
    }

    /// Waits until the spans so far are what is waited for.
    pub(crate) async fn until(&mut self, what: &str, mut holds: impl FnMut(&[Span]) -> bool) {
        within(what, async {
            while !holds(&self.spans) {
                let came = self.traces.recv().await.unwrap();
                self.take(came);
            }
        })
        .await;
    }

    /// What has come, once nobody sends any more.
    pub(crate) fn rest(&mut self) -> &[Span] {
        while let Ok(came) = self.traces.try_recv() {
            self.take(came);
        }
        &self.spans
    }

    fn take(&mut self, came: ExportTraceServiceRequest) {
        for spans in came.resource_spans {
            self.resource = spans.resource.unwrap();
            let scopes = spans.scope_spans.into_iter();
            self.spans.extend(scopes.flat_map(|scope| scope.spans));
        }
    }

    /// The next metrics, by name.
    pub(crate) async fn metrics(&mut self) -> BTreeMap<String, Metric> {
        let came = within("metrics", self.metrics.recv()).await.unwrap();
        let resources = came.resource_metrics.into_iter();
        let resources = resources.inspect(|resource| {
            self.resource = resource.resource.clone().unwrap();
        });
        let scopes = resources.flat_map(|resource| resource.scope_metrics);
        let metrics = scopes.flat_map(|scope| scope.metrics);
        metrics
            .map(|metric| (metric.name.clone(), metric))
            .collect()
    }
}

async fn over_grpc(listener: TcpListener, takes: Takes) {
    tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(takes.clone()))
        .add_service(MetricsServiceServer::new(takes))
        .serve_with_incoming(TcpListenerStream::new(listener))
        .await
        .unwrap();
}

async fn over_http(listener: TcpListener, takes: Takes) {
    let Takes { traces, metrics } = takes;
    let routes = Router::new()
        .route(
            "/otlp/v1/traces",
            post(async move |body: Bytes| {
                let _ = traces.send(Message::decode(body).unwrap());
            }),
        )
        .route(
            "/otlp/v1/metrics",
            post(async move |body: Bytes| {
                let _ = metrics.send(Message::decode(body).unwrap());
            }),
        );
    axum::serve(listener, routes).await.unwrap();
}

/// An attribute as text.
pub(crate) fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?;
    Some(match found.value.clone()?.value? {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}
