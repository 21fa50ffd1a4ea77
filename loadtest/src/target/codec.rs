//! Requests are encoded beforehand and answers are left as they are, so that sending costs little.

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// An encoded request and the id that it is given.
pub(super) struct Numbered {
    pub(super) encoded: Bytes,
    pub(super) number: u64,
}

/// Takes what is encoded, and gives what is not decoded.
#[derive(Clone, Copy, Default)]
pub(super) struct Raw;

impl Codec for Raw {
    type Encode = Numbered;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Numbered;
    type Error = Status;

    fn encode(&mut self, item: Numbered, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item.encoded);
        // A field of a message may come anywhere in it, and the last of its kind counts.
        prost::encoding::string::encode(3, &item.number.to_string(), buffer);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(length)))
    }
}
