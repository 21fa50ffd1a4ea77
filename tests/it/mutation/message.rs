//! A call whose message is whatever bytes it is given.

use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use jitney::proto::ModelInferResponse;
use prost::Message;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Status};

use crate::node::{Node, within};

#[derive(Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
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

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Sends these bytes as the message of `ModelInfer`.
pub(crate) async fn send_bytes(
    node: &Node,
    message: Vec<u8>,
) -> Result<ModelInferResponse, Status> {
    let mut call = tonic::client::Grpc::new(node.channel());
    call.ready().await.unwrap();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let request = Request::new(Bytes::from(message));
    let answer = within("an answer", call.unary(request, path, BytesCodec)).await?;
    Ok(ModelInferResponse::decode(answer.into_inner()).unwrap())
}
