//! Elements as JSON: numbers, truth values and strings, in lists however nested.

use std::fmt;
use std::marker::PhantomData;

use half::{bf16, f16};
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Serialize, ser};

use crate::tensor::{BytesElements, Dtype, Tensor, append_element};

/// The raw form of elements that are written as JSON. `expected` is how many there should be; it is
/// only trusted as far as the text is long.
pub(super) fn decode(
    dtype: Dtype,
    json: &str,
    expected: Option<usize>,
) -> Result<Vec<u8>, serde_json::Error> {
    // An element takes a character and a comma at least.
    let room = expected.unwrap_or(0).min(json.len() / 2 + 1);
    match dtype {
        Dtype::Bool => read::<bool>(dtype, json, room),
        Dtype::Uint8 => read::<u8>(dtype, json, room),
        Dtype::Uint16 => read::<u16>(dtype, json, room),
        Dtype::Uint32 => read::<u32>(dtype, json, room),
        Dtype::Uint64 => read::<u64>(dtype, json, room),
        Dtype::Int8 => read::<i8>(dtype, json, room),
        Dtype::Int16 => read::<i16>(dtype, json, room),
        Dtype::Int32 => read::<i32>(dtype, json, room),
        Dtype::Int64 => read::<i64>(dtype, json, room),
        Dtype::Fp16 => read::<f16>(dtype, json, room),
        Dtype::Bf16 => read::<bf16>(dtype, json, room),
        Dtype::Fp32 => read::<f32>(dtype, json, room),
        Dtype::Fp64 => read::<f64>(dtype, json, room),
        Dtype::Bytes => read::<Text>(dtype, json, room),
    }
}

fn read<T: Element>(dtype: Dtype, json: &str, room: usize) -> Result<Vec<u8>, serde_json::Error> {
    let mut elements = Elements::<T> {
        dtype,
        raw: Vec::with_capacity(room * dtype.size().unwrap_or(4)),
        count: 0,
        element: PhantomData,
    };
    let mut deserializer = serde_json::Deserializer::from_str(json);
    elements.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(elements.raw)
}

/// One element type's way from JSON: none where it cannot hold the value.
trait Element: Sized {
    fn put_bool(_: bool, _: &mut Vec<u8>) -> Option<()> {
        None
    }
    fn put_u64(_: u64, _: &mut Vec<u8>) -> Option<()> {
        None
    }
    fn put_i64(_: i64, _: &mut Vec<u8>) -> Option<()> {
        None
    }
    fn put_f64(_: f64, _: &mut Vec<u8>) -> Option<()> {
        None
    }
    fn put_str(_: &str, _: &mut Vec<u8>) -> Option<()> {
        None
    }
}

impl Element for bool {
    fn put_bool(value: bool, raw: &mut Vec<u8>) -> Option<()> {
        raw.push(u8::from(value));
        Some(())
    }
}

/// An element of `BYTES`.
struct Text;

impl Element for Text {
    fn put_str(value: &str, raw: &mut Vec<u8>) -> Option<()> {
        append_element(raw, value.as_bytes());
        Some(())
    }
}

macro_rules! whole_numbers {
    ($($number:ty),*) => {$(
        impl Element for $number {
            fn put_u64(value: u64, raw: &mut Vec<u8>) -> Option<()> {
                raw.extend_from_slice(&Self::try_from(value).ok()?.to_le_bytes());
                Some(())
            }
            fn put_i64(value: i64, raw: &mut Vec<u8>) -> Option<()> {
                raw.extend_from_slice(&Self::try_from(value).ok()?.to_le_bytes());
                Some(())
            }
            fn put_f64(value: f64, raw: &mut Vec<u8>) -> Option<()> {
                // Clients write 3.0 for 3.
                let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
                exact.then(|| Self::put_i64(value as i64, raw))?
            }
        }
    )*};
}

whole_numbers!(u8, u16, u32, u64, i8, i16, i32, i64);

