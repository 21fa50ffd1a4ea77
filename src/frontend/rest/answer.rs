//! Answers: messages of the protocol as JSON, and outcomes as HTTP statuses.

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions, Value};
use serde::Serialize;

use super::Answer;
use crate::proto::MESSAGES;
use crate::status::{Code, Status};

/// Every field, by the name it has in `proto/`, and 64-bit integers as numbers.
const AS_CLIENTS_READ: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false)
    .stringify_64_bit_integers(false);

/// Why a request is not answered as it hoped.
#[derive(Debug)]
pub(in crate::frontend) struct Refusal(pub(super) Status);

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        error(&self.0)
    }
}

/// A status as HTTP sends it.
pub(in crate::frontend) fn error(status: &Status) -> Response {
    #[derive(Serialize)]
    struct Error<'a> {
        error: &'a str,
    }
    let mut answer = plain(&Error {
        error: &status.message,
    });
    let number = match (status.code, status.retry_after) {
        // It will not fit the next time either.
        (Code::ResourceExhausted, None) => 413,
        (code, _) => code.http(),
    };
    *answer.status_mut() = StatusCode::from_u16(number).unwrap_or_default();
    if let Some(after) = status.retry_after {
        // The header counts seconds.
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let headers = answer.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}

/// A document of our own as JSON.
pub(in crate::frontend) fn plain(body: &impl Serialize) -> Response {
    json(serde_json::to_vec(body).unwrap_or_default())
}

/// A message of the protocol as a JSON document.
pub(super) fn document<M: Message>(name: &str, message: &M) -> Answer {
    let mut body = Vec::new();
    write(&dynamic(name, message)?, &mut body)?;
    Ok(json(body))
}

/// A message of the protocol from JSON.
pub(super) fn read_message<M: Message + Default>(
    name: &str,
    json: serde_json::Value,
) -> Result<M, String> {
    let descriptor = MESSAGES
        .get_message_by_name(name)
        .ok_or("no such message")?;
    let message = DynamicMessage::deserialize(descriptor, json);
    let message = message.map_err(|error| error.to_string())?;
    message.transcode_to().map_err(|error| error.to_string())
}

/// The messages in one field of a message as a JSON list.
pub(super) fn field<M: Message>(name: &str, message: &M, field: &str) -> Answer {
    let message = dynamic(name, message)?;
    let value = message.get_field_by_name(field);
    let list = value.as_deref().and_then(Value::as_list);
    let mut body = vec![b'['];
    for (index, value) in list.ok_or_else(unreadable)?.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write(value.as_message().ok_or_else(unreadable)?, &mut body)?;
    }
    body.push(b']');
    Ok(json(body))
}

fn dynamic<M: Message>(name: &str, message: &M) -> Result<DynamicMessage, Status> {
    let descriptor = MESSAGES.get_message_by_name(name).ok_or_else(unreadable)?;
    let bytes = message.encode_to_vec();
    DynamicMessage::decode(descriptor, &bytes[..]).map_err(|_| unreadable())
}

fn write(message: &DynamicMessage, body: &mut Vec<u8>) -> Result<(), Status> {
    let mut writer = serde_json::Serializer::new(body);
    let written = message.serialize_with_options(&mut writer, &AS_CLIENTS_READ);
    written.map_err(|_| unreadable())
}

/// Our own messages are not described as they are: a mistake of ours.
fn unreadable() -> Status {
    Status::internal("the answer cannot be written as JSON")
}

pub(super) fn json(body: Vec<u8>) -> Response {
    let mut answer = Response::new(Body::from(body));
    let json = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}
