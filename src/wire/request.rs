//! A `ModelInferRequest` to the server's own request.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::contents;
use super::tensor_parameters::{Regions, hear_output, is_shared, region};
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::{InferParameter, ModelInferRequest};
use crate::serving::{CorrelationId, InSequence, InferRequest, NamedTensor};
use crate::status::Status;
use crate::tensor::{Dtype, Shape, Tensor};

/// Parameters by name.
pub type Parameters = HashMap<String, InferParameter>;

/// A request, and what its parameters ask for beside the inference.
#[derive(Debug)]
pub struct Asked {
    /// The request, without what its call knows: a deadline, and whether it is alone.
    pub request: InferRequest,
    /// Which of its tensors lie in shared memory.
    pub regions: Regions,
    /// The `timeout` parameter.
    pub timeout: Option<Duration>,
    /// Whether responses of a stream are to say that they are the last of their request.
    pub final_response_flag: bool,
}

impl Asked {
    /// Hears parameters that came beside the request; its own go before them.
    pub fn hear(&mut self, beside: &Parameters) -> Result<(), Status> {
        let (priority, timeout) = (priority(beside)?, timeout(beside)?);
        self.request.priority = self.request.priority.or(priority);
        self.timeout = self.timeout.or(timeout);
        Ok(())
    }
}

/// Parameters that change an answer, and where they are heard: anywhere else, leaving them unheard
/// would give a wrong answer.
const ELSEWHERE: [(&str, &str); 2] = [
    ("binary_data_output", "a request over REST"),
    ("binary_data_size", "an input over REST"),
];

/// The longest correlation id that is text, as Triton bounds it.
const LONGEST_ID: usize = 128;

/// Decodes a request. Tensors sent raw share the message's buffer.
pub fn infer_request(message: ModelInferRequest) -> Result<Asked, Status> {
    let model = message.model_name;
    let about = |status: Status| status.about(format_args!("model {model:?}"));
    let mut regions = Regions::default();
    let raw = message.raw_input_contents;
    let mut request = InferRequest {
        version: message.model_version,
        id: message.id,
        inputs: inputs(message.inputs, raw, &mut regions).map_err(about)?,
        ..InferRequest::default()
    };
    outputs(message.outputs, &mut request, &mut regions).map_err(about)?;
    let mut asked = asked(request, &message.parameters).map_err(about)?;
    asked.request.model = model;
    asked.regions = regions;
    Ok(asked)
}

/// What the parameters of a request ask for.
pub(super) fn asked(mut request: InferRequest, parameters: &Parameters) -> Result<Asked, Status> {
    refuse_parameters(parameters)?;
    request.priority = priority(parameters)?;
    request.sequence = sequence(parameters)?;
    Ok(Asked {
        request,
        regions: Regions::default(),
        timeout: timeout(parameters)?,
        final_response_flag: is_true(parameters, "triton_enable_empty_final_response"),
    })
}

/// Refuses parameters that stand where they are not heard.
pub fn refuse_parameters(parameters: &Parameters) -> Result<(), Status> {
    if parameters.is_empty() {
        return Ok(());
    }
    for (name, place) in ELSEWHERE {
        let set = parameters
            .get(name)
            .is_some_and(|parameter| !is_zero(parameter));
        if set {
            return Err(Status::invalid(format!(
                "parameter {name:?} is one of {place}, and cannot be given here"
            )));
        }
    }
    Ok(())
}

/// Clients send `sequence_id = 0` to say that there is no sequence.
fn is_zero(parameter: &InferParameter) -> bool {
    match &parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => *number == 0,
        Some(ParameterChoice::Uint64Param(number)) => *number == 0,
        Some(ParameterChoice::BoolParam(flag)) => !flag,
        Some(ParameterChoice::StringParam(text)) => text.is_empty(),
        Some(ParameterChoice::DoubleParam(_)) => false,
        None => true,
    }
}

fn is_true(parameters: &Parameters, name: &str) -> bool {
    let choice = parameters
        .get(name)
        .and_then(|parameter| parameter.parameter_choice.as_ref());
    matches!(choice, Some(ParameterChoice::BoolParam(true)))
}

/// The sequence extension's parameters. Clients say 0 or an empty text where there is no sequence.
fn sequence(parameters: &Parameters) -> Result<Option<InSequence>, Status> {
    if parameters.is_empty() {
        return Ok(None);
    }
    let Some(parameter) = parameters.get("sequence_id") else {
        return Ok(None);
    };
    if is_zero(parameter) {
        return Ok(None);
    }
    let id = match &parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) if text.len() <= LONGEST_ID => {
            Some(CorrelationId::Text(Arc::from(text.as_str())))
        }
        Some(ParameterChoice::Int64Param(number)) => {
            u64::try_from(*number).ok().map(CorrelationId::Number)
        }
        Some(ParameterChoice::Uint64Param(number)) => Some(CorrelationId::Number(*number)),
        _ => None,
    };
    let id = id.ok_or_else(|| {
        Status::invalid(format!(
            "parameter \"sequence_id\" is neither a whole number of at least 0 nor text of at most \
             {LONGEST_ID} bytes"
        ))
    })?;
    Ok(Some(InSequence {
        id,
        start: is_true(parameters, "sequence_start"),
        end: is_true(parameters, "sequence_end"),
    }))
}

