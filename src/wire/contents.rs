//! Typed contents to raw: one field of the message for each group of element types.

use bytes::Bytes;

use crate::proto::InferTensorContents;
use crate::tensor::{Dtype, append_element};

/// Why typed contents are not an input's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum WrongContents {
    #[error("{0} has no typed contents; send it raw")]
    NoField(Dtype),
    #[error("{found} is filled where {dtype} takes {expected}")]
    OtherField {
        dtype: Dtype,
        expected: &'static str,
        found: &'static str,
    },
    #[error("element {index} is {value}, which {dtype} cannot hold")]
    Range {
        dtype: Dtype,
        index: usize,
        value: i64,
    },
}

/// The contents in raw form.
pub(super) fn raw(dtype: Dtype, contents: &InferTensorContents) -> Result<Bytes, WrongContents> {
    let expected = field(dtype).ok_or(WrongContents::NoField(dtype))?;
    if let Some(found) = filled(contents).find(|name| *name != expected) {
        return Err(WrongContents::OtherField {
            dtype,
            expected,
            found,
        });
    }
    Ok(Bytes::from(match dtype {
        Dtype::Bool => contents
            .bool_contents
            .iter()
            .map(|flag| u8::from(*flag))
            .collect(),
        Dtype::Uint8 => narrow(dtype, &contents.uint_contents, |n| {
            u8::try_from(n).ok().map(u8::to_le_bytes)
        })?,
        Dtype::Uint16 => narrow(dtype, &contents.uint_contents, |n| {
            u16::try_from(n).ok().map(u16::to_le_bytes)
        })?,
        Dtype::Int8 => narrow(dtype, &contents.int_contents, |n| {
            i8::try_from(n).ok().map(i8::to_le_bytes)
        })?,
        Dtype::Int16 => narrow(dtype, &contents.int_contents, |n| {
            i16::try_from(n).ok().map(i16::to_le_bytes)
        })?,
        Dtype::Uint32 => wide(&contents.uint_contents, u32::to_le_bytes),
        Dtype::Uint64 => wide(&contents.uint64_contents, u64::to_le_bytes),
        Dtype::Int32 => wide(&contents.int_contents, i32::to_le_bytes),
        Dtype::Int64 => wide(&contents.int64_contents, i64::to_le_bytes),
        Dtype::Fp32 => wide(&contents.fp32_contents, f32::to_le_bytes),
        Dtype::Fp64 => wide(&contents.fp64_contents, f64::to_le_bytes),
        Dtype::Bytes => {
            let mut raw = Vec::new();
            for element in &contents.bytes_contents {
                append_element(&mut raw, element);
            }
            raw
        }
        Dtype::Fp16 | Dtype::Bf16 => return Err(WrongContents::NoField(dtype)),
    }))
}

/// The field that holds elements of this type.
fn field(dtype: Dtype) -> Option<&'static str> {
    Some(match dtype {
        Dtype::Bool => "bool_contents",
        Dtype::Uint8 | Dtype::Uint16 | Dtype::Uint32 => "uint_contents",
        Dtype::Uint64 => "uint64_contents",
        Dtype::Int8 | Dtype::Int16 | Dtype::Int32 => "int_contents",
        Dtype::Int64 => "int64_contents",
        Dtype::Fp32 => "fp32_contents",
        Dtype::Fp64 => "fp64_contents",
        Dtype::Bytes => "bytes_contents",
        Dtype::Fp16 | Dtype::Bf16 => return None,
    })
}

/// The fields that are not empty.
fn filled(contents: &InferTensorContents) -> impl Iterator<Item = &'static str> {
    [
        ("bool_contents", contents.bool_contents.is_empty()),
        ("int_contents", contents.int_contents.is_empty()),
        ("int64_contents", contents.int64_contents.is_empty()),
        ("uint_contents", contents.uint_contents.is_empty()),
        ("uint64_contents", contents.uint64_contents.is_empty()),
        ("fp32_contents", contents.fp32_contents.is_empty()),
        ("fp64_contents", contents.fp64_contents.is_empty()),
        ("bytes_contents", contents.bytes_contents.is_empty()),
    ]
    .into_iter()
    .filter(|(_, empty)| !empty)
    .map(|(name, _)| name)
}

fn wide<T: Copy, const N: usize>(elements: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    elements
        .iter()
        .flat_map(|element| bytes(*element))
        .collect()
}

fn narrow<T: Copy + Into<i64>, const N: usize>(
    dtype: Dtype,
    elements: &[T],
    bytes: impl Fn(T) -> Option<[u8; N]>,
) -> Result<Vec<u8>, WrongContents> {
    let mut raw = Vec::with_capacity(elements.len() * N);
    for (index, element) in elements.iter().enumerate() {
        let narrowed = bytes(*element).ok_or(WrongContents::Range {
            dtype,
            index,
            value: (*element).into(),
        })?;
        raw.extend_from_slice(&narrowed);
    }
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written_little_endian() {
        let contents = InferTensorContents {
            int_contents: vec![-2, 258],
            ..InferTensorContents::default()
        };
        assert_eq!(
            raw(Dtype::Int16, &contents).unwrap()[..],
            [0xfe, 0xff, 2, 1]
        );
        assert_eq!(raw(Dtype::Int32, &contents).unwrap().len(), 8);
        assert_eq!(
            raw(Dtype::Int8, &contents),
            Err(WrongContents::Range {
                dtype: Dtype::Int8,
                index: 1,
                value: 258
            })
        );
    }

    #[test]
    fn the_wrong_field_is_named() {
        let contents = InferTensorContents {
            fp32_contents: vec![1.0],
            ..InferTensorContents::default()
        };
        let error = raw(Dtype::Fp64, &contents).unwrap_err().to_string();
        assert_eq!(
            error,
            "fp32_contents is filled where FP64 takes fp64_contents"
        );
        let error = raw(Dtype::Fp16, &contents).unwrap_err().to_string();
        assert_eq!(error, "FP16 has no typed contents; send it raw");
    }

    #[test]
    fn bytes_get_their_lengths() {
        let contents = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"a\0"), Bytes::new()],
            ..InferTensorContents::default()
        };
        assert_eq!(
            raw(Dtype::Bytes, &contents).unwrap()[..],
            [2, 0, 0, 0, b'a', 0, 0, 0, 0, 0]
        );
    }
}
