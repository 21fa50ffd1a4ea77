//! Whoever takes traces and metrics, over gRPC or over HTTP.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use url::Url;

use super::{Destination, Protocol};

/// Bytes of an answer that are read.
const MOST_ANSWER: usize = 64 * 1024;

/// Why something was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// A header is none.
    #[error("OTEL_EXPORTER_OTLP_HEADERS: {0:?} cannot be a header of its value")]
    Header(String),
    /// Nobody can be spoken to there.
    #[error("otlp_endpoint: {0}")]
    Endpoint(#[from] tonic::transport::Error),
    /// The receiver does not want it, or is not there.
    #[error("{0}")]
    Refused(#[from] tonic::Status),
    /// The same over HTTP.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// The same, with a status.
    #[error("HTTP status {0}")]
    Status(http::StatusCode),
    /// No answer came.
    #[error("no answer within {0:?}")]
    Silent(Duration),
}

/// A receiver. Connects when it is first used.
#[derive(Clone, Debug)]
pub(super) enum Receiver {
    Grpc {
        channel: Channel,
        headers: MetadataMap,
    },
    Http {
        client: reqwest::Client,
        traces: Url,
        metrics: Url,
    },
}

impl Receiver {
    pub(super) fn new(to: &Destination) -> Result<Self, SendError> {
        let headers = headers(&to.headers)?;
        Ok(match to.protocol {
            Protocol::Grpc => Self::Grpc {
                channel: Endpoint::from_shared(to.endpoint.to_string())?.connect_lazy(),
                headers: MetadataMap::from_headers(headers),
            },
            Protocol::Http => Self::Http {
                client: client(headers)?,
                traces: below(&to.endpoint, "traces"),
                metrics: below(&to.endpoint, "metrics"),
            },
        })
    }

    /// How many spans it refused, of those that it was sent.
    pub(super) async fn traces(
        &self,
        message: ExportTraceServiceRequest,
    ) -> Result<usize, SendError> {
        let answer: ExportTraceServiceResponse = match self {
            Self::Grpc { channel, headers } => {
                let mut client = TraceServiceClient::new(channel.clone());
                client.export(asked(message, headers)).await?.into_inner()
            }
            Self::Http { client, traces, .. } => post(client, traces, &message).await?,
        };
        let partly = answer.partial_success.unwrap_or_default();
        Ok(usize::try_from(partly.rejected_spans).unwrap_or(0))
    }

    /// The same of values.
    pub(super) async fn metrics(
        &self,
        message: ExportMetricsServiceRequest,
    ) -> Result<(), SendError> {
        let _: ExportMetricsServiceResponse = match self {
            Self::Grpc { channel, headers } => {
                let mut client = MetricsServiceClient::new(channel.clone());
                client.export(asked(message, headers)).await?.into_inner()
            }
            Self::Http {
                client, metrics, ..
            } => post(client, metrics, &message).await?,
        };
        Ok(())
    }
}

fn client(headers: HeaderMap) -> Result<reqwest::Client, SendError> {
    // Whoever was first has chosen the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Ok(reqwest::Client::builder()
        .default_headers(headers)
        .build()?)
}

fn asked<T>(message: T, headers: &MetadataMap) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    *request.metadata_mut() = headers.clone();
    request
}

async fn post<A: Message + Default>(
    client: &reqwest::Client,
    url: &Url,
    message: &impl Message,
) -> Result<A, SendError> {
    let request = client.post(url.clone());
    let request = request.header(CONTENT_TYPE, "application/x-protobuf");
    let mut answer = request.body(message.encode_to_vec()).send().await?;
    if !answer.status().is_success() {
        return Err(SendError::Status(answer.status()));
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if body.len() + piece.len() > MOST_ANSWER {
            return Ok(A::default());
        }
        body.extend(piece);
    }
    // Who answers with something else has taken it, says the status.
    Ok(A::decode(&body[..]).unwrap_or_default())
}

/// Where one kind of messages goes, below what the operator has named.
fn below(endpoint: &Url, what: &str) -> Url {
    let mut url = endpoint.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["v1", what]);
    }
    url
}

fn headers(given: &[(String, String)]) -> Result<HeaderMap, SendError> {
    let header = |(name, value): &(String, String)| {
        let name_of = || SendError::Header(name.clone());
        let known = HeaderName::try_from(name.to_lowercase()).map_err(|_| name_of())?;
        let mut value = HeaderValue::try_from(value).map_err(|_| name_of())?;
        value.set_sensitive(true);
        Ok((known, value))
    };
    given.iter().map(header).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_below_the_endpoint() {
        for (endpoint, traces) in [
            ("http://host:4318", "http://host:4318/v1/traces"),
            ("http://host:4318/", "http://host:4318/v1/traces"),
            ("https://host/otlp/", "https://host/otlp/v1/traces"),
        ] {
            let endpoint = Url::parse(endpoint).unwrap();
            assert_eq!(below(&endpoint, "traces").as_str(), traces);
        }
    }

    #[test]
    fn a_header_that_is_none_is_named_without_its_value() {
        let given = |name: &str, value: &str| vec![(name.to_owned(), value.to_owned())];
        let sound = headers(&given("Authorization", "Bearer x")).unwrap();
        assert_eq!(sound["authorization"], "Bearer x");
        let refused = headers(&given("a key", "secret")).unwrap_err().to_string();
        assert!(
            refused.contains("\"a key\"") && !refused.contains("secret"),
            "{refused}"
        );
    }
}
