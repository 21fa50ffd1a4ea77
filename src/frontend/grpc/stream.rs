//! `ModelStreamInfer`: requests answered side by side, responses in the order of the requests.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::counted::Counted;
use super::service::{Call, infer};
use crate::frontend::api::Api;
use crate::frontend::identity::clients::Share;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::{InferParameter, ModelInferResponse, ModelStreamInferResponse};
use crate::telemetry::{Aside, SERVER_TIMING, TRACERESPONSE};

/// What one stream needs.
pub(super) struct Exchange {
    pub(super) api: Api,
    pub(super) call: Call,
    /// Requests that may be unanswered at once; the client waits with more.
    pub(super) max_requests: usize,
    /// What its client may ask, if that is limited.
    pub(super) share: Option<Arc<Share>>,
    /// Becomes true when the server stops.
    pub(super) ends: watch::Receiver<bool>,
}

/// Answers a stream of requests. An error of one request is a message, not the end of the stream.
pub(super) fn stream_infer(
    exchange: Exchange,
    requests: Streaming<Counted>,
) -> impl Stream<Item = Result<ModelStreamInferResponse, Status>> + Send {
    let Exchange {
        api,
        call,
        max_requests,
        share,
        ends,
    } = exchange;
    messages(requests, ends)
        .map(move |message| {
            let api = api.clone();
            let call = call.clone();
            let share = share.clone();
            async move {
                let message = message?;
                let id = message.message.id.clone();
                let now = api.engine.clock().now();
                let refused = share.and_then(|share| share.count(now).err());
                let (answer, aside) = match refused {
                    None => infer(&api, message, &call, now, false).await,
                    Some(status) => (Err(status), Aside::default()),
                };
                if let Some(held) = call.held {
                    held.give_back_message();
                }
                Ok(match answer {
                    Ok((response, flag)) => answered(response, flag, aside),
                    Err(status) => failed(id, status.message),
                })
            }
        })
        .buffered(max_requests.max(1))
}

/// The client's messages until it has no more, or until the server stops.
fn messages(
    requests: Streaming<Counted>,
    ends: watch::Receiver<bool>,
) -> impl Stream<Item = Result<Counted, Status>> + Send {
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

/// Each answer of a stream says by parameters what a call's would say by headers.
fn answered(
    mut response: ModelInferResponse,
    flag: bool,
    aside: Aside,
) -> ModelStreamInferResponse {
    let last = flag.then_some(ParameterChoice::BoolParam(true));
    for (name, choice) in [
        ("triton_final_response", last),
        (
            TRACERESPONSE,
            aside.response.map(ParameterChoice::StringParam),
        ),
        (
            SERVER_TIMING,
            aside.timing.map(ParameterChoice::StringParam),
        ),
    ] {
        if choice.is_some() {
            let parameter = InferParameter {
                parameter_choice: choice,
            };
            response.parameters.insert(name.to_owned(), parameter);
        }
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
