//! The server that is driven: connections to it, and how one request is sent over one of them.
//!
//! What only control calls need goes over the first connection; requests take turns on all of them.

mod codec;
mod endpoint;
mod rest;
mod stream;
mod unary;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use prost::Message;
use tonic::Code;
use tonic::transport::Channel;

pub use endpoint::{Endpoint, Protocol, Tls};
pub(crate) use rest::Body;

use crate::outcome::Outcome;
use crate::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelStatistics, ModelStatisticsRequest, RepositoryModelLoadRequest,
    RepositoryModelUnloadRequest, ServerMetadataRequest,
};
use crate::requests::Request;
use rest::Rest;
use stream::Stream;

/// Connections to a server that speaks KServe V2.
#[derive(Clone, Debug)]
pub struct Target {
    connections: Arc<[Connection]>,
    strays: Arc<AtomicU64>,
}

/// One connection, and how requests go over it.
#[derive(Debug)]
enum Connection {
    /// A call for each request.
    Unary(Channel),
    /// One call for all of them.
    Stream(Stream),
    /// As many connections as there are requests in flight.
    Rest(Box<Rest>),
}

impl Target {
    /// So many connections to a server such as `127.0.0.1:8001`.
    pub async fn connect(
        endpoint: impl Into<Endpoint>,
        connections: usize,
    ) -> anyhow::Result<Self> {
        let endpoint = endpoint.into();
        let strays = Arc::new(AtomicU64::new(0));
        let mut made = Vec::new();
        for _ in 0..connections.max(1) {
            made.push(match endpoint.protocol {
                Protocol::Grpc => Connection::Unary(endpoint.connect().await?),
                Protocol::GrpcStream => {
                    let channel = endpoint.connect().await?;
                    Connection::Stream(Stream::new(channel, &strays))
                }
                Protocol::Rest | Protocol::RestJson => {
                    Connection::Rest(Box::new(Rest::new(&endpoint.address)))
                }
            });
        }
        Ok(Self {
            connections: made.into(),
            strays,
        })
    }

    /// Answers so far that nobody waited for: doubled, or of a request that was never sent.
    pub(crate) fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
    }

    /// The server's HTTP, if that is how it is spoken to.
    fn rest(&self) -> Option<&Rest> {
        match self.connections.first() {
            Some(Connection::Rest(rest)) => Some(rest),
            _ => None,
        }
    }

    fn any(&self) -> anyhow::Result<GrpcInferenceServiceClient<Channel>> {
        let channel = match self.connections.first() {
            Some(Connection::Unary(channel)) => channel.clone(),
            Some(Connection::Stream(stream)) => stream.channel(),
            Some(Connection::Rest(_)) | None => bail!("no connection for gRPC"),
        };
        Ok(GrpcInferenceServiceClient::new(channel).max_decoding_message_size(usize::MAX))
    }

    /// The server's name and version, as it says them.
    pub(crate) async fn about(&self) -> anyhow::Result<String> {
        if let Some(rest) = self.rest() {
            return rest.about().await;
        }
        let answer = self.any()?.server_metadata(ServerMetadataRequest {}).await;
        let about = answer.context("the server does not say what it is")?;
        let about = about.into_inner();
        Ok(format!("{} {}", about.name, about.version))
    }

    /// What the server says of a model.
    pub(crate) async fn metadata(
        &self,
        model: &str,
        version: &str,
    ) -> anyhow::Result<ModelMetadataResponse> {
        if let Some(rest) = self.rest() {
            let answer = rest.metadata(model, version).await;
            return answer.with_context(|| format!("the metadata of {model}"));
        }
        let request = ModelMetadataRequest {
            name: model.to_owned(),
            version: version.to_owned(),
        };
        let answer = self.any()?.model_metadata(request).await;
        let answer = answer.with_context(|| format!("the metadata of {model}"))?;
        Ok(answer.into_inner())
    }

    /// What the server has counted, by model and version; nothing if it does not count.
    pub(crate) async fn statistics(&self) -> Vec<ModelStatistics> {
        if let Some(rest) = self.rest() {
            return rest.statistics().await;
        }
        let Ok(mut client) = self.any() else {
            return Vec::new();
        };
        let answer = client.model_statistics(ModelStatisticsRequest::default());
        answer
            .await
            .map_or_else(|_| Vec::new(), |answer| answer.into_inner().model_stats)
    }

    /// Has the server load a model, anew if it has it.
    pub(crate) async fn load(&self, model: &str) -> anyhow::Result<()> {
        if let Some(rest) = self.rest() {
            return rest.repository(model, "load").await;
        }
        let request = RepositoryModelLoadRequest {
            model_name: model.to_owned(),
            ..RepositoryModelLoadRequest::default()
        };
        let answer = self.any()?.repository_model_load(request).await;
        answer.with_context(|| format!("loading {model}"))?;
        Ok(())
    }

    /// Has the server unload a model.
    pub(crate) async fn unload(&self, model: &str) -> anyhow::Result<()> {
        if let Some(rest) = self.rest() {
            return rest.repository(model, "unload").await;
        }
        let request = RepositoryModelUnloadRequest {
            model_name: model.to_owned(),
            ..RepositoryModelUnloadRequest::default()
        };
        let answer = self.any()?.repository_model_unload(request).await;
        answer.with_context(|| format!("unloading {model}"))?;
        Ok(())
    }

    /// One request by itself.
    pub(crate) async fn infer(
        &self,
        request: ModelInferRequest,
    ) -> anyhow::Result<ModelInferResponse> {
        if let Some(rest) = self.rest() {
            return rest.infer(&request).await;
        }
        Ok(self.any()?.model_infer(request).await?.into_inner())
    }

    /// Sends a request under this number and waits for its answer, for so long. Connections take
    /// turns by the number.
    pub(crate) async fn send(&self, request: &Request, number: u64, wait: Duration) -> Outcome {
        let place = number % self.connections.len().max(1) as u64;
        let Some(connection) = self.connections.get(place as usize) else {
            return Outcome::Missing;
        };
        let answer = async {
            match connection {
                Connection::Unary(channel) => {
                    let answer = unary::call(channel.clone(), request, number).await?;
                    Ok(judge(decoded(answer), request, number))
                }
                Connection::Rest(rest) => {
                    let body = request.body.as_ref().ok_or(Code::Internal)?;
                    Ok(judge(rest.call(body, number).await?, request, number))
                }
                Connection::Stream(stream) => {
                    let (answer, number) = stream.call(request).await?;
                    Ok(judge(Some(answer), request, number))
                }
            }
        };
        match tokio::time::timeout(wait, answer).await {
            Err(_) => Outcome::Missing,
            Ok(Err(code)) => Outcome::Failed(code),
            Ok(Ok(outcome)) => outcome,
        }
    }
}

fn decoded(answer: Bytes) -> Option<ModelInferResponse> {
    ModelInferResponse::decode(answer).ok()
}

/// Whether the answer could be read, is this request's, and says what it should.
fn judge(answer: Option<ModelInferResponse>, request: &Request, number: u64) -> Outcome {
    let Some(answer) = answer else {
        return Outcome::Wrong;
    };
    let expected = request.expected.as_ref();
    let right = expected.is_none_or(|expected| expected.is(&answer));
    match answer.id.parse() == Ok(number) && right {
        true => Outcome::Ok,
        false => Outcome::Wrong,
    }
}
