//! Messages that are counted before they are decoded, since what they become is more than what they were.

use std::marker::PhantomData;
use std::sync::Arc;

use http::HeaderName;
use prost::Message;
use prost::bytes::Buf;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

use crate::frontend::limits::{Held, Unpacked};
use crate::proto::ModelInferRequest;
use crate::wire::{Outline, outline};

/// Made once: it is looked for in every call.
static ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
/// What a message may grow by without being counted: its call has memory of its own of about as much.
const UNCOUNTED: usize = 4096;

/// A request, or as much as is known of one that is not to be decoded.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) message: ModelInferRequest,
    /// What it has grown by, for as long as that is kept; else why it is refused.
    pub(super) growth: Result<Option<Unpacked>, crate::status::Status>,
}

/// The messages of one call: requests, and answers of type `T`.
#[derive(Debug)]
pub(super) struct Counting<T> {
    held: Option<Arc<Held>>,
    /// Whether its messages may be larger than they were on the wire.
    is_compressed: bool,
    answers: PhantomData<fn() -> T>,
}

impl<T> Counting<T> {
    pub(super) fn new<B>(request: &http::Request<B>) -> Self {
        let encoding = request.headers().get(&ENCODING);
        Self {
            held: request.extensions().get().cloned(),
            is_compressed: encoding.is_some_and(|encoding| encoding != "identity"),
            answers: PhantomData,
        }
    }
}

impl<T: Message + 'static> Codec for Counting<T> {
    type Encode = T;
    type Decode = Counted;
    type Encoder = ProstEncoder<T>;
    type Decoder = CountingDecoder;

    fn encoder(&mut self) -> ProstEncoder<T> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> CountingDecoder {
        CountingDecoder {
            held: self.held.take(),
            is_compressed: self.is_compressed,
        }
    }
}

/// Decodes what may be decoded.
#[derive(Debug)]
pub(super) struct CountingDecoder {
    held: Option<Arc<Held>>,
    is_compressed: bool,
}

impl CountingDecoder {
    fn count(
        &self,
        outline: Outline<'_>,
        length: usize,
    ) -> Result<Option<Unpacked>, crate::status::Status> {
        if let Some(excess) = outline.excess {
            return Err(excess);
        }
        let unpacked = if self.is_compressed { length } else { 0 };
        let grown = Some(outline.growth).filter(|growth| *growth > UNCOUNTED);
        let bytes = unpacked.saturating_add(grown.unwrap_or(0));
        let held = self.held.as_ref().filter(|_| bytes > 0);
        held.map(|held| held.take_unpacked(bytes)).transpose()
    }
}

impl Decoder for CountingDecoder {
    type Item = Counted;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Counted>, Status> {
        let length = source.remaining();
        // A message lies in one piece.
        let outline = outline(source.chunk()).map_err(malformed)?;
        let id = outline.id;
        let counted = match self.count(outline, length) {
            Ok(growth) => Counted {
                message: ModelInferRequest::decode(source).map_err(malformed)?,
                growth: Ok(growth),
            },
            Err(status) => {
                let id = String::from_utf8_lossy(id).into_owned();
                source.advance(length);
                Counted {
                    message: ModelInferRequest {
                        id,
                        ..ModelInferRequest::default()
                    },
                    growth: Err(status),
                }
            }
        };
        Ok(Some(counted))
    }
}

/// As gRPC's document of statuses says of what cannot be read.
fn malformed(error: prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}
