//! Making rows of one length: padding them behind, and cutting the padding off again.

use bytes::{Bytes, BytesMut};

use super::{Shape, Tensor, elements};

/// A tensor as blocks along one axis: `outer` of them, each `own` bytes long.
struct Blocks {
    outer: usize,
    own: usize,
    /// Bytes of one step along the axis.
    step: usize,
}

impl Blocks {
    /// None if the tensor has no such axis, or elements of no fixed size.
    fn of(tensor: &Tensor, axis: usize) -> Option<Self> {
        let size = tensor.dtype.size()?;
        let length = usize::try_from(*tensor.shape.get(axis)?).ok()?;
        let outer = elements(tensor.shape.get(..axis)?)?;
        let inner = elements(tensor.shape.get(axis + 1..)?)?;
        let step = inner.checked_mul(size)?;
        let own = length.checked_mul(step)?;
        (outer.checked_mul(own)? == tensor.data.len()).then_some(Self { outer, own, step })
    }
}

/// How many bytes a tensor takes when `axis` is padded to `length`. None if it cannot be.
pub fn padded_bytes(tensor: &Tensor, axis: usize, length: usize) -> Option<usize> {
    let blocks = Blocks::of(tensor, axis)?;
    let padded = length.checked_mul(blocks.step)?;
    let bytes = blocks.outer.checked_mul(padded)?;
    (padded >= blocks.own).then_some(bytes)
}

/// Writes a tensor into `target`, of [`padded_bytes`], with `element` behind what `axis` has of its
/// own. False if it does not fit; then nothing can be said of what is in `target`.
pub fn pad_into(target: &mut [u8], tensor: &Tensor, axis: usize, element: &[u8]) -> bool {
    let Some(blocks) = Blocks::of(tensor, axis) else {
        return false;
    };
    let Some(padded) = target.len().checked_div(blocks.outer) else {
        return target.is_empty();
    };
    if padded < blocks.own || !(padded - blocks.own).is_multiple_of(element.len().max(1)) {
        return false;
    }
    if padded == 0 {
        return true;
    }
    for (index, block) in target.chunks_exact_mut(padded).enumerate() {
        let start = index * blocks.own;
        let (head, rest) = block.split_at_mut(blocks.own);
        match tensor.data.get(start..start + blocks.own) {
            Some(own) => head.copy_from_slice(own),
            None => return false,
        }
        fill(rest, element);
    }
    true
}

fn fill(target: &mut [u8], element: &[u8]) {
    if element.iter().all(|byte| *byte == 0) {
        target.fill(0);
        return;
    }
    for place in target.chunks_exact_mut(element.len()) {
        place.copy_from_slice(element);
    }
}

/// The first `length` of `axis`: a slice where the bytes lie together, else a copy. None if the tensor
/// has fewer.
pub fn cut(tensor: &Tensor, axis: usize, length: usize) -> Option<Tensor> {
    let blocks = Blocks::of(tensor, axis)?;
    let kept = length.checked_mul(blocks.step)?;
    if kept > blocks.own {
        return None;
    }
    let data = match blocks.outer {
        _ if kept == blocks.own => tensor.data.clone(),
        1 => tensor.data.slice(..kept),
        _ => together(tensor, &blocks, kept)?,
    };
    let mut shape = Shape::clone(&tensor.shape);
    shape.set(axis, i64::try_from(length).ok()?);
    Some(Tensor {
        dtype: tensor.dtype,
        shape,
        data,
    })
}

fn together(tensor: &Tensor, blocks: &Blocks, kept: usize) -> Option<Bytes> {
    let mut data = BytesMut::with_capacity(blocks.outer * kept);
    for index in 0..blocks.outer {
        let start = index * blocks.own;
        data.extend_from_slice(tensor.data.get(start..start + kept)?);
    }
    Some(data.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Dtype;

    fn tensor(shape: &[i64], values: impl IntoIterator<Item = u16>) -> Tensor {
        let data: Vec<u8> = values.into_iter().flat_map(u16::to_le_bytes).collect();
        Tensor {
            dtype: Dtype::Uint16,
            shape: Shape::new(shape),
            data: data.into(),
        }
    }

    fn padded(tensor: &Tensor, axis: usize, length: usize, value: u16) -> Vec<u16> {
        let mut target = vec![7; padded_bytes(tensor, axis, length).unwrap()];
        assert!(pad_into(&mut target, tensor, axis, &value.to_le_bytes()));
        let values = target.as_chunks::<2>().0.iter();
        values.map(|bytes| u16::from_le_bytes(*bytes)).collect()
    }

    #[test]
    fn what_is_padded_is_behind() {
        let rows = tensor(&[2, 3], 1..7);
        assert_eq!(padded(&rows, 1, 4, 9), [1, 2, 3, 9, 4, 5, 6, 9]);
        assert_eq!(padded(&rows, 1, 3, 9), [1, 2, 3, 4, 5, 6]);
        let deep = tensor(&[1, 2, 2], 1..5);
        assert_eq!(padded(&deep, 1, 3, 0), [1, 2, 3, 4, 0, 0]);
        assert_eq!(padded(&deep, 2, 3, 0), [1, 2, 0, 3, 4, 0]);
    }

    #[test]
    fn cutting_undoes_it() {
        for (shape, axis) in [
            (&[2, 3][..], 1),
            (&[1, 5], 1),
            (&[2, 3, 4], 1),
            (&[2, 3, 4], 2),
        ] {
            let count = shape.iter().product::<i64>() as u16;
            let own = tensor(shape, 0..count);
            let length = shape[axis] as usize;
            let mut longer = own.shape.clone();
            longer.set(axis, length as i64 + 3);
            let wide = tensor(&longer, padded(&own, axis, length + 3, 5));
            assert_eq!(cut(&wide, axis, length), Some(own));
        }
    }

    #[test]
    fn one_row_is_cut_without_a_copy() {
        let row = tensor(&[1, 4], 0..4);
        let cut = cut(&row, 1, 2).unwrap();
        assert_eq!(cut.data.as_ptr(), row.data.as_ptr());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let row = tensor(&[1, 4], 0..4);
        assert_eq!(padded_bytes(&row, 1, 3), None);
        assert_eq!(padded_bytes(&row, 2, 3), None);
        assert_eq!(padded_bytes(&row, 1, usize::MAX), None);
        assert!(!pad_into(&mut [0; 6], &row, 1, &[0, 0]));
        assert!(!pad_into(&mut [0; 9], &row, 1, &[0, 0]));
        assert_eq!(cut(&row, 1, 5), None);
        let none = tensor(&[0, 4], []);
        assert_eq!(padded_bytes(&none, 1, 6), Some(0));
        assert!(pad_into(&mut [], &none, 1, &[0, 0]));
    }
}
