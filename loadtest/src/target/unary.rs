//! A call for each request.

use bytes::Bytes;
use http::uri::PathAndQuery;
use tonic::Code;
use tonic::client::Grpc;
use tonic::transport::Channel;

use super::codec::{Numbered, Raw};
use crate::requests::Request;

const METHOD: &str = "/inference.GRPCInferenceService/ModelInfer";

/// The answer as it came, or the code with which the call failed.
pub(super) async fn call(channel: Channel, request: &Request, number: u64) -> Result<Bytes, Code> {
    let mut client = Grpc::new(channel).max_decoding_message_size(usize::MAX);
    client.ready().await.map_err(|_| Code::Unavailable)?;
    let numbered = Numbered {
        encoded: request.encoded.clone(),
        number,
    };
    let path = PathAndQuery::from_static(METHOD);
    let answer = client.unary(tonic::Request::new(numbered), path, Raw).await;
    let answer = answer.map_err(|status| status.code())?;
    Ok(answer.into_inner())
}
