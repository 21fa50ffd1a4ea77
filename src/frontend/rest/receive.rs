//! Reads bodies: counted as they come in, JSON apart from the tensors that follow it.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{Extensions, HeaderMap, HeaderName};
use bytes::Bytes;
use http_body_util::BodyExt;

use super::Held;
use crate::status::{Code, Status};

/// How long the JSON before the tensors is (binary tensor data extension).
pub(in crate::frontend) const HEADER_LENGTH: HeaderName =
    HeaderName::from_static("inference-header-content-length");

/// Memory that is set aside for what a client says it will send, before it has.
const MOST_AHEAD: usize = 4 * 1024 * 1024;

/// A body that has come in whole.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::frontend) struct Received {
    pub(in crate::frontend) json: Bytes,
    /// In memory of their own, so that the first is aligned for its elements.
    pub(super) tensors: Bytes,
}

/// The call's share of what is taken in at once.
pub(in crate::frontend) fn held(extensions: &Extensions) -> Result<Arc<Held>, Status> {
    let held = extensions.get::<Arc<Held>>().cloned();
    held.ok_or_else(|| Status::internal("the call was not counted"))
}

/// Reads a body of up to `most` bytes.
pub(in crate::frontend) async fn receive(
    headers: &HeaderMap,
    mut body: Body,
    held: &Held,
    most: usize,
) -> Result<Received, Status> {
    let split = length(headers, &HEADER_LENGTH)?;
    // A compressed body has lost its length by now.
    let whole = length(headers, &CONTENT_LENGTH)?;
    if whole.is_some_and(|whole| whole > most) {
        return Err(too_large(most));
    }
    let json_length = split.or(whole).unwrap_or(0);
    let mut json = Gathered::expecting(json_length);
    let mut tensors = Gathered::expecting(whole.unwrap_or(0).saturating_sub(json_length));
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Status::invalid(format!("the body ends: {error}")))?;
        let Ok(mut piece) = frame.into_data() else {
            continue;
        };
        if json.length + tensors.length + piece.len() > most {
            return Err(too_large(most));
        }
        held.take(piece.len())?;
        let rest = split.map_or(usize::MAX, |split| split - json.length);
        json.add(piece.split_to(rest.min(piece.len())));
        tensors.add(piece);
    }
    if let Some(split) = split.filter(|split| json.length < *split) {
        return Err(Status::invalid(format!(
            "Inference-Header-Content-Length is {split} where the body has {} bytes",
            json.length
        )));
    }
    Ok(Received {
        json: json.whole(),
        tensors: tensors.whole(),
    })
}

fn length(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, Status> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Status::invalid(format!("{name} is not a whole number of bytes")))
}

fn too_large(most: usize) -> Status {
    let message = format!("a body of more than {most} bytes, the most that is taken");
    Status::new(Code::ResourceExhausted, message)
}

/// Pieces put together; one alone is not copied.
struct Gathered {
    expected: usize,
    first: Bytes,
    all: Vec<u8>,
    length: usize,
}

impl Gathered {
    fn expecting(expected: usize) -> Self {
        Self {
            expected: expected.min(MOST_AHEAD),
            first: Bytes::new(),
            all: Vec::new(),
            length: 0,
        }
    }

    fn add(&mut self, piece: Bytes) {
        if piece.is_empty() {
            return;
        }
        let before = self.length;
        self.length += piece.len();
        if before == 0 {
            self.first = piece;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(self.expected.max(self.length));
            self.all.extend_from_slice(&self.first);
        }
        self.all.extend_from_slice(&piece);
    }

    fn whole(self) -> Bytes {
        match self.all.is_empty() {
            true => self.first,
            false => self.all.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_put_together_however_they_are_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..9),
            expected in 0..200_usize,
        ) {
            let mut gathered = Gathered::expecting(expected);
            for piece in &pieces {
                gathered.add(Bytes::copy_from_slice(piece));
            }
            prop_assert_eq!(&gathered.whole()[..], &pieces.concat()[..]);
        }
    }
}