macro_rules! real_numbers {
    ($($number:ty: $from:expr),*) => {$(
        impl Element for $number {
            fn put_u64(value: u64, raw: &mut Vec<u8>) -> Option<()> {
                Self::put_f64(value as f64, raw)
            }
            fn put_i64(value: i64, raw: &mut Vec<u8>) -> Option<()> {
                Self::put_f64(value as f64, raw)
            }
            fn put_f64(value: f64, raw: &mut Vec<u8>) -> Option<()> {
                let from: fn(f64) -> $number = $from;
                raw.extend_from_slice(&from(value).to_le_bytes());
                Some(())
            }
        }
    )*};
}

real_numbers!(f16: f16::from_f64, bf16: bf16::from_f64, f32: |value| value as f32, f64: |value| value);

struct Elements<T> {
    dtype: Dtype,
    raw: Vec<u8>,
    count: usize,
    element: PhantomData<T>,
}

impl<T: Element> Elements<T> {
    fn add<E: Error>(&mut self, added: Option<()>, value: &dyn fmt::Display) -> Result<(), E> {
        if added.is_none() {
            let (count, dtype) = (self.count, self.dtype);
            let message = format!("element {count} is {value}, which {dtype} cannot hold");
            return Err(E::custom(message));
        }
        self.count += 1;
        Ok(())
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for &mut Elements<T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, T: Element> Visitor<'de> for &mut Elements<T> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.dtype {
            Dtype::Bool => "true or false",
            Dtype::Bytes => "strings",
            _ => "numbers",
        };
        write!(
            formatter,
            "{} elements as {what}, in lists however nested",
            self.dtype
        )
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let added = T::put_bool(value, &mut self.raw);
        self.add(added, &value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        let added = T::put_u64(value, &mut self.raw);
        self.add(added, &value)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        let added = T::put_i64(value, &mut self.raw);
        self.add(added, &value)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        let added = T::put_f64(value, &mut self.raw);
        self.add(added, &value)
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        let added = T::put_str(value, &mut self.raw);
        self.add(added, &"a string")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(&mut *self)?.is_some() {}
        Ok(())
    }
}

/// A tensor's elements as one flat JSON list. Numbers that JSON has no word for are null.
pub(super) struct Flat<'a>(pub(super) &'a Tensor);

impl Serialize for Flat<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &[u8] = &self.0.data;
        match self.0.dtype {
            Dtype::Bool => serializer.collect_seq(raw.iter().map(|byte| *byte != 0)),
            Dtype::Uint8 => serializer.collect_seq(raw),
            Dtype::Uint16 => list(raw, u16::from_le_bytes, serializer),
            Dtype::Uint32 => list(raw, u32::from_le_bytes, serializer),
            Dtype::Uint64 => list(raw, u64::from_le_bytes, serializer),
            Dtype::Int8 => list(raw, i8::from_le_bytes, serializer),
            Dtype::Int16 => list(raw, i16::from_le_bytes, serializer),
            Dtype::Int32 => list(raw, i32::from_le_bytes, serializer),
            Dtype::Int64 => list(raw, i64::from_le_bytes, serializer),
            Dtype::Fp16 => list(raw, |bytes| f16::from_le_bytes(bytes).to_f32(), serializer),
            Dtype::Bf16 => list(raw, |bytes| bf16::from_le_bytes(bytes).to_f32(), serializer),
            Dtype::Fp32 => list(raw, f32::from_le_bytes, serializer),
            Dtype::Fp64 => list(raw, f64::from_le_bytes, serializer),
            Dtype::Bytes => texts(raw, serializer),
        }
    }
}

fn list<const N: usize, T: Serialize, S: Serializer>(
    raw: &[u8],
    element: impl Fn([u8; N]) -> T,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let (elements, _) = raw.as_chunks::<N>();
    serializer.collect_seq(elements.iter().map(|bytes| element(*bytes)))
}

