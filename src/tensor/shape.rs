//! Dimensions, and how many elements they make without overflowing.

use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

/// A tensor's dimensions, each at least zero. Empty for a scalar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shape(SmallVec<[i64; 4]>);

impl Shape {
    /// The shape with these dimensions.
    pub fn new(dimensions: &[i64]) -> Self {
        Self(SmallVec::from_slice(dimensions))
    }

    /// This shape with its first dimension set to `rows`.
    pub fn with_rows(&self, rows: i64) -> Self {
        let mut shape = self.clone();
        shape.set(0, rows);
        shape
    }

    /// Sets one dimension; nothing happens if there is no such axis.
    pub fn set(&mut self, axis: usize, size: i64) {
        if let Some(dimension) = self.0.get_mut(axis) {
            *dimension = size;
        }
    }
}

impl Deref for Shape {
    type Target = [i64];

    fn deref(&self) -> &[i64] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[")?;
        for (index, dimension) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{dimension}")?;
        }
        formatter.write_str("]")
    }
}

/// How many elements these dimensions make: none if one is negative or the product overflows.
pub fn elements(dimensions: &[i64]) -> Option<usize> {
    // A zero elsewhere must not hide an overflow or a negative dimension.
    let mut count: usize = 1;
    let mut empty = false;
    for &dimension in dimensions {
        match usize::try_from(dimension).ok()? {
            0 => empty = true,
            dimension => count = count.checked_mul(dimension)?,
        }
    }
    Some(if empty { 0 } else { count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_elements_or_refuses() {
        assert_eq!(elements(&[]), Some(1));
        assert_eq!(elements(&[2, 3]), Some(6));
        assert_eq!(elements(&[2, 0]), Some(0));
        assert_eq!(elements(&[-1, 3]), None);
        assert_eq!(elements(&[i64::MAX, i64::MAX]), None);
        assert_eq!(elements(&[0, i64::MAX, i64::MAX]), None);
    }

    #[test]
    fn prints_like_the_protocol() {
        assert_eq!(Shape::new(&[2, 3]).to_string(), "[2,3]");
        assert_eq!(Shape::default().to_string(), "[]");
    }
}
