//! Bodies of gRPC as they come in: counted, bounded, and waited for no longer than they may be silent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::body::Body;

use super::grpc::status::grpc;
use super::limits::Held;
use super::messages::{Messages, TooLarge};
use crate::clock::Sleep;

/// Smaller pieces are put together: each has a cost of its own, however small it is.
const SMALL_PIECE: usize = 4096;

/// A body whose messages are counted for a call. That of a stream may be silent between two of them.
pub(super) fn metered(inner: Body, messages: Messages, is_stream: bool, held: Arc<Held>) -> Body {
    Body::new(MeteredBody {
        inner,
        messages,
        is_stream,
        held,
        back: Back::default(),
        ends: None,
        refused: None,
    })
}

/// Pieces that are there and not passed on.
#[derive(Default)]
struct Back {
    pieces: VecDeque<Bytes>,
    /// Small ones that came after those.
    small: BytesMut,
}

impl Back {
    fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.small.is_empty()
    }

    fn add(&mut self, piece: Bytes) {
        if piece.len() < SMALL_PIECE {
            self.small.extend_from_slice(&piece);
            return;
        }
        if !self.small.is_empty() {
            self.pieces.push_back(self.small.split().freeze());
        }
        self.pieces.push_back(piece);
    }

    fn next(&mut self) -> Option<Bytes> {
        let small = || (!self.small.is_empty()).then(|| self.small.split().freeze());
        self.pieces.pop_front().or_else(small)
    }
}

pin_project! {
    /// A request's body whose bytes are counted as they come in.
    ///
    /// tonic makes room for a message once its length is known. So of a large one nothing is passed on before so much
    /// of it is there, and counted, that who sends a length alone costs no more than its bytes.
    struct MeteredBody {
        #[pin]
        inner: Body,
        held: Arc<Held>,
        messages: Messages,
        is_stream: bool,
        back: Back,
        // There while the client is waited for.
        ends: Option<Sleep>,
        // Why there is no more after what has been passed on.
        refused: Option<tonic::Status>,
    }
}

impl MeteredBody {
    /// The next piece, counted: what is to be passed on of it now.
    fn take(self: Pin<&mut Self>, mut data: Bytes) -> Result<Bytes, tonic::Status> {
        let this = self.project();
        this.held.take(data.len()).map_err(grpc)?;
        let received = |size| this.held.received(size);
        if let Err(TooLarge { at, status }) = this.messages.scan(&data, received) {
            // What came before it in the same piece is still to be answered.
            data.truncate(at);
            *this.refused = Some(grpc(status));
        }
        if !this.back.is_empty() {
            this.back.add(data);
            return Ok(Bytes::new());
        }
        if this.refused.is_none() && this.messages.is_announced() {
            this.back.add(data.split_off(this.messages.begins()));
        }
        Ok(data)
    }

