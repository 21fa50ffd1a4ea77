//! The raw form of `BYTES`: a four-byte little-endian length before each element.

/// The raw form ended in the middle of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("element {element} announces {announced} bytes where {left} are left")]
pub struct Malformed {
    /// Which element, counted from zero.
    pub element: usize,
    /// How many bytes it said would follow; four if its length itself was cut off.
    pub announced: usize,
    /// How many bytes did follow.
    pub left: usize,
}

/// Walks the elements of a raw `BYTES` buffer.
#[derive(Clone, Debug)]
pub struct BytesElements<'a> {
    rest: &'a [u8],
    index: usize,
}

impl<'a> BytesElements<'a> {
    /// Starts at the first element of `raw`.
    pub fn new(raw: &'a [u8]) -> Self {
        Self {
            rest: raw,
            index: 0,
        }
    }

    /// How many elements there are, walking them all.
    pub fn count_elements(self) -> Result<usize, Malformed> {
        let mut count = 0;
        for element in self {
            element?;
            count += 1;
        }
        Ok(count)
    }

    fn malformed(&mut self, announced: usize) -> Malformed {
        let left = self.rest.len();
        self.rest = &[];
        Malformed {
            element: self.index,
            announced,
            left,
        }
    }
}

impl<'a> Iterator for BytesElements<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((length, rest)) = self.rest.split_first_chunk::<4>() else {
            return Some(Err(self.malformed(4)));
        };
        let length = u32::from_le_bytes(*length) as usize;
        self.rest = rest;
        let Some((element, rest)) = rest.split_at_checked(length) else {
            return Some(Err(self.malformed(length)));
        };
        self.rest = rest;
        self.index += 1;
        Some(Ok(element))
    }
}

/// Appends one element in raw form. An element over 4 GiB is cut there, which no message allows.
pub fn append_element(raw: &mut Vec<u8>, element: &[u8]) {
    let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
    raw.extend_from_slice(&length.to_le_bytes());
    raw.extend(element.iter().take(length as usize));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        let mut raw = Vec::new();
        for element in [&b"ab"[..], b"", b"\0\xff"] {
            append_element(&mut raw, element);
        }
        let read: Result<Vec<_>, _> = BytesElements::new(&raw).collect();
        assert_eq!(read, Ok(vec![&b"ab"[..], b"", b"\0\xff"]));
    }

    #[test]
    fn a_cut_buffer_is_an_error_once() {
        let mut walk = BytesElements::new(&[5, 0, 0, 0, b'a']);
        assert_eq!(
            walk.next(),
            Some(Err(Malformed {
                element: 0,
                announced: 5,
                left: 1
            }))
        );
        assert_eq!(walk.next(), None);
        assert!(BytesElements::new(&[1, 0]).count_elements().is_err());
    }
}
