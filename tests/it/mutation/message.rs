//! A call whose message is whatever bytes it is given.

use bytes::Bytes;
use http::uri::PathAndQuery;
use jitney::proto::ModelInferResponse;
use prost::Message;
use tonic::{Request, Status};

use crate::node::{Node, within};
use crate::plain_bytes::PlainBytes;

/// Sends these bytes as the message of `ModelInfer`.
pub(crate) async fn send_bytes(
    node: &Node,
    message: Vec<u8>,
) -> Result<ModelInferResponse, Status> {
    let mut call = tonic::client::Grpc::new(node.channel());
    call.ready().await.unwrap();
    let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
    let request = Request::new(Bytes::from(message));
    let answer = within("an answer", call.unary(request, path, PlainBytes)).await?;
    Ok(ModelInferResponse::decode(answer.into_inner()).unwrap())
}
