//! Elements as JSON: numbers, truth values and strings, in lists however nested.

use std::str::FromStr;

use fast_float2::FastFloat;
use half::{bf16, f16};
use serde::ser::{SerializeSeq, Serializer};
use serde::{Serialize, ser};

use super::words::Words;
use crate::tensor::{BytesElements, Dtype, Tensor, append_element};

/// What an element is quoted by at most.
const MOST_QUOTED: usize = 32;

/// Elements in their raw form.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Elements {
    pub(super) raw: Vec<u8>,
    pub(super) count: usize,
}

/// Reads the elements of a JSON value that is sound, in lists however nested. `expected` is how many
/// there should be; it is only trusted as far as the text is long. Fails with the first element
/// that the type cannot hold.
pub(super) fn decode(
    dtype: Dtype,
    json: &str,
    expected: Option<usize>,
) -> Result<Elements, String> {
    match dtype {
        Dtype::Bool => read(dtype, json, expected, truth),
        Dtype::Uint8 => read(dtype, json, expected, |word| whole(word, u8::to_le_bytes)),
        Dtype::Uint16 => read(dtype, json, expected, |word| whole(word, u16::to_le_bytes)),
        Dtype::Uint32 => read(dtype, json, expected, |word| whole(word, u32::to_le_bytes)),
        Dtype::Uint64 => read(dtype, json, expected, |word| whole(word, u64::to_le_bytes)),
        Dtype::Int8 => read(dtype, json, expected, |word| whole(word, i8::to_le_bytes)),
        Dtype::Int16 => read(dtype, json, expected, |word| whole(word, i16::to_le_bytes)),
        Dtype::Int32 => read(dtype, json, expected, |word| whole(word, i32::to_le_bytes)),
        Dtype::Int64 => read(dtype, json, expected, |word| whole(word, i64::to_le_bytes)),
        Dtype::Fp16 => reals(dtype, json, expected, |value: f64| {
            let value = f16::from_f64(value);
            (value.to_le_bytes(), value.is_finite())
        }),
        Dtype::Bf16 => reals(dtype, json, expected, |value: f64| {
            let value = bf16::from_f64(value);
            (value.to_le_bytes(), value.is_finite())
        }),
        // Read as what it is: by way of 64 bits it would be rounded twice.
        Dtype::Fp32 => reals(dtype, json, expected, |value: f32| {
            (value.to_le_bytes(), value.is_finite())
        }),
        Dtype::Fp64 => reals(dtype, json, expected, |value: f64| {
            (value.to_le_bytes(), value.is_finite())
        }),
        Dtype::Bytes => texts_of(json, expected),
    }
}

fn read<const N: usize>(
    dtype: Dtype,
    json: &str,
    expected: Option<usize>,
    element: impl Fn(&str) -> Option<[u8; N]>,
) -> Result<Elements, String> {
    let mut raw = Vec::with_capacity(room(json, expected) * N);
    for word in Words::new(json) {
        let read = element(word).ok_or_else(|| cannot_hold(dtype, raw.len() / N, word))?;
        raw.extend_from_slice(&read);
    }
    let count = raw.len() / N;
    Ok(Elements { raw, count })
}

/// Reads numbers, of which `element` makes bytes and says whether they stand for a finite one. None is
/// infinite but what says so.
fn reals<T: FastFloat + From<f32>, const N: usize>(
    dtype: Dtype,
    json: &str,
    expected: Option<usize>,
    element: impl Fn(T) -> ([u8; N], bool),
) -> Result<Elements, String> {
    let mut raw = Vec::with_capacity(room(json, expected) * N);
    let mut words = Words::new(json);
    let mut before = words.clone();
    while let Some(number) = words.next_number() {
        let finite = match number {
            Ok(number) => Some(element(number)).filter(|(_, finite)| *finite),
            Err(word) => not_finite(word).map(|value| element(T::from(value))),
        };
        let Some((read, _)) = finite else {
            let word = before.next().unwrap_or_default();
            return Err(cannot_hold(dtype, raw.len() / N, word));
        };
        raw.extend_from_slice(&read);
        before.clone_from(&words);
    }
    let count = raw.len() / N;
    Ok(Elements { raw, count })
}

fn texts_of(json: &str, expected: Option<usize>) -> Result<Elements, String> {
    let mut raw = Vec::with_capacity(room(json, expected) * size_of::<u32>());
    let mut count = 0;
    for word in Words::new(json) {
        let text: String =
            serde_json::from_str(word).map_err(|_| cannot_hold(Dtype::Bytes, count, word))?;
        append_element(&mut raw, text.as_bytes());
        count += 1;
    }
    Ok(Elements { raw, count })
}

/// An element takes a character and a comma at least.
fn room(json: &str, expected: Option<usize>) -> usize {
    expected.unwrap_or(0).min(json.len() / 2 + 1)
}

fn cannot_hold(dtype: Dtype, index: usize, word: &str) -> String {
    let quoted = match word.char_indices().nth(MOST_QUOTED) {
        Some((end, _)) => format!("{}...", word.get(..end).unwrap_or_default()),
        None => word.to_owned(),
    };
    format!("element {index} is {quoted}, which {dtype} cannot hold")
}

fn truth(word: &str) -> Option<[u8; 1]> {
    Some([u8::from(word.parse::<bool>().ok()?)])
}

