//! What an answer should be, and whether one is that.

use std::sync::Arc;

use bytes::Bytes;

use crate::dtype::fractions;
use crate::proto::ModelInferResponse;
use crate::proto::model_infer_response::InferOutputTensor;

/// How far apart two fractions may be that count as the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) absolute: f64,
    /// Of the one that is right.
    pub(crate) relative: f64,
}

/// What an answer should be.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    answer: Arc<ModelInferResponse>,
    tolerance: Tolerance,
}

impl Expected {
    pub(crate) fn new(answer: ModelInferResponse, tolerance: Tolerance) -> Self {
        Self {
            answer: Arc::new(answer),
            tolerance,
        }
    }

    /// Whether the answer has these outputs, in any order: fractions within the tolerance, all else
    /// alike.
    pub(crate) fn is(&self, answer: &ModelInferResponse) -> bool {
        let right = self.answer.outputs.iter().enumerate();
        right.into_iter().all(|(place, right)| {
            let named = |other: &InferOutputTensor| other.name == right.name;
            let found = answer.outputs.iter().position(named);
            let Some((at, found)) = found.and_then(|at| Some((at, answer.outputs.get(at)?))) else {
                return false;
            };
            found.datatype == right.datatype
                && found.shape == right.shape
                && found.contents == right.contents
                && match (raw(&self.answer, place), raw(answer, at)) {
                    (Some(right), Some(raw)) => self.same(&found.datatype, right, raw),
                    (right, raw) => right == raw,
                }
        })
    }

    fn same(&self, datatype: &str, right: &[u8], found: &[u8]) -> bool {
        if right == found {
            return true;
        }
        let numbers = fractions(datatype, right).zip(fractions(datatype, found));
        let Some((right, numbers)) = numbers.filter(|(one, two)| one.len() == two.len()) else {
            return false;
        };
        let Tolerance { absolute, relative } = self.tolerance;
        right.iter().zip(&numbers).all(|(right, found)| {
            (right - found).abs() <= absolute + relative * right.abs()
                || (right.is_nan() && found.is_nan())
        })
    }
}

fn raw(answer: &ModelInferResponse, place: usize) -> Option<&Bytes> {
    answer.raw_output_contents.get(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(datatype: &str, raw: Vec<u8>) -> ModelInferResponse {
        ModelInferResponse {
            outputs: vec![InferOutputTensor {
                name: "y".to_owned(),
                datatype: datatype.to_owned(),
                shape: vec![2],
                ..InferOutputTensor::default()
            }],
            raw_output_contents: vec![raw.into()],
            ..ModelInferResponse::default()
        }
    }

    fn floats(numbers: [f32; 2]) -> ModelInferResponse {
        let raw = numbers.iter().flat_map(|number| number.to_le_bytes());
        answer("FP32", raw.collect())
    }

    #[test]
    fn fractions_may_differ_a_little_and_nothing_else_may() {
        let tolerance = Tolerance {
            absolute: 1e-3,
            relative: 1e-2,
        };
        let right = Expected::new(floats([100.0, f32::NAN]), tolerance);
        assert!(right.is(&floats([100.9, f32::NAN])));
        assert!(!right.is(&floats([101.1, f32::NAN])));
        assert!(!right.is(&floats([100.0, 0.0])));
        let mut other = floats([100.0, f32::NAN]);
        other.outputs[0].name = "z".to_owned();
        assert!(!right.is(&other));
        let whole = Expected::new(answer("INT8", vec![1, 2]), tolerance);
        assert!(whole.is(&answer("INT8", vec![1, 2])));
        assert!(!whole.is(&answer("INT8", vec![1, 3])));
        assert!(!whole.is(&answer("INT8", vec![1])));
        assert!(!whole.is(&ModelInferResponse::default()));
    }
}
