//! Tensors as they travel: a dtype, a shape and bytes that are shared, not copied.
//! Uses nothing of the rest of the crate.
//! Never interprets a value: bytes go in as they came and out as the backend wrote them.

mod bytes_elements;
mod dtype;
mod pad;
mod shape;
mod stack;

use bytes::Bytes;

pub use bytes_elements::{BytesElements, Malformed, append_element};
pub use dtype::Dtype;
pub use pad::{cut, pad_into, padded_bytes};
pub use shape::{Shape, elements};
pub use stack::{Slicer, SplitError};

/// A dense tensor in row-major order.
///
/// Numbers are little-endian. `BYTES` elements are each a four-byte little-endian length followed
/// by that many bytes, the protocol's own raw form, so stacking them is concatenation too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The element type.
    pub dtype: Dtype,
    /// The dimensions; none for a scalar.
    pub shape: Shape,
    /// The elements; may share a larger buffer.
    pub data: Bytes,
}

impl Tensor {
    /// What stands for an input that a request has left out. No tensor looks like it: even a scalar
    /// has an element.
    pub fn absent(dtype: Dtype) -> Self {
        Self {
            dtype,
            shape: Shape::default(),
            data: Bytes::new(),
        }
    }

    /// Whether it stands for an input that was left out.
    pub fn is_absent(&self) -> bool {
        self.shape.is_empty() && self.data.is_empty()
    }
}