fn whole<T: FromStr + TryFrom<i64>, const N: usize>(
    word: &str,
    raw: fn(T) -> [u8; N],
) -> Option<[u8; N]> {
    if let Ok(value) = word.parse() {
        return Some(raw(value));
    }
    // Clients write 3.0 for 3.
    let value: f64 = word.parse().ok()?;
    let exact = value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0;
    let value = exact.then_some(value as i64)?;
    T::try_from(value).ok().map(raw)
}

/// As Protobuf's JSON has them.
fn not_finite(word: &str) -> Option<f32> {
    match word {
        "\"NaN\"" => Some(f32::NAN),
        "\"Infinity\"" => Some(f32::INFINITY),
        "\"-Infinity\"" => Some(f32::NEG_INFINITY),
        _ => None,
    }
}

/// A tensor's elements as one flat JSON list. Numbers that JSON has no word for are the strings
/// `"NaN"`, `"Infinity"` and `"-Infinity"`, as in Protobuf's JSON.
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
            Dtype::Fp16 => list(
                raw,
                |bytes| Real(f16::from_le_bytes(bytes).to_f32()),
                serializer,
            ),
            Dtype::Bf16 => list(
                raw,
                |bytes| Real(bf16::from_le_bytes(bytes).to_f32()),
                serializer,
            ),
            Dtype::Fp32 => list(raw, |bytes| Real(f32::from_le_bytes(bytes)), serializer),
            Dtype::Fp64 => list(raw, |bytes| Real(f64::from_le_bytes(bytes)), serializer),
            Dtype::Bytes => texts(raw, serializer),
        }
    }
}

/// A number that may have no word in JSON.
struct Real<T>(T);

impl<T: Copy + Into<f64> + Serialize> Serialize for Real<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value: f64 = self.0.into();
        match value {
            value if value.is_finite() => self.0.serialize(serializer),
            value if value.is_nan() => serializer.serialize_str("NaN"),
            value if value > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
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
                // There are many that are not a number, and one word for them.
                if !json.contains("NaN") {
                    let read = decode(dtype, &json, None).unwrap();
                    prop_assert_eq!(&read.raw, &raw, "{} {}", dtype, json);
                    prop_assert_eq!(read.count, raw.len() / size);
                }
            }
        }

        #[test]
        fn numbers_are_rounded_once(digits in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,2})?") {
            let (single, double) = (digits.parse::<f32>().unwrap(), digits.parse::<f64>().unwrap());
            let json = format!("[{digits} , 1]");
            if let Ok(read) = decode(Dtype::Fp32, &json, None) {
                prop_assert_eq!(&read.raw, &[single, 1.0].map(f32::to_le_bytes).concat());
            } else {
                prop_assert!(single.is_infinite());
            }
            let read = decode(Dtype::Fp64, &json, None).unwrap();
            prop_assert_eq!(read.raw, [double, 1.0].map(f64::to_le_bytes).concat());
        }

        #[test]
        fn strings_come_back_as_they_were(texts in prop::collection::vec(any::<String>(), 0..8)) {
            let mut raw = Vec::new();
            texts.iter().for_each(|text| append_element(&mut raw, text.as_bytes()));
            let json = encoded(Dtype::Bytes, &raw);
            let read = decode(Dtype::Bytes, &json, Some(texts.len())).unwrap();
            prop_assert_eq!((read.raw, read.count), (raw, texts.len()));
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
            assert_eq!(decode(Dtype::Int16, json, Some(3)).unwrap().raw, expected);
        }
        assert_eq!(decode(Dtype::Uint8, "7", None).unwrap().raw, [7]);
        assert_eq!(
            decode(Dtype::Uint8, "[]", None).unwrap(),
            Elements::default()
        );
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let told = |dtype, json| decode(dtype, json, None).unwrap_err();
        assert_eq!(
            told(Dtype::Uint8, "[1, 256]"),
            "element 1 is 256, which UINT8 cannot hold"
        );
        let long = format!("[\"{}\"]", "é".repeat(100));
        assert!(told(Dtype::Bool, &long).len() < 200);
        for (dtype, json) in [
            (Dtype::Int8, "[1.5]"),
            (Dtype::Uint64, "[-1]"),
            (Dtype::Uint64, "[1e300]"),
            (Dtype::Bool, "[1]"),
            (Dtype::Fp32, "[\"1\"]"),
            (Dtype::Fp32, "[true]"),
            (Dtype::Fp32, "[null]"),
            (Dtype::Fp32, "{}"),
            (Dtype::Fp16, "[65520]"),
            (Dtype::Fp32, "[1e39]"),
            (Dtype::Fp64, "[1e309]"),
            (Dtype::Int8, "[\"NaN\"]"),
            (Dtype::Bytes, "[{\"a\": \"b\"}]"),
            (Dtype::Bytes, "[1]"),
        ] {
            assert!(decode(dtype, json, None).is_err(), "{dtype} {json}");
        }
    }

    #[test]
    fn what_json_cannot_hold_is_text_or_refused() {
        let raw = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.5]
            .map(f32::to_le_bytes)
            .concat();
        let json = encoded(Dtype::Fp32, &raw);
        assert_eq!(json, r#"["NaN","Infinity","-Infinity",1.5]"#);
        assert_eq!(decode(Dtype::Fp32, &json, None).unwrap().raw, raw);
        for (dtype, infinite) in [(Dtype::Fp16, 0x7c00_u16), (Dtype::Bf16, 0x7f80)] {
            let read = decode(dtype, r#"["Infinity"]"#, None).unwrap();
            assert_eq!(read.raw, infinite.to_le_bytes());
        }
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