    /// Ready when the client has been silent for too long where it may not be.
    fn poll_lost(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<tonic::Status> {
        let this = self.project();
        if *this.is_stream && !this.messages.is_inside() {
            *this.ends = None;
            return Poll::Pending;
        }
        let (patience, deadline) = (this.held.patience(), this.held.deadline);
        let ends = this
            .ends
            .get_or_insert_with(|| patience.begin_before(deadline));
        ready!(ends.as_mut().poll(context));
        let is_over = deadline.is_some_and(|deadline| deadline <= patience.now());
        Poll::Ready(tonic::Status::deadline_exceeded(match is_over {
            true => "the time that the client gives (grpc-timeout) was over before its request was there".to_owned(),
            false => patience.lost().to_string(),
        }))
    }
}

impl http_body::Body for MeteredBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        loop {
            let this = self.as_mut().project();
            let is_short = this.refused.is_none() && this.messages.is_announced();
            if !is_short && let Some(piece) = this.back.next() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            if let Some(status) = this.refused.take() {
                return Poll::Ready(Some(Err(status)));
            }
            let Poll::Ready(frame) = this.inner.poll_frame(context) else {
                let status = ready!(self.poll_lost(context));
                return Poll::Ready(Some(Err(status)));
            };
            *this.ends = None;
            let data = match frame.map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(status)) => return Poll::Ready(Some(Err(status))),
                None if this.back.is_empty() => return Poll::Ready(None),
                None => {
                    let told = "the body ends in the middle of a message";
                    return Poll::Ready(Some(Err(tonic::Status::internal(told))));
                }
            };
            match self.as_mut().take(data) {
                Ok(data) if data.is_empty() => {}
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(status) => return Poll::Ready(Some(Err(status))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.back.is_empty() && self.refused.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.back.is_empty() {
            true => self.inner.size_hint(),
            false => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::{FutureExt, StreamExt, stream};
    use http::{Request, Response};
    use http_body_util::{BodyExt, StreamBody};
    use proptest::prelude::*;
    use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
    use tokio::task::unconstrained;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::clock::MonotonicClock;
    use crate::frontend::limits::{LimitLayer, Limits};
    use crate::frontend::patience::Patience;

    const MIB: usize = 1024 * 1024;

    /// A call whose service gives its body back, and what is known of it.
    async fn call() -> (UnboundedSender<Bytes>, Body, LimitLayer) {
        let hour = Duration::from_secs(3600);
        let limits = Limits {
            max_message_bytes: 8 * MIB,
            max_connections: 1,
            max_concurrent_streams: 1,
            max_requests: 1,
            max_in_flight_bytes: 64 * MIB,
            max_stream_requests: 1,
            read_timeout: hour,
            write_timeout: None,
            max_connection_age: None,
            max_connection_age_grace: None,
            orca_trailers: false,
        };
        let clock = Arc::new(MonotonicClock::start());
        let layer = LimitLayer::new(limits, Patience::new(clock, hour));
        let (sends, pieces) = unbounded_channel::<Bytes>();
        let pieces = stream::unfold(pieces, async |mut pieces| {
            Some((pieces.recv().await?, pieces))
        });
        let frames = pieces.map(|piece| Ok::<_, tonic::Status>(Frame::data(piece)));
        let request = Request::post("/inference.GRPCInferenceService/ModelStreamInfer")
            .version(http::Version::HTTP_2)
            .body(Body::new(StreamBody::new(Box::pin(frames))))
            .unwrap();
        let echo = service_fn(async |request: Request<Body>| {
            Ok::<_, Infallible>(Response::new(request.into_body()))
        });
        let answer = layer.layer(echo).oneshot(request).await.unwrap();
        (sends, answer.into_body(), layer)
    }

    /// What is passed on by now.
    fn passed(body: &mut Body) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(Some(frame)) = unconstrained(body.frame()).now_or_never() {
            all.extend(frame.unwrap().into_data().unwrap());
        }
        all
    }

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.extend((0..length).map(|at| (at % 251) as u8));
        bytes
    }

    #[tokio::test]
    async fn a_large_message_is_passed_on_once_much_of_it_is_there() {
        let (sends, mut body, layer) = call().await;
        let (first, large) = (message(10), message(4 * MIB));
        // The end of one and the beginning of another in one piece.
        sends
            .send([&first[..], &large[..25]].concat().into())
            .unwrap();
        assert_eq!(passed(&mut body), first);
        for piece in large[25..MIB].chunks(1000) {
            sends.send(Bytes::copy_from_slice(piece)).unwrap();
        }
        assert_eq!(passed(&mut body), b"");
        assert_eq!(layer.in_flight().bytes, first.len() + MIB);
        sends
            .send(Bytes::copy_from_slice(&large[MIB..2 * MIB]))
            .unwrap();
        assert!(passed(&mut body) == large[..2 * MIB]);
        sends
            .send(Bytes::copy_from_slice(&large[2 * MIB..]))
            .unwrap();
        assert!(passed(&mut body) == large[2 * MIB..]);
        // What is no larger than that is passed on as it comes.
        let other = message(MIB);
        sends.send(Bytes::copy_from_slice(&other[..25])).unwrap();
        assert_eq!(passed(&mut body), other[..25]);
    }

    #[tokio::test]
    async fn a_body_that_ends_in_a_large_message_says_so() {
        let (sends, mut body, _layer) = call().await;
        sends
            .send(Bytes::copy_from_slice(&message(4 * MIB)[..25]))
            .unwrap();
        drop(sends);
        let status = body.frame().await.unwrap().unwrap_err();
        assert!(status.message().contains("in the middle"), "{status}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_passed_on_is_what_came(
            lengths in prop::collection::vec(
                prop::sample::select(vec![0, 7, 5000, MIB, MIB + 1, 2 * MIB]), 1..4),
            cut in prop::sample::select(vec![9_999, 100_000, MIB - 1, 3 * MIB]),
            is_excess: bool,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            runtime.block_on(async {
                let (sends, mut body, _layer) = call().await;
                let mut sent: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
                let sound = sent.len();
                if is_excess {
                    sent.extend([0, 0x7f, 0, 0, 0]);
                }
                for piece in sent.chunks(cut) {
                    sends.send(Bytes::copy_from_slice(piece)).unwrap();
                }
                drop(sends);
                let mut came = Vec::new();
                let mut refused = None;
                while let Some(frame) = body.frame().await {
                    match frame {
                        Ok(frame) => came.extend(frame.into_data().unwrap()),
                        Err(status) => {
                            refused = Some(status.code());
                            break;
                        }
                    }
                }
                assert_eq!(refused, is_excess.then_some(tonic::Code::ResourceExhausted));
                // Of a prefix in two pieces the first has been passed on.
                assert!(came[..sound] == sent[..sound] && came.len() < sound + 5);
            });
        }
    }
}
