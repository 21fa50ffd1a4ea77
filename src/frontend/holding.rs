//! Bodies of answers that hold something until they have been sent.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Version;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::body::Body;

use super::delivery::Awaited;

/// Of larger messages HTTP/2 takes a piece at a time, as its client takes them. Who takes no piece within
/// `write_timeout_ms` takes nothing.
const PIECE: usize = 64 * 1024;
/// What is no larger is not cut: HTTP/2 has about as much in its books for a call.
const WHOLE: usize = 1024;

pin_project! {
    /// A response's body that holds something until it has been sent.
    pub(super) struct Holding<T> {
        #[pin]
        inner: Body,
        // What has been taken from `inner` and not been passed on.
        rest: Bytes,
        in_pieces: bool,
        _held: T,
    }
}

impl<T: Send + 'static> Holding<T> {
    /// The body, which is passed on as it comes.
    pub(super) fn body(inner: Body, held: T) -> Body {
        Self::made(inner, held, false)
    }

    /// The same; to HTTP/2, which takes a message whole once there is room for a byte of it, in pieces.
    pub(super) fn in_pieces(inner: Body, held: T, version: Version) -> Body {
        Self::made(inner, held, version == Version::HTTP_2)
    }

    fn made(inner: Body, held: T, in_pieces: bool) -> Body {
        Body::new(Self {
            inner,
            rest: Bytes::new(),
            in_pieces,
            _held: held,
        })
    }
}

impl<T> http_body::Body for Holding<T> {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.project();
        if this.rest.is_empty() {
            let Poll::Ready(frame) = this.inner.poll_frame(context) else {
                Awaited::Server.note();
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) if *this.in_pieces && is_large(&frame) => {
                    *this.rest = frame.into_data().unwrap_or_default();
                }
                other => {
                    Awaited::Client.note();
                    return Poll::Ready(other);
                }
            }
        }
        Awaited::Client.note();
        let piece = this.rest.split_to(piece(this.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.inner.size_hint();
        let rest = self.rest.len() as u64;
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

fn is_large(frame: &Frame<Bytes>) -> bool {
    frame.data_ref().is_some_and(|data| data.len() > WHOLE)
}

/// How much is passed on of so many bytes. The last goes alone: it is not taken before there is room for
/// everything, and so neither is the end, with which what is held is given back.
fn piece(bytes: usize) -> usize {
    match bytes {
        0 | 1 => bytes,
        _ => PIECE.min(bytes - 1),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::{BodyExt, Full};

    use super::*;

    fn held(bytes: usize, version: Version) -> (Body, Arc<()>) {
        let data: Vec<u8> = (0..bytes).map(|at| (at % 251) as u8).collect();
        let held = Arc::new(());
        let body = Body::new(Full::from(data).map_err(|never| match never {}));
        (Holding::in_pieces(body, Arc::clone(&held), version), held)
    }

    /// The pieces, for each of which the body says how much is left.
    async fn pieces(bytes: usize, version: Version) -> Vec<usize> {
        let (mut body, held) = held(bytes, version);
        let (mut whole, mut sizes) = (Vec::new(), Vec::new());
        while !http_body::Body::is_end_stream(&body) {
            let hint = http_body::Body::size_hint(&body);
            assert_eq!(hint.exact(), Some((bytes - whole.len()) as u64));
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(Arc::strong_count(&held), 2);
            let data = frame.into_data().unwrap();
            sizes.push(data.len());
            whole.extend(data);
        }
        let right = (0..bytes).map(|at| (at % 251) as u8);
        assert!(whole.into_iter().eq(right));
        drop(body);
        assert_eq!(Arc::strong_count(&held), 1);
        sizes
    }

    #[tokio::test]
    async fn large_messages_go_in_pieces_and_the_last_byte_alone() {
        let http2 = Version::HTTP_2;
        assert_eq!(pieces(WHOLE, http2).await, [WHOLE]);
        assert_eq!(pieces(WHOLE + 1, http2).await, [WHOLE, 1]);
        assert_eq!(pieces(PIECE, http2).await, [PIECE - 1, 1]);
        assert_eq!(pieces(PIECE + 1, http2).await, [PIECE, 1]);
        assert_eq!(pieces(2 * PIECE + 9, http2).await, [PIECE, PIECE, 8, 1]);
        assert_eq!(pieces(2 * PIECE, Version::HTTP_11).await, [2 * PIECE]);
    }
}
