//! What goes into a model and what comes out, and whether its rows are independent.

use std::fmt;

use crate::tensor::{Dtype, Shape};

/// One dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Its size; none if it varies.
    pub size: Option<usize>,
    /// What the model calls it; empty if it does not say.
    pub symbol: String,
}

impl Dimension {
    /// A dimension of this size.
    pub fn fixed(size: usize) -> Self {
        Self {
            size: Some(size),
            symbol: String::new(),
        }
    }

    /// A dimension that varies.
    pub fn varying(symbol: &str) -> Self {
        Self {
            size: None,
            symbol: symbol.to_owned(),
        }
    }

    /// The protocol's form: the size, or -1 if it varies.
    pub fn protocol(&self) -> i64 {
        self.size
            .map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX))
    }

    /// Whether a tensor may have `size` here.
    pub fn admits(&self, size: i64) -> bool {
        self.size
            .map_or(size >= 0, |own| usize::try_from(size) == Ok(own))
    }
}

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// The model's name for it.
    pub name: String,
    /// Its element type.
    pub dtype: Dtype,
    /// Its dimensions, the batch dimension among them.
    pub dimensions: Vec<Dimension>,
}

impl TensorSpec {
    /// The dimensions in the protocol's form, -1 where they vary.
    pub fn protocol_shape(&self) -> Vec<i64> {
        self.dimensions.iter().map(Dimension::protocol).collect()
    }

    fn first_varies(&self) -> bool {
        self.dimensions
            .first()
            .is_some_and(|dimension| dimension.size.is_none())
    }

    fn first_symbol(&self) -> &str {
        self.dimensions
            .first()
            .map_or("", |dimension| dimension.symbol.as_str())
    }
}

impl fmt::Display for TensorSpec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = Shape::new(&self.protocol_shape());
        write!(formatter, "{} {} {shape}", self.name, self.dtype)
    }
}

/// Whether requests of a model can share a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batching {
    /// The first dimension of every input and output counts independent rows.
    Rows,
    /// Every request runs alone, for this reason.
    Alone(String),
}

impl Batching {
    /// Whether rows of several requests may share a run.
    pub fn is_rows(&self) -> bool {
        matches!(self, Self::Rows)
    }
}

/// What goes into a model and what comes out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// In the model's order.
    pub inputs: Vec<TensorSpec>,
    /// In the model's order.
    pub outputs: Vec<TensorSpec>,
}

impl Signature {
    /// Whether the dimensions say that the first one counts rows: it varies in every input and
    /// output, and no two of them give it different names.
    pub fn batching(&self) -> Batching {
        let mut symbol: &str = "";
        for spec in self.inputs.iter().chain(&self.outputs) {
            if !spec.first_varies() {
                return Batching::Alone(format!("the first dimension of {spec} does not vary"));
            }
            let own = spec.first_symbol();
            if symbol.is_empty() {
                symbol = own;
            } else if !own.is_empty() && own != symbol {
                return Batching::Alone(format!(
                    "the first dimension is called {symbol} in one place and {own} in {}",
                    spec.name
                ));
            }
        }
        if self.inputs.is_empty() {
            return Batching::Alone("the model has no inputs".to_owned());
        }
        Batching::Rows
    }

    /// The first dimension, if it is one and the same number in every input and output.
    pub fn fixed_rows(&self) -> Option<usize> {
        let mut all = self.inputs.iter().chain(&self.outputs);
        let rows = self.inputs.first()?.dimensions.first()?.size?;
        let same = |spec: &TensorSpec| {
            let first = spec.dimensions.first();
            first.is_some_and(|first| first.size == Some(rows))
        };
        all.all(same).then_some(rows)
    }

    /// Lets the first dimension of every input and output vary.
    pub fn vary_rows(&mut self) {
        for spec in self.inputs.iter_mut().chain(&mut self.outputs) {
            if let Some(first) = spec.dimensions.first_mut() {
                *first = Dimension::varying("");
            }
        }
    }

    /// The input of this name, with its position.
    pub fn input(&self, name: &str) -> Option<(usize, &TensorSpec)> {
        position(&self.inputs, name)
    }

    /// The output of this name, with its position.
    pub fn output(&self, name: &str) -> Option<(usize, &TensorSpec)> {
        position(&self.outputs, name)
    }
}

fn position<'a>(specs: &'a [TensorSpec], name: &str) -> Option<(usize, &'a TensorSpec)> {
    specs.iter().enumerate().find(|(_, spec)| spec.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, dimensions: Vec<Dimension>) -> TensorSpec {
        TensorSpec {
            name: name.to_owned(),
            dtype: Dtype::Fp32,
            dimensions,
        }
    }

    fn signature(input: Vec<Dimension>, output: Vec<Dimension>) -> Signature {
        Signature {
            inputs: vec![spec("x", input)],
            outputs: vec![spec("y", output)],
        }
    }

    #[test]
    fn rows_need_one_varying_first_dimension() {
        let batch = || Dimension::varying("batch");
        let rows = signature(vec![batch(), Dimension::fixed(4)], vec![batch()]);
        assert_eq!(rows.batching(), Batching::Rows);
        let unnamed = signature(vec![batch()], vec![Dimension::varying("")]);
        assert_eq!(unnamed.batching(), Batching::Rows);
        let fixed = signature(vec![Dimension::fixed(2)], vec![batch()]);
        assert!(!fixed.batching().is_rows());
        let other = signature(vec![batch()], vec![Dimension::varying("boxes")]);
        assert!(!other.batching().is_rows());
        let scalar = signature(vec![batch()], vec![]);
        assert!(!scalar.batching().is_rows());
    }
}