/// The `priority` parameter; 0 stands for the model's default (schedule policy extension).
fn priority(parameters: &Parameters) -> Result<Option<u64>, Status> {
    let priority = whole_number(parameters, "priority")?;
    Ok(priority.filter(|priority| *priority > 0))
}

/// The `timeout` parameter, in microseconds.
fn timeout(parameters: &Parameters) -> Result<Option<Duration>, Status> {
    let microseconds = whole_number(parameters, "timeout")?;
    Ok(microseconds
        .filter(|microseconds| *microseconds > 0)
        .map(Duration::from_micros))
}

pub(super) fn whole_number(parameters: &Parameters, name: &str) -> Result<Option<u64>, Status> {
    if parameters.is_empty() {
        return Ok(None);
    }
    let Some(parameter) = parameters.get(name) else {
        return Ok(None);
    };
    let number = match &parameter.parameter_choice {
        Some(ParameterChoice::Int64Param(number)) => u64::try_from(*number).ok(),
        Some(ParameterChoice::Uint64Param(number)) => Some(*number),
        Some(ParameterChoice::StringParam(text)) => text.parse().ok(),
        _ => None,
    };
    number.map(Some).ok_or_else(|| {
        Status::invalid(format!(
            "parameter {name:?} is not a whole number of at least 0"
        ))
    })
}

fn inputs(
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    regions: &mut Regions,
) -> Result<Vec<NamedTensor>, Status> {
    let shared = |input: &&InferInputTensor| is_shared(&input.parameters);
    let sent = inputs.len() - inputs.iter().filter(shared).count();
    let is_raw = !raw.is_empty();
    if is_raw && raw.len() != sent {
        return Err(Status::invalid(format!(
            "raw_input_contents has {} entries for {sent} inputs; each input needs one, in order",
            raw.len()
        )));
    }
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len());
    for (position, input) in inputs.into_iter().enumerate() {
        tensors.push(match region(&input.parameters) {
            Ok(None) if is_raw => raw_input(input, raw.next().unwrap_or_default())?,
            Ok(None) => typed_input(input)?,
            Ok(Some(part)) => {
                regions.inputs.push((position, part));
                raw_input(input, Bytes::new())?
            }
            Err(wrong) => return Err(wrong.about(format_args!("input {:?}", input.name))),
        });
    }
    Ok(tensors)
}

fn raw_input(input: InferInputTensor, data: Bytes) -> Result<NamedTensor, Status> {
    if input.contents.is_some() {
        let other = match is_shared(&input.parameters) {
            true => "a shared memory region",
            false => "raw contents",
        };
        return Err(Status::invalid(format!(
            "input {:?} has typed contents and {other}; send one of them",
            input.name
        )));
    }
    named(input, |_, _| Ok(data))
}

fn typed_input(mut input: InferInputTensor) -> Result<NamedTensor, Status> {
    let contents = input.contents.take().unwrap_or_default();
    named(input, |name, dtype| {
        contents::raw(dtype, &contents)
            .map_err(|error| Status::invalid(format!("input {name:?}: {error}")))
    })
}

fn named(
    input: InferInputTensor,
    data: impl FnOnce(&str, Dtype) -> Result<Bytes, Status>,
) -> Result<NamedTensor, Status> {
    let dtype = dtype(&input.name, &input.datatype)?;
    let data = data(&input.name, dtype)?;
    Ok(NamedTensor {
        tensor: Tensor {
            dtype,
            shape: Shape::new(&input.shape),
            data,
        },
        name: input.name,
    })
}

pub(super) fn dtype(input: &str, datatype: &str) -> Result<Dtype, Status> {
    Dtype::from_name(datatype).ok_or_else(|| {
        let names: Vec<_> = Dtype::ALL.iter().map(|dtype| dtype.name()).collect();
        let found: String = datatype.chars().take(32).collect();
        Status::invalid(format!(
            "input {input:?} has datatype {found:?}; there are {}",
            names.join(", ")
        ))
    })
}

