//! NumPy's `.npy` files (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use anyhow::{Context, bail};
use bytes::Bytes;

/// An array of numbers.
#[derive(Debug)]
pub(super) struct Array {
    /// The protocol's name of the element type.
    pub(super) datatype: String,
    pub(super) shape: Vec<i64>,
    /// Its elements, the last dimension changing fastest.
    pub(super) data: Bytes,
}

/// NumPy's names of types, the protocol's, and their bytes.
const TYPES: [(&str, &str, usize); 12] = [
    ("|b1", "BOOL", 1),
    ("|i1", "INT8", 1),
    ("|u1", "UINT8", 1),
    ("<i2", "INT16", 2),
    ("<u2", "UINT16", 2),
    ("<i4", "INT32", 4),
    ("<u4", "UINT32", 4),
    ("<i8", "INT64", 8),
    ("<u8", "UINT64", 8),
    ("<f2", "FP16", 2),
    ("<f4", "FP32", 4),
    ("<f8", "FP64", 8),
];

impl Array {
    pub(super) fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let rest = bytes
            .strip_prefix(b"\x93NUMPY")
            .context("is no .npy file")?;
        let (version, rest) = rest.split_at_checked(2).context("ends too early")?;
        // Two bytes for the header's length in version 1, four from then on.
        let width = if version.first() == Some(&1) { 2 } else { 4 };
        let (length, rest) = rest.split_at_checked(width).context("ends too early")?;
        let length = length
            .iter()
            .rev()
            .fold(0, |sum, byte| (sum << 8) | usize::from(*byte));
        let (header, data) = rest
            .split_at_checked(length)
            .context("ends in its header")?;
        let header = std::str::from_utf8(header).context("has a header that is no text")?;
        let descr = quoted(header, "'descr':").context("does not say its type")?;
        let known = TYPES.iter().find(|(name, ..)| *name == descr);
        let Some((_, datatype, size)) = known else {
            let names: Vec<&str> = TYPES.iter().map(|(name, ..)| *name).collect();
            bail!("is of type {descr:?}; allowed: {}", names.join(", "));
        };
        if !after(header, "'fortran_order':").is_some_and(|rest| rest.starts_with("False")) {
            bail!("is in Fortran order; numpy.ascontiguousarray changes that");
        }
        let shape = shape(header).context("does not say its shape")?;
        let wanted = shape.iter().try_fold(*size, |all, dimension| {
            all.checked_mul(usize::try_from(*dimension).ok()?)
        });
        if wanted != Some(data.len()) {
            bail!(
                "has {} bytes, which {shape:?} of {datatype} does not take",
                data.len()
            );
        }
        Ok(Self {
            datatype: (*datatype).to_owned(),
            shape,
            data: Bytes::copy_from_slice(data),
        })
    }
}

fn after<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    Some(header.split_once(key)?.1.trim_start())
}

fn quoted<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let rest = after(header, key)?.strip_prefix('\'')?;
    Some(rest.split_once('\'')?.0)
}

fn shape(header: &str) -> Option<Vec<i64>> {
    let rest = after(header, "'shape':")?.strip_prefix('(')?;
    let numbers = rest.split_once(')')?.0.split(',').map(str::trim);
    let numbers = numbers.filter(|number| !number.is_empty());
    numbers
        .map(|number| number.parse().ok().filter(|size| *size >= 0))
        .collect()
}

/// A file of version 1, as NumPy writes it.
#[cfg(test)]
pub(super) fn written(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.as_bytes());
    file.extend(data);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_numpy_writes_is_read() {
        let array = Array::read(&written("<f4", "(2, 3)", &[0; 24])).unwrap();
        assert_eq!(
            (array.datatype.as_str(), &array.shape[..]),
            ("FP32", &[2, 3][..])
        );
        let array = Array::read(&written("<i8", "(3,)", &[7; 24])).unwrap();
        assert_eq!((array.datatype.as_str(), array.data.len()), ("INT64", 24));
        assert!(
            Array::read(&written("|b1", "()", &[1]))
                .unwrap()
                .shape
                .is_empty()
        );
        // Version 2 has a longer length.
        let mut second = written("|u1", "(1,)", &[9]);
        second[6] = 2;
        second.splice(10..10, [0, 0]);
        assert_eq!(Array::read(&second).unwrap().data, [9][..]);
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let sound = written("<f4", "(2, 3)", &[0; 24]);
        for end in 0..sound.len() {
            assert!(Array::read(&sound[..end]).is_err(), "{end}");
        }
        for (descr, shape) in [
            ("<f4", "(2, 4)"),
            ("<f4", "(9223372036854775807, 9223372036854775807)"),
            ("<f4", "(-2, -3)"),
            ("<f4", "2, 3"),
            (">f4", "(2, 3)"),
            ("|O", "(2, 3)"),
        ] {
            assert!(
                Array::read(&written(descr, shape, &[0; 24])).is_err(),
                "{descr} {shape}"
            );
        }
        let fortran = String::from_utf8_lossy(&sound[10..]).replace("False", "True ");
        let mut file = sound[..10].to_vec();
        file.extend(fortran.as_bytes());
        let error = Array::read(&file).unwrap_err();
        assert!(error.to_string().contains("Fortran"), "{error}");
    }
}
