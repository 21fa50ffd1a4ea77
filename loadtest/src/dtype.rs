//! The protocol's element types: made up, and read as numbers.

use anyhow::{Context, bail, ensure};
use fastrand::Rng;
use half::{bf16, f16};
use serde_json::{Value, json};

/// How many elements, and between which numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values {
    pub(crate) count: usize,
    /// Both ends are in it; if it is not said, -1 to 1 for fractions and 0 to 100 for whole numbers.
    pub(crate) range: Option<(f64, f64)>,
}

/// Elements in the protocol's raw form.
pub(crate) fn random_elements(
    datatype: &str,
    values: &Values,
    random: &mut Rng,
) -> anyhow::Result<Vec<u8>> {
    let (low, high) = values.range.unwrap_or((-1.0, 1.0));
    let fraction = |random: &mut Rng| low + (high - low) * random.f64();
    let (least, most) = values.range.unwrap_or((0.0, 100.0));
    let whole = |random: &mut Rng| random.i64(least as i64..=(most as i64).max(least as i64));
    let mut data = Vec::new();
    for _ in 0..values.count {
        match datatype {
            "BOOL" => data.push(u8::from(random.bool())),
            // The casts wrap numbers that do not fit, which is as good as any.
            "INT8" | "UINT8" => data.push(whole(random) as u8),
            "INT16" | "UINT16" => data.extend((whole(random) as u16).to_le_bytes()),
            "INT32" | "UINT32" => data.extend((whole(random) as u32).to_le_bytes()),
            "INT64" | "UINT64" => data.extend(whole(random).to_le_bytes()),
            "FP16" => data.extend(f16::from_f64(fraction(random)).to_le_bytes()),
            "BF16" => data.extend(bf16::from_f64(fraction(random)).to_le_bytes()),
            "FP32" => data.extend((fraction(random) as f32).to_le_bytes()),
            "FP64" => data.extend(fraction(random).to_le_bytes()),
            "BYTES" => word(&mut data, random),
            _ => bail!("the element type {datatype:?} is not known"),
        }
    }
    Ok(data)
}

fn word(data: &mut Vec<u8>, random: &mut Rng) {
    let length = random.u8(1..=16);
    data.extend(u32::from(length).to_le_bytes());
    data.extend((0..length).map(|_| random.lowercase() as u8));
}

/// The elements as fractions, if they are.
pub(crate) fn fractions(datatype: &str, raw: &[u8]) -> Option<Vec<f64>> {
    Some(match datatype {
        "FP16" => halves(raw, |bits| f16::from_bits(bits).to_f64()),
        "BF16" => halves(raw, |bits| bf16::from_bits(bits).to_f64()),
        "FP32" => {
            let elements = raw.as_chunks::<4>().0.iter();
            elements
                .map(|one| f64::from(f32::from_le_bytes(*one)))
                .collect()
        }
        "FP64" => {
            let elements = raw.as_chunks::<8>().0.iter();
            elements.map(|one| f64::from_le_bytes(*one)).collect()
        }
        _ => return None,
    })
}

/// The elements as JSON has them.
pub(crate) fn values(datatype: &str, raw: &[u8]) -> anyhow::Result<Value> {
    if let Some(fractions) = fractions(datatype, raw) {
        ensure!(
            fractions.iter().all(|one| one.is_finite()),
            "JSON has no numbers that are not finite"
        );
        return Ok(json!(fractions));
    }
    macro_rules! whole {
        ($number:ty) => {{
            let elements = raw.as_chunks::<{ size_of::<$number>() }>().0.iter();
            let numbers = elements.map(|one| <$number>::from_le_bytes(*one));
            Ok(json!(numbers.collect::<Vec<_>>()))
        }};
    }
    match datatype {
        "BOOL" => Ok(json!(raw.iter().map(|one| *one != 0).collect::<Vec<_>>())),
        "INT8" => whole!(i8),
        "INT16" => whole!(i16),
        "INT32" => whole!(i32),
        "INT64" => whole!(i64),
        "UINT8" => whole!(u8),
        "UINT16" => whole!(u16),
        "UINT32" => whole!(u32),
        "UINT64" => whole!(u64),
        "BYTES" => texts(raw),
        _ => bail!("the element type {datatype:?} is not known"),
    }
}

fn texts(mut raw: &[u8]) -> anyhow::Result<Value> {
    let mut texts = Vec::new();
    while let Some((length, rest)) = raw.split_first_chunk::<4>() {
        let text = rest.split_at_checked(u32::from_le_bytes(*length) as usize);
        let (text, rest) = text.context("an element ends too early")?;
        texts.push(std::str::from_utf8(text).context("JSON has no bytes that are no text")?);
        raw = rest;
    }
    Ok(json!(texts))
}

fn halves(raw: &[u8], meaning: impl Fn(u16) -> f64) -> Vec<f64> {
    let elements = raw.as_chunks::<2>().0.iter();
    elements
        .map(|one| meaning(u16::from_le_bytes(*one)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_its_size_and_range() {
        let mut random = Rng::with_seed(1);
        for (datatype, size) in [
            ("BOOL", 1),
            ("INT8", 1),
            ("UINT16", 2),
            ("INT32", 4),
            ("UINT64", 8),
            ("FP16", 2),
            ("BF16", 2),
            ("FP32", 4),
            ("FP64", 8),
        ] {
            let values = Values {
                count: 100,
                range: Some((3.0, 9.0)),
            };
            let data = random_elements(datatype, &values, &mut random).unwrap();
            assert_eq!(data.len(), 100 * size, "{datatype}");
            for number in fractions(datatype, &data).unwrap_or_default() {
                assert!((2.98..=9.04).contains(&number), "{datatype}: {number}");
            }
        }
        let values = Values {
            count: 1,
            range: None,
        };
        assert!(random_elements("FP8", &values, &mut random).is_err());
        let word = random_elements("BYTES", &values, &mut random).unwrap();
        assert_eq!(word.len(), 4 + word[0] as usize);
    }

    #[test]
    fn json_has_the_same_elements() {
        let values = |datatype: &str, raw: &[u8]| values(datatype, raw).map(|one| one.to_string());
        assert_eq!(values("INT16", &[1, 0, 255, 255]).unwrap(), "[1,-1]");
        assert_eq!(values("UINT8", &[7, 255]).unwrap(), "[7,255]");
        assert_eq!(values("BOOL", &[0, 1]).unwrap(), "[false,true]");
        assert_eq!(values("FP32", &0.5_f32.to_le_bytes()).unwrap(), "[0.5]");
        let words = b"\x02\0\0\0hi\0\0\0\0";
        assert_eq!(values("BYTES", words).unwrap(), r#"["hi",""]"#);
        for (datatype, raw) in [
            ("FP64", &f64::NAN.to_le_bytes()[..]),
            ("BYTES", b"\x01\0\0\0\xff"),
            ("BYTES", b"\x09\0\0\0x"),
            ("FP8", b"x"),
        ] {
            assert!(values(datatype, raw).is_err(), "{datatype}");
        }
    }
}
