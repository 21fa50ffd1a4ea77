//! What an answer should be, and whether one is that.

use std::sync::Arc;

use crate::dtype::fractions;
use crate::proto::ModelInferResponse;

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

    /// Whether the answer has the same outputs: fractions within the tolerance, all else alike.
    pub(crate) fn is(&self, answer: &ModelInferResponse) -> bool {
        let right = &self.answer;
        let outputs = right.outputs.iter().zip(&answer.outputs);
        right.outputs.len() == answer.outputs.len()
            && right.raw_output_contents.len() == answer.raw_output_contents.len()
            && outputs.clone().all(|(own, other)| {
                own.name == other.name
                    && own.datatype == other.datatype
                    && own.shape == other.shape
                    && own.contents == other.contents
            })
            && outputs
                .zip(
                    right
                        .raw_output_contents
                        .iter()
                        .zip(&answer.raw_output_contents),
                )
                .all(|((output, _), (own, other))| self.same(&output.datatype, own, other))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::model_infer_response::InferOutputTensor;

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
