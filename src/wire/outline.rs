//! What a `ModelInferRequest` would take once it is decoded, told from its bytes alone: an input of which nothing is
//! said has two bytes on the wire and hundreds in memory.

use prost::DecodeError;
use prost::bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use crate::proto::InferParameter;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::serving::NamedTensor;
use crate::status::{Code, Status};

/// Inputs of a request, and outputs that it asks for: far more than models have.
pub(super) const MOST_TENSORS: usize = 4096;
/// Dimensions of a tensor: as many as NumPy has.
pub(super) const MOST_DIMENSIONS: usize = 64;
/// Parameters of a request, an input or an output: more than any client sends.
pub(super) const MOST_PARAMETERS: usize = 256;

// Each is counted as it is decoded and as the server's own; texts are copied, raw contents are not.
const INPUT: usize = size_of::<InferInputTensor>() + size_of::<NamedTensor>();
const OUTPUT: usize = size_of::<InferRequestedOutputTensor>() + size_of::<String>();
const RAW: usize = 2 * size_of::<Bytes>();
const DIMENSION: usize = 2 * size_of::<i64>();
/// A table has up to twice the places that it fills, and a name is a block of its own.
const PARAMETER: usize = 2 * (size_of::<String>() + size_of::<InferParameter>()) + 32;

/// What is known of a message before it is decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outline<'a> {
    /// Bytes that it takes once it is decoded, beside those that it has on the wire.
    pub growth: usize,
    /// Its `id`, as far as it was looked at.
    pub id: &'a [u8],
    /// Why it is not to be decoded.
    pub excess: Option<Status>,
}

/// Looks at a message: at each tag, and over what is in between.
///
/// Whoever decodes the message takes at most `growth` bytes more than it has. Where this stops, that stops.
///
/// # Errors
/// When it is no message.
pub fn outline(message: &[u8]) -> Result<Outline<'_>, DecodeError> {
    let mut outline = Outline::default();
    match request(message, &mut outline) {
        Ok(()) => Ok(outline),
        Err(Stop::Excess(status)) => {
            outline.excess = Some(status);
            Ok(outline)
        }
        Err(Stop::Malformed(error)) => Err(error),
    }
}

/// Why a message is looked at no further.
enum Stop {
    Malformed(DecodeError),
    Excess(Status),
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

/// What one field says.
enum Value<'a> {
    /// Its bytes, if it has a length.
    Bytes(&'a [u8]),
    /// A number.
    Number,
}

/// Tells each field of a message by its number.
fn fields<'a>(
    mut message: &'a [u8],
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), Stop>,
) -> Result<(), Stop> {
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message)?;
        let mut ahead = message;
        skip_field(kind, tag, &mut ahead, DecodeContext::default())?;
        let value = match kind {
            WireType::LengthDelimited => {
                decode_varint(&mut message)?;
                let length = message.len() - ahead.len();
                Value::Bytes(message.get(..length).unwrap_or_default())
            }
            _ => Value::Number,
        };
        each(tag, value)?;
        message = ahead;
    }
    Ok(())
}

/// Counts up to a bound.
struct Count {
    what: &'static str,
    most: usize,
    found: usize,
}

impl Count {
    fn new(what: &'static str, most: usize) -> Self {
        let found = 0;
        Self { what, most, found }
    }

    fn add(&mut self, count: usize) -> Result<(), Stop> {
        self.found += count;
        if self.found <= self.most {
            return Ok(());
        }
        let Self { what, most, .. } = self;
        let told = format!("more than {most} {what}, the most that are taken");
        let status = Status::new(Code::InvalidArgument, told);
        Err(Stop::Excess(status))
    }
}

