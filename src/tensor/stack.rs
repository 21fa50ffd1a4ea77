//! Cutting a batch's output into the rows of each request.
//!
//! Stacking needs no code of its own: rows are the outermost dimension, so it is concatenation.

use bytes::Bytes;

use super::{BytesElements, Dtype, Tensor, elements};

/// The output cannot be cut by rows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Its first dimension is not the number of rows that went in.
    #[error("{found} rows came out where {expected} went in")]
    Rows {
        /// Rows that went in.
        expected: usize,
        /// The output's first dimension, or zero for a scalar.
        found: i64,
    },
    /// Its bytes do not match its shape.
    #[error("the output's bytes do not match its shape")]
    Length,
}

/// Hands out an output's rows in order, each request's share without a copy.
#[derive(Debug)]
pub struct Slicer {
    tensor: Tensor,
    per_row: usize,
    offset: usize,
}

impl Slicer {
    /// Cuts `tensor`, whose first dimension must be `rows`.
    pub fn new(tensor: Tensor, rows: usize) -> Result<Self, SplitError> {
        let found = tensor.shape.first().copied().unwrap_or(0);
        if usize::try_from(found) != Ok(rows) {
            return Err(SplitError::Rows {
                expected: rows,
                found,
            });
        }
        let per_row = elements(tensor.shape.get(1..).unwrap_or(&[])).ok_or(SplitError::Length)?;
        Ok(Self {
            tensor,
            per_row,
            offset: 0,
        })
    }

    /// The next `rows` rows.
    pub fn take(&mut self, rows: usize) -> Result<Tensor, SplitError> {
        let count = rows.checked_mul(self.per_row).ok_or(SplitError::Length)?;
        let length = match self.tensor.dtype.size() {
            Some(size) => count.checked_mul(size).ok_or(SplitError::Length)?,
            None => self.bytes_length(count)?,
        };
        let end = self.offset.checked_add(length).ok_or(SplitError::Length)?;
        if end > self.tensor.data.len() {
            return Err(SplitError::Length);
        }
        let data: Bytes = self.tensor.data.slice(self.offset..end);
        self.offset = end;
        let rows = i64::try_from(rows).map_err(|_| SplitError::Length)?;
        Ok(Tensor {
            dtype: self.tensor.dtype,
            shape: self.tensor.shape.with_rows(rows),
            data,
        })
    }

    fn bytes_length(&self, count: usize) -> Result<usize, SplitError> {
        debug_assert_eq!(self.tensor.dtype, Dtype::Bytes);
        let rest = self.tensor.data.get(self.offset..).unwrap_or(&[]);
        let mut length = 0;
        let mut walk = BytesElements::new(rest);
        for _ in 0..count {
            let element = walk.next().ok_or(SplitError::Length)?;
            length += 4 + element.map_err(|_| SplitError::Length)?.len();
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::{Shape, append_element};

    #[test]
    fn numbers_are_cut_by_rows_without_a_copy() {
        let tensor = Tensor {
            dtype: Dtype::Uint16,
            shape: Shape::new(&[3, 2]),
            data: Bytes::from_static(&[0, 0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0]),
        };
        let base = tensor.data.as_ptr();
        let mut slicer = Slicer::new(tensor, 3).unwrap();
        assert_eq!(slicer.take(1).unwrap().data[..], [0, 0, 1, 0]);
        let rest = slicer.take(2).unwrap();
        assert_eq!(rest.shape, Shape::new(&[2, 2]));
        assert_eq!(rest.data.as_ptr(), base.wrapping_add(4));
        assert_eq!(slicer.take(1), Err(SplitError::Length));
    }

    #[test]
    fn bytes_are_cut_by_rows() {
        let mut raw = Vec::new();
        for element in ["a", "bcd", "", "ef"] {
            append_element(&mut raw, element.as_bytes());
        }
        let tensor = Tensor {
            dtype: Dtype::Bytes,
            shape: Shape::new(&[2, 2]),
            data: raw.into(),
        };
        let mut slicer = Slicer::new(tensor, 2).unwrap();
        let first = slicer.take(1).unwrap();
        let words: Vec<_> = BytesElements::new(&first.data)
            .map(Result::unwrap)
            .collect();
        assert_eq!(words, [&b"a"[..], b"bcd"]);
        let second = slicer.take(1).unwrap();
        let words: Vec<_> = BytesElements::new(&second.data)
            .map(Result::unwrap)
            .collect();
        assert_eq!(words, [&b""[..], b"ef"]);
    }

    #[test]
    fn rows_that_do_not_match_are_refused() {
        let tensor = Tensor {
            dtype: Dtype::Fp32,
            shape: Shape::default(),
            data: Bytes::from_static(&[0; 4]),
        };
        assert!(matches!(
            Slicer::new(tensor, 1),
            Err(SplitError::Rows {
                expected: 1,
                found: 0
            })
        ));
    }
}
