//! The server that is driven: connections to it, and how one request is sent over one of them.

use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use crate::outcome::Outcome;
use crate::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use crate::proto::{
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    RepositoryModelLoadRequest, ServerMetadataRequest,
};
use crate::requests::Request;

/// As large as the server's windows, so that neither side waits for the other's.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// Connections to a server that speaks KServe V2 over gRPC.
#[derive(Clone, Debug)]
pub struct Target {
    channels: Vec<Channel>,
}

impl Target {
    /// So many connections to an address such as `127.0.0.1:8001`.
    pub async fn connect(address: &str, connections: usize) -> anyhow::Result<Self> {
        let mut channels = Vec::new();
        for _ in 0..connections.max(1) {
            channels.push(connect(address).await?);
        }
        Ok(Self { channels })
    }

    fn any(&self) -> anyhow::Result<GrpcInferenceServiceClient<Channel>> {
        let channel = self.channels.first().context("no connection")?.clone();
        Ok(GrpcInferenceServiceClient::new(channel).max_decoding_message_size(usize::MAX))
    }

    /// The server's name and version, as it says them.
    pub(crate) async fn about(&self) -> anyhow::Result<String> {
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
        let request = ModelMetadataRequest {
            name: model.to_owned(),
            version: version.to_owned(),
        };
        let answer = self.any()?.model_metadata(request).await;
        let answer = answer.with_context(|| format!("the metadata of {model}"))?;
        Ok(answer.into_inner())
    }

    /// Has the server load a model, anew if it has it.
    pub(crate) async fn load(&self, model: &str) -> anyhow::Result<()> {
        let request = RepositoryModelLoadRequest {
            model_name: model.to_owned(),
            ..RepositoryModelLoadRequest::default()
        };
        let answer = self.any()?.repository_model_load(request).await;
        answer.with_context(|| format!("loading {model}"))?;
        Ok(())
    }

    /// One request by itself.
    pub(crate) async fn infer(
        &self,
        request: ModelInferRequest,
    ) -> anyhow::Result<ModelInferResponse> {
        Ok(self.any()?.model_infer(request).await?.into_inner())
    }

    /// The client of the `number`-th request: connections take turns.
    pub(crate) fn client(&self, number: u64) -> Option<Client> {
        let place = number % self.channels.len().max(1) as u64;
        let channel = self.channels.get(place as usize)?.clone();
        Some(Client(
            Grpc::new(channel).max_decoding_message_size(usize::MAX),
        ))
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

/// One connection, for one request at a time.
pub(crate) struct Client(Grpc<Channel>);

impl Client {
    /// Sends a request under this number and waits for its answer, for so long.
    pub(crate) async fn send(&mut self, request: &Request, number: u64, wait: Duration) -> Outcome {
        let sent = Numbered {
            encoded: request.encoded.clone(),
            number,
        };
        let answer = tokio::time::timeout(wait, self.call(sent)).await;
        match answer {
            Err(_) => Outcome::Missing,
            Ok(Err(status)) => Outcome::Failed(status.code()),
            Ok(Ok(answer)) => judge(&answer, number, request),
        }
    }

    async fn call(&mut self, request: Numbered) -> Result<Bytes, Status> {
        const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::new(Code::Unavailable, error.to_string()))?;
        let path = PathAndQuery::from_static(METHOD);
        let answer = self
            .0
            .unary(tonic::Request::new(request), path, Raw)
            .await?;
        Ok(answer.into_inner())
    }
}

/// Whether the answer can be read, is this request's, and says what it should.
fn judge(answer: &Bytes, number: u64, request: &Request) -> Outcome {
    let Ok(answer) = ModelInferResponse::decode(answer.clone()) else {
        return Outcome::Wrong;
    };
    let expected = request.expected.as_ref();
    let right = expected.is_none_or(|expected| expected.is(&answer));
    match answer.id == number.to_string() && right {
        true => Outcome::Ok,
        false => Outcome::Wrong,
    }
}

/// An encoded request and the id that it is given.
struct Numbered {
    encoded: Bytes,
    number: u64,
}

/// Requests are encoded beforehand. Answers are left as they are.
#[derive(Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Numbered;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Numbered;
    type Error = Status;

    fn encode(&mut self, item: Numbered, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item.encoded);
        // A field of a message may come anywhere in it, and the last of its kind counts.
        prost::encoding::string::encode(3, &item.number.to_string(), buffer);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
