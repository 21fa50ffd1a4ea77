//! Inference over HTTP.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::receive::{HEADER_LENGTH, held, receive};
use super::{Answer, Named, Rest, error};
use crate::frontend::api::Beside;
use crate::frontend::limits::Held;
use crate::frontend::traces::{aside, asks_for_timing};
use crate::status::Status;
use crate::telemetry::Watched;
use crate::wire::rest::{RestAnswer, infer_request, infer_response};

/// Tensors up to this size are sent with the JSON: copying them costs less than another piece.
const ONE_PIECE: usize = 16 * 1024;

/// Answers one request.
pub(super) async fn infer(State(rest): State<Rest>, named: Named, request: Request) -> Answer {
    let held = held(request.extensions())?;
    let context = rest.api.traced(request.headers());
    let mut watched = rest.api.requests.begin(held.arrived, context);
    if asks_for_timing(request.headers()) {
        watched.timed();
    }
    let answer = infer_watched(&rest, named, request, &held, &mut watched).await;
    let said = watched.ended(answer.as_ref().err().map(|status| status.code));
    let mut response = match answer {
        Ok(answer) => written(answer),
        Err(status) => error(&status),
    };
    for (name, value) in aside(said) {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

async fn infer_watched(
    rest: &Rest,
    named: Named,
    request: Request,
    held: &Arc<Held>,
    watched: &mut Watched<'_>,
) -> Result<RestAnswer, Status> {
    let (parts, body) = request.into_parts();
    let most = rest.limits.max_message_bytes;
    let received = receive(&parts.headers, body, held, most).await?;
    let on_wire = received.tensors.len();
    let asked = infer_request(
        &named.model,
        &named.version,
        &received.json,
        received.tensors,
    )?;
    let inputs = asked.asked.request.inputs.iter();
    let bytes: usize = inputs.map(|input| input.tensor.data.len()).sum();
    // Those that came as JSON are in memory twice.
    held.take(bytes.saturating_sub(on_wire))?;
    let forwarded = rest.api.forwarded(&parts.headers);
    let beside = Beside {
        deadline: None,
        forwarded: &forwarded,
        held: Some(held),
        alone: held.is_alone(),
    };
    let response = rest.api.infer(asked.asked, beside, watched).await?;
    infer_response(&response, &asked.binary)
}

fn written(answer: RestAnswer) -> Response {
    let RestAnswer { mut json, tensors } = answer;
    let split = json.len();
    let size: usize = tensors.iter().map(Bytes::len).sum();
    let is_json = tensors.is_empty();
    let body = if size <= ONE_PIECE {
        json.extend(tensors.into_iter().flatten());
        Body::from(json)
    } else {
        let mut pieces = VecDeque::from(tensors);
        pieces.push_front(json.into());
        Body::new(Pieces(pieces))
    };
    let mut answer = Response::new(body);
    let headers = answer.headers_mut();
    let content = match is_json {
        true => "application/json",
        false => "application/octet-stream",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content));
    if !is_json {
        headers.insert(HEADER_LENGTH, HeaderValue::from(split));
    }
    answer
}

/// A body whose pieces are sent as they are.
struct Pieces(VecDeque<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|piece| piece.len() as u64).sum())
    }
}
