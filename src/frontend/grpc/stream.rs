//! `ModelStreamInfer`: requests answered side by side, responses in the order of the requests.

use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::service::{Call, infer};
use crate::frontend::api::Api;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};

/// What one stream needs.
pub(super) struct Exchange {
    pub(super) api: Api,
    pub(super) call: Call,
    /// Requests that may be unanswered at once; the client waits with more.
    pub(super) max_requests: usize,
    /// Becomes true when the server stops.
    pub(super) ends: watch::Receiver<bool>,
}

/// Answers a stream of requests. An error of one request is a message, not the end of the stream.
pub(super) fn stream_infer(
    exchange: Exchange,
    requests: Streaming<ModelInferRequest>,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> + Send {
    let Exchange {
        api,
        call,
        max_requests,
        ends,
    } = exchange;
    messages(requests, ends)
        .map(move |message| {
            let api = api.clone();
            let call = call.clone();
            async move {
                let message = message?;
                let id = message.id.clone();
                let now = api.engine.clock().now();
                let answer = infer(&api, message, &call, now, false).await;
                if let Some(held) = call.held {
                    held.give_back_message();
                }
                Ok(match answer {
                    Ok((response, flag)) => answered(response, flag),
                    Err(status) => failed(id, status.message),
                })
            }
        })
        .buffered(max_requests.max(1))
}

/// The client's messages until it has no more, or until the server stops.
fn messages(
    requests: Streaming<ModelInferRequest>,
    ends: watch::Receiver<bool>,
) -> impl Stream<Item = Result<ModelInferRequest, Status>> + Send {
    stream::unfold(Some((requests, ends)), |state| async {
        let (mut requests, mut ends) = state?;
        let message = tokio::select! {
            biased;
            message = requests.message() => message,
            _ = ends.wait_for(|ends| *ends) => {
                Err(Status::unavailable("the server is stopping; open a new stream"))
            }
        };
        match message {
            Ok(None) => None,
            Ok(Some(message)) => Some((Ok(message), Some((requests, ends)))),
            Err(status) => Some((Err(status), None)),
        }
    })
}

fn answered(mut response: ModelInferResponse, flag: bool) -> ModelStreamInferResponse {
    if flag {
        let last = InferParameter {
            parameter_choice: Some(ParameterChoice::BoolParam(true)),
        };
        response
            .parameters
            .insert("triton_final_response".to_owned(), last);
    }
    ModelStreamInferResponse {
        error_message: String::new(),
        infer_response: Some(response),
    }
}

fn failed(id: String, message: String) -> ModelStreamInferResponse {
    ModelStreamInferResponse {
        error_message: message,
        // The id tells a client with many requests under way which of them this is.
        infer_response: Some(ModelInferResponse {
            id,
            ..ModelInferResponse::default()
        }),
    }
}
