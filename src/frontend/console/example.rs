//! A request as people paste it.

use axum::extract::{Request, State};
use axum::http::header::HOST;
use serde::Serialize;

use super::asked::Asked;
use super::{View, now};
use crate::frontend::rest::{Answer, held, receive};
use crate::status::Status;
use crate::wire::{Examples, Place, PlainRequest};

/// Bytes of a request that is shown as text; more is nothing to paste.
const MOST: usize = 64 * 1024;

#[derive(Serialize)]
struct Example {
    /// As REST takes it.
    request: PlainRequest,
    #[serde(flatten)]
    examples: Examples,
}

/// A first request to a version.
pub(super) async fn first(State(view): State<View>, request: Request) -> Answer {
    view.example(&request, None)
}

/// The request of the body, which is as REST takes it.
pub(super) async fn of_request(State(view): State<View>, request: Request) -> Answer {
    let (parts, body) = request.into_parts();
    let held = held(&parts.extensions)?;
    let most = MOST.min(view.limits.max_message_bytes);
    let json = receive(&parts.headers, body, &held, most).await?.json;
    let plain = serde_json::from_slice(&json)
        .map_err(|error| Status::invalid(format!("the request's JSON: {error}")))?;
    view.example(
        &Request::from_parts(parts, axum::body::Body::empty()),
        Some(plain),
    )
}

impl View {
    fn example(&self, asked: &Request, plain: Option<PlainRequest>) -> Answer {
        let said = Asked::read(asked, &["model", "version"])?;
        let model = said.model.unwrap_or_default();
        let version = self.api.engine.catalog().resolve(&model, &said.version)?;
        let rest = host(asked);
        // Without the port, which an IPv6 address has behind its bracket.
        let name = rest
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'));
        let name = name.map_or(rest, |(name, _)| name);
        let request = plain.unwrap_or_else(|| PlainRequest::first(&version));
        let examples = request.examples(Place {
            grpc: &format!("{name}:{}", self.console.grpc_port),
            rest,
            entry: &self.console.entry,
            version: &version,
            by_number: !said.version.is_empty(),
        });
        Ok(now(&Example { request, examples }))
    }
}

/// What the client calls this server, if that is a name: it goes into a line for a shell.
fn host(request: &Request) -> &str {
    let header = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let host = header.or(authority).unwrap_or_default();
    let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-._:[]".contains(letter);
    match !host.is_empty() && host.chars().all(allowed) {
        true => host,
        false => "localhost",
    }
}
