//! Where messages begin and end in a body: one byte of flags, four of length, then the message
//! (gRPC over HTTP/2, "Length-Prefixed-Message").

use crate::status::{Code, Status};

/// Flags and length.
const PREFIX: usize = 5;
/// A message of more is large: so much of it has to be there before anybody makes room for all of it.
const LARGE: usize = 1024 * 1024;
/// A message of a call that nobody need be known for.
const SMALL: usize = 64 * 1024;

/// Follows the messages of one body as its bytes come in, in pieces of any size.
#[derive(Debug)]
pub(super) struct Messages {
    most: usize,
    /// What bounds them, as it is told to whoever sends more.
    bound: &'static str,
    prefix: [u8; PREFIX],
    /// How much of the prefix is known.
    known: usize,
    /// Bytes of the message that are still to come.
    rest: usize,
    /// Where the last message begins in the last piece; 0 if in an earlier one.
    begins: usize,
}

/// A message longer than the bound.
#[derive(Debug)]
pub(super) struct TooLarge {
    /// Where its prefix begins in the piece that made its length known; 0 if in an earlier one.
    pub(super) at: usize,
    pub(super) status: Status,
}

impl Messages {
    /// Takes messages of up to `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            bound: "(max_message_bytes)",
            prefix: [0; PREFIX],
            known: 0,
            rest: 0,
            begins: 0,
        }
    }

    /// The same, of which none is larger than those that ask for health need.
    pub(super) fn small(self) -> Self {
        if self.most <= SMALL {
            return self;
        }
        Self {
            most: SMALL,
            bound: "for a call that asks for health",
            ..self
        }
    }

    /// Whether a message has begun that is not there whole.
    pub(super) fn is_inside(&self) -> bool {
        self.known > 0
    }

    /// Whether it says that it is large, and little of it is there.
    pub(super) fn is_announced(&self) -> bool {
        let length = self.length();
        self.known == PREFIX && length > LARGE && length - self.rest < LARGE
    }

    /// Where it begins in the last piece; 0 if in an earlier one.
    pub(super) fn begins(&self) -> usize {
        self.begins
    }

    /// Follows the next piece, and tells the size on the wire of each message that ends in it.
    pub(super) fn scan(
        &mut self,
        piece: &[u8],
        mut ended: impl FnMut(usize),
    ) -> Result<(), TooLarge> {
        let mut left = piece;
        self.begins = 0;
        while !left.is_empty() {
            if self.known < PREFIX {
                self.begins = (piece.len() - left.len()).saturating_sub(self.known);
                left = self.take_prefix(left);
                if self.known < PREFIX {
                    return Ok(());
                }
                self.rest = self.length();
                if self.rest > self.most {
                    return Err(self.too_large());
                }
            }
            let here = self.rest.min(left.len());
            left = left.get(here..).unwrap_or_default();
            self.rest -= here;
            if self.rest == 0 {
                ended(PREFIX + self.length());
                self.known = 0;
            }
        }
        Ok(())
    }

    fn take_prefix<'a>(&mut self, piece: &'a [u8]) -> &'a [u8] {
        let unknown = self.prefix.get_mut(self.known..).unwrap_or_default();
        let here = unknown.len().min(piece.len());
        let (head, tail) = piece.split_at(here);
        for (byte, seen) in unknown.iter_mut().zip(head) {
            *byte = *seen;
        }
        self.known += here;
        tail
    }

    fn length(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length) as usize
    }

    fn too_large(&self) -> TooLarge {
        let (length, most, bound) = (self.length(), self.most, self.bound);
        let message =
            format!("a message of {length} bytes; the largest that is taken has {most} {bound}");
        TooLarge {
            at: self.begins,
            status: Status::new(Code::ResourceExhausted, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
        bytes.resize(PREFIX + length, 7);
        bytes
    }

    proptest! {
        #[test]
        fn sizes_are_the_same_however_the_body_is_cut(
            lengths in prop::collection::vec(0..40_usize, 0..20),
            piece in 1..50_usize,
        ) {
            let body: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let mut messages = Messages::new(40);
            let mut sizes = Vec::new();
            for piece in body.chunks(piece) {
                messages.scan(piece, |size| sizes.push(size)).unwrap();
            }
            let expected: Vec<usize> = lengths.iter().map(|length| length + PREFIX).collect();
            prop_assert_eq!(sizes, expected);
        }

        #[test]
        fn what_is_too_large_is_refused_where_it_begins(
            lengths in prop::collection::vec(0..40_usize, 0..20),
            piece in 1..50_usize,
        ) {
            let mut body: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            let sound = body.len();
            body.extend(message(41));
            let mut messages = Messages::new(40);
            let mut passed = 0;
            let mut refused = None;
            for piece in body.chunks(piece) {
                if let Err(error) = messages.scan(piece, |_| ()) {
                    passed += error.at;
                    refused = Some(error.status.code);
                    break;
                }
                passed += piece.len();
            }
            prop_assert_eq!(refused, Some(Code::ResourceExhausted));
            // Of its own prefix at most a part has been passed on already.
            prop_assert!((sound..sound + PREFIX).contains(&passed));
        }
    }
}