fn texts<S: Serializer>(raw: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(None)?;
    for (index, element) in BytesElements::new(raw).enumerate() {
        let element = element.map_err(ser::Error::custom)?;
        let text = str::from_utf8(element).map_err(|_| {
            ser::Error::custom(format!(
                "element {index} is not UTF-8, which JSON cannot hold; ask for binary data"
            ))
        })?;
        list.serialize_element(text)?;
    }
    list.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;
    use bytes::Bytes;
    use proptest::prelude::*;

    fn encoded(dtype: Dtype, raw: &[u8]) -> String {
        let tensor = Tensor {
            dtype,
            shape: Shape::new(&[1]),
            data: Bytes::copy_from_slice(raw),
        };
        serde_json::to_string(&Flat(&tensor)).unwrap()
    }

    proptest! {
        #[test]
        fn numbers_come_back_as_they_were(raw in prop::collection::vec(any::<u8>(), 0..64)) {
            for dtype in Dtype::ALL {
                let Some(size) = dtype.size() else { continue };
                let mut raw = raw[..raw.len() / size * size].to_vec();
                if dtype == Dtype::Bool {
                    raw.iter_mut().for_each(|byte| *byte &= 1);
                }
                let json = encoded(dtype, &raw);
                // What is not a number has no JSON.
                if !json.contains("null") {
                    prop_assert_eq!(&decode(dtype, &json, None).unwrap(), &raw, "{} {}", dtype, json);
                }
            }
        }

        #[test]
        fn strings_come_back_as_they_were(texts in prop::collection::vec(any::<String>(), 0..8)) {
            let mut raw = Vec::new();
            texts.iter().for_each(|text| append_element(&mut raw, text.as_bytes()));
            let json = encoded(Dtype::Bytes, &raw);
            prop_assert_eq!(decode(Dtype::Bytes, &json, Some(texts.len())).unwrap(), raw);
        }

        #[test]
        fn no_text_is_a_panic(text in any::<String>(), expected in any::<usize>()) {
            for dtype in Dtype::ALL {
                let _ = decode(dtype, &text, Some(expected));
            }
        }
    }

    #[test]
    fn lists_are_read_however_nested() {
        let expected = [1_i16, -2, 3].map(i16::to_le_bytes).concat();
        for json in ["[1,-2,3]", "[[1],[-2],[3.0]]", " [ [ 1, -2 ], [ 3e0 ] ] "] {
            assert_eq!(decode(Dtype::Int16, json, Some(3)).unwrap(), expected);
        }
        assert_eq!(decode(Dtype::Uint8, "7", None).unwrap(), [7]);
        assert_eq!(decode(Dtype::Uint8, "[]", None).unwrap(), [0_u8; 0]);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let told = |dtype, json| decode(dtype, json, None).unwrap_err().to_string();
        assert!(
            told(Dtype::Uint8, "[1, 256]").contains("element 1 is 256, which UINT8 cannot hold")
        );
        for (dtype, json) in [
            (Dtype::Int8, "[1.5]"),
            (Dtype::Uint64, "[-1]"),
            (Dtype::Uint64, "[1e300]"),
            (Dtype::Bool, "[1]"),
            (Dtype::Fp32, "[\"1\"]"),
            (Dtype::Fp32, "[true]"),
            (Dtype::Fp32, "[null]"),
            (Dtype::Fp32, "{}"),
            (Dtype::Bytes, "[1]"),
        ] {
            assert!(decode(dtype, json, None).is_err(), "{dtype} {json}");
        }
        let deep = "[".repeat(100_000);
        assert!(decode(Dtype::Fp32, &deep, None).is_err());
    }

    #[test]
    fn what_json_cannot_hold_is_null_or_refused() {
        let raw = [f32::NAN, f32::INFINITY, 1.5]
            .map(f32::to_le_bytes)
            .concat();
        assert_eq!(encoded(Dtype::Fp32, &raw), "[null,null,1.5]");
        let mut raw = Vec::new();
        append_element(&mut raw, b"\xff");
        let tensor = Tensor {
            dtype: Dtype::Bytes,
            shape: Shape::new(&[1]),
            data: raw.into(),
        };
        let told = serde_json::to_string(&Flat(&tensor)).unwrap_err();
        assert!(told.to_string().contains("element 0 is not UTF-8"));
    }
}