fn outputs(
    outputs: Vec<InferRequestedOutputTensor>,
    request: &mut InferRequest,
    regions: &mut Regions,
) -> Result<(), Status> {
    request.outputs.reserve_exact(outputs.len());
    for (position, output) in outputs.into_iter().enumerate() {
        hear_output(position, &output.name, &output.parameters, request, regions)?;
        request.outputs.push(output.name);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::InferTensorContents;
    use crate::status::Code;

    fn parameter(choice: ParameterChoice) -> InferParameter {
        InferParameter {
            parameter_choice: Some(choice),
        }
    }

    fn input(contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1],
            contents,
            ..InferInputTensor::default()
        }
    }

    #[test]
    fn raw_contents_are_shared() {
        let raw = Bytes::from(vec![0, 0, 128, 63]);
        let message = ModelInferRequest {
            inputs: vec![input(None)],
            raw_input_contents: vec![raw.clone()],
            ..ModelInferRequest::default()
        };
        let asked = infer_request(message).unwrap();
        assert_eq!(asked.request.inputs[0].tensor.data.as_ptr(), raw.as_ptr());
    }

    #[test]
    fn contents_come_one_way() {
        let message = ModelInferRequest {
            model_name: "m".to_owned(),
            inputs: vec![input(Some(InferTensorContents::default()))],
            raw_input_contents: vec![Bytes::from_static(&[0; 4])],
            ..ModelInferRequest::default()
        };
        let error = infer_request(message).unwrap_err();
        assert_eq!(
            error.message,
            r#"model "m": input "x" has typed contents and raw contents; send one of them"#
        );
        let message = ModelInferRequest {
            model_name: "m".to_owned(),
            inputs: vec![input(None), input(None)],
            raw_input_contents: vec![Bytes::from_static(&[0; 4])],
            ..ModelInferRequest::default()
        };
        let error = infer_request(message).unwrap_err();
        assert_eq!(
            error.message,
            r#"model "m": raw_input_contents has 1 entries for 2 inputs; each input needs one, in order"#
        );
    }

    #[test]
    fn parameters_are_heard_or_refused() {
        let ask = |name: &str, choice| {
            let parameters = HashMap::from([(name.to_owned(), parameter(choice))]);
            infer_request(ModelInferRequest {
                parameters,
                ..ModelInferRequest::default()
            })
        };
        let asked = ask("timeout", ParameterChoice::Int64Param(2500)).unwrap();
        assert_eq!(asked.timeout, Some(Duration::from_micros(2500)));
        let asked = ask("priority", ParameterChoice::Uint64Param(2)).unwrap();
        assert_eq!(asked.request.priority, Some(2));
        let asked = ask("priority", ParameterChoice::Uint64Param(0)).unwrap();
        assert_eq!(asked.request.priority, None);
        assert!(ask("priority", ParameterChoice::BoolParam(true)).is_err());
        assert!(ask("timeout", ParameterChoice::Int64Param(-1)).is_err());
        let binary = ParameterChoice::BoolParam(true);
        let refused = ask("binary_data_output", binary).unwrap_err();
        assert_eq!(refused.code, Code::InvalidArgument);
    }

    /// KServe's client says over gRPC, too, how long a raw input is.
    #[test]
    fn what_an_input_over_rest_says_changes_nothing_here() {
        let size = parameter(ParameterChoice::Int64Param(4));
        let input = InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1],
            parameters: HashMap::from([("binary_data_size".to_owned(), size)]),
            contents: None,
        };
        let asked = infer_request(ModelInferRequest {
            inputs: vec![input],
            raw_input_contents: vec![Bytes::from_static(&[0; 4])],
            ..ModelInferRequest::default()
        });
        assert_eq!(asked.unwrap().request.inputs[0].tensor.data.len(), 4);
    }

    #[test]
    fn a_sequence_has_a_number_or_a_text() {
        let ask = |id| {
            let parameters = HashMap::from([
                ("sequence_id".to_owned(), parameter(id)),
                (
                    "sequence_end".to_owned(),
                    parameter(ParameterChoice::BoolParam(true)),
                ),
            ]);
            infer_request(ModelInferRequest {
                parameters,
                ..ModelInferRequest::default()
            })
            .map(|asked| asked.request.sequence)
        };
        let text = |text: &str| ParameterChoice::StringParam(text.to_owned());
        let last = |id| InSequence {
            id,
            start: false,
            end: true,
        };
        assert_eq!(ask(ParameterChoice::Int64Param(0)), Ok(None));
        assert_eq!(ask(text("")), Ok(None));
        let number = ask(ParameterChoice::Int64Param(7)).unwrap();
        assert_eq!(number, Some(last(CorrelationId::Number(7))));
        let largest = ask(ParameterChoice::Uint64Param(u64::MAX)).unwrap();
        assert_eq!(largest, Some(last(CorrelationId::Number(u64::MAX))));
        let named = ask(text("a")).unwrap();
        assert_eq!(named, Some(last(CorrelationId::Text(Arc::from("a")))));
        for wrong in [
            ParameterChoice::Int64Param(-1),
            ParameterChoice::BoolParam(true),
            ParameterChoice::DoubleParam(1.5),
            text(&"i".repeat(LONGEST_ID + 1)),
        ] {
            let code = ask(wrong).unwrap_err().code;
            assert_eq!(code, Code::InvalidArgument);
        }
    }
}