fn request<'a>(message: &'a [u8], outline: &mut Outline<'a>) -> Result<(), Stop> {
    let mut parameters = Count::new("parameters of one request", MOST_PARAMETERS);
    let mut inputs = Count::new("inputs", MOST_TENSORS);
    let mut outputs = Count::new("outputs", MOST_TENSORS);
    let mut raw = Count::new("raw_input_contents", MOST_TENSORS);
    fields(message, |tag, value| {
        let bytes = match value {
            Value::Bytes(bytes) => bytes,
            Value::Number => return Ok(()),
        };
        match tag {
            1 | 2 => outline.growth += bytes.len(),
            3 => {
                outline.growth += bytes.len();
                outline.id = bytes;
            }
            4 => {
                parameters.add(1)?;
                outline.growth += PARAMETER + bytes.len();
            }
            5 => {
                inputs.add(1)?;
                outline.growth += INPUT + input(bytes)?;
            }
            6 => {
                outputs.add(1)?;
                outline.growth += OUTPUT + output(bytes)?;
            }
            7 => {
                raw.add(1)?;
                outline.growth += RAW;
            }
            _ => {}
        }
        Ok(())
    })
}

fn input(message: &[u8]) -> Result<usize, Stop> {
    let mut dimensions = Count::new("dimensions of one input", MOST_DIMENSIONS);
    let mut parameters = Count::new("parameters of one input", MOST_PARAMETERS);
    let mut growth = 0;
    fields(message, |tag, value| {
        match (tag, value) {
            (3, Value::Bytes(packed)) => dimensions.add(varints(packed))?,
            (3, Value::Number) => dimensions.add(1)?,
            (1 | 2, Value::Bytes(text)) => growth += text.len(),
            (4, Value::Bytes(message)) => {
                parameters.add(1)?;
                growth += message.len();
            }
            (5, Value::Bytes(message)) => growth += contents(message)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(growth + dimensions.found * DIMENSION + parameters.found * PARAMETER)
}

fn output(message: &[u8]) -> Result<usize, Stop> {
    let mut parameters = Count::new("parameters of one output", MOST_PARAMETERS);
    fields(message, |tag, _| match tag {
        2 => parameters.add(1),
        _ => Ok(()),
    })?;
    Ok(message.len() + parameters.found * PARAMETER)
}

/// Of typed contents each element is counted twice: as it is decoded, and as an element of the tensor.
fn contents(message: &[u8]) -> Result<usize, Stop> {
    let mut growth = 0_usize;
    fields(message, |tag, value| {
        let element = match tag {
            1 => size_of::<bool>(),
            2 | 4 | 6 => size_of::<u32>(),
            3 | 5 | 7 => size_of::<u64>(),
            8 => size_of::<Bytes>(),
            _ => return Ok(()),
        };
        growth += match (tag, value) {
            (8, Value::Bytes(bytes)) => 2 * element + bytes.len(),
            (6 | 7, Value::Bytes(packed)) => 2 * packed.len(),
            (_, Value::Bytes(packed)) => 2 * element * varints(packed),
            (_, Value::Number) => 2 * element,
        };
        Ok(())
    })?;
    Ok(growth)
}

/// How many numbers these bytes are: the last of each has no bit that says that it goes on.
fn varints(packed: &[u8]) -> usize {
    packed.iter().filter(|byte| **byte < 0x80).count()
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::proto::{InferTensorContents, ModelInferRequest};

    fn of(message: &[u8]) -> Outline<'_> {
        outline(message).unwrap()
    }

    fn with_inputs(inputs: Vec<InferInputTensor>) -> ModelInferRequest {
        ModelInferRequest {
            id: "seven".to_owned(),
            inputs,
            ..ModelInferRequest::default()
        }
    }

    fn named(count: usize) -> HashMap<String, InferParameter> {
        let names = (0..count).map(|name| name.to_string());
        names
            .map(|name| (name, InferParameter::default()))
            .collect()
    }

    #[test]
    fn as_many_as_are_taken_and_no_more() {
        let input = |dimensions, parameters| InferInputTensor {
            shape: vec![1; dimensions],
            parameters: named(parameters),
            ..InferInputTensor::default()
        };
        let output = |parameters| InferRequestedOutputTensor {
            parameters: named(parameters),
            ..InferRequestedOutputTensor::default()
        };
        let most = |more: [usize; 7]| ModelInferRequest {
            parameters: named(MOST_PARAMETERS + more[0]),
            outputs: [
                vec![output(MOST_PARAMETERS + more[1])],
                vec![output(0); MOST_TENSORS - 1 + more[2]],
            ]
            .concat(),
            raw_input_contents: vec![Bytes::new(); MOST_TENSORS + more[3]],
            ..with_inputs(
                [
                    vec![input(MOST_DIMENSIONS + more[4], MOST_PARAMETERS + more[5])],
                    vec![input(0, 0); MOST_TENSORS - 1 + more[6]],
                ]
                .concat(),
            )
        };
        assert_eq!(of(&most([0; 7]).encode_to_vec()).excess, None);
        for (which, told) in [
            "256 parameters of one request",
            "256 parameters of one output",
            "4096 outputs",
            "4096 raw_input_contents",
            "64 dimensions of one input",
            "256 parameters of one input",
            "4096 inputs",
        ]
        .into_iter()
        .enumerate()
        {
            let mut more = [0; 7];
            more[which] = 1;
            let message = most(more).encode_to_vec();
            let outline = of(&message);
            let excess = outline.excess.unwrap();
            assert_eq!(excess.code, Code::InvalidArgument);
            assert!(excess.message.contains(told), "{}", excess.message);
            assert_eq!(outline.id, b"seven");
        }
    }

    #[test]
    fn typed_contents_count_as_what_they_become() {
        let growth = |contents| {
            let input = InferInputTensor {
                contents: Some(contents),
                ..InferInputTensor::default()
            };
            let message = with_inputs(vec![input]).encode_to_vec();
            of(&message).growth - INPUT - "seven".len()
        };
        let none = InferTensorContents::default();
        assert_eq!(growth(none.clone()), 0);
        let flags = InferTensorContents {
            bool_contents: vec![true; 1000],
            ..none.clone()
        };
        assert_eq!(growth(flags), 2_000);
        let negative = InferTensorContents {
            int_contents: vec![-1; 1000],
            ..none.clone()
        };
        assert_eq!(growth(negative), 8_000);
        let wide = InferTensorContents {
            int64_contents: vec![1; 1000],
            ..none.clone()
        };
        assert_eq!(growth(wide), 16_000);
        let fractions = InferTensorContents {
            fp64_contents: vec![0.5; 1000],
            ..none.clone()
        };
        assert_eq!(growth(fractions), 16_000);
        let words = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"abc"); 1000],
            ..none
        };
        assert_eq!(growth(words), 1000 * (2 * size_of::<Bytes>() + 3));
    }

    #[test]
    fn numbers_that_are_not_packed_are_counted_too() {
        // inputs, its shape and int64_contents: a number of one byte after each key.
        let shape = [0x18, 1].repeat(MOST_DIMENSIONS + 1);
        let contents = [0x18, 1].repeat(20);
        let input = [&[0x2a, 40][..], &contents].concat();
        let message = |input: &[u8]| [&[0x2a, u8::try_from(input.len()).unwrap()], input].concat();
        // A length of more than 127 has two bytes.
        let shape = [&[0x2a, 0x82, 0x01][..], &shape].concat();
        let excess = outline(&shape).unwrap().excess.unwrap();
        assert!(excess.message.contains("dimensions"), "{}", excess.message);
        assert_eq!(outline(&message(&input)).unwrap().growth, INPUT + 320);
    }

    proptest! {
        #[test]
        fn whatever_is_decoded_was_looked_at_whole(
            message in prop::collection::vec(
                prop::sample::select(vec![0, 1, 2, 3, 4, 0x0a, 0x18, 0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x80]),
                0..24,
            ),
        ) {
            let Ok(decoded) = ModelInferRequest::decode(&message[..]) else {
                return Ok(());
            };
            let outline = outline(&message).unwrap();
            let inputs = decoded.inputs.iter().map(|input| {
                let contents = input.contents.clone().unwrap_or_default();
                INPUT + DIMENSION * input.shape.len()
                    + PARAMETER * input.parameters.len()
                    + 16 * contents.int64_contents.len()
                    + RAW * contents.bytes_contents.len()
            });
            let least = inputs.sum::<usize>()
                + OUTPUT * decoded.outputs.len()
                + PARAMETER * decoded.parameters.len()
                + RAW * decoded.raw_input_contents.len();
            prop_assert!(outline.growth >= least, "{} < {least}", outline.growth);
            prop_assert_eq!(outline.id, decoded.id.as_bytes());
        }
    }
}
