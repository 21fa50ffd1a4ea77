//! Requests made up from what the server says of its models, or read from files.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use fastrand::Rng;

use crate::dtype::{Values, random_elements};
use crate::expected::{Expected, Tolerance};
use crate::files;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::InferInputTensor;
use crate::proto::model_metadata_response::TensorMetadata;
use crate::proto::{InferParameter, ModelInferRequest, ModelInferResponse, ModelMetadataResponse};
use crate::requests::Request;
use crate::scenario::{RequestSpec, Scenario, Sizes};
use crate::target::Target;

/// No tensor that is made up is larger.
const MOST_ELEMENTS: i64 = 1 << 28;

/// The requests of a scenario, ready to be sent. Where recordings say how many rows a request has,
/// there are some of each number.
pub(crate) async fn fill(scenario: &Scenario, target: &Target) -> anyhow::Result<Vec<Request>> {
    let mut requests = Vec::new();
    let mut random = Rng::with_seed(scenario.seed);
    let mut sizes = vec![None];
    sizes.extend(scenario.recorded_rows().into_iter().map(Some));
    for spec in &scenario.requests {
        for rows in &sizes {
            let spec = RequestSpec {
                rows: rows.map_or(spec.rows, |rows| rows as usize),
                ..spec.clone()
            };
            let made = made(&spec, target, &mut random).await?;
            for request in made {
                requests.push(request.of_rows(*rows).for_protocol(scenario.protocol)?);
            }
        }
    }
    Ok(requests)
}

/// Requests of one kind.
async fn made(
    spec: &RequestSpec,
    target: &Target,
    random: &mut Rng,
) -> anyhow::Result<Vec<Request>> {
    let metadata = target.metadata(&spec.model, &spec.version).await?;
    let messages = messages(spec, &metadata, random)?;
    let answers = match &spec.expected {
        Some(file) => answers(file, spec, &metadata, messages.len())?,
        None => Vec::new(),
    };
    let mut answers = answers.into_iter();
    let weight = spec.weight / messages.len() as f64;
    let mut requests = Vec::new();
    for mut message in messages {
        if let Some(priority) = spec.priority {
            let choice = ParameterChoice::Uint64Param(priority);
            let parameter = InferParameter {
                parameter_choice: Some(choice),
            };
            message.parameters.insert("priority".to_owned(), parameter);
        }
        let expected = match (answers.next(), spec.check) {
            (Some(answer), tolerance) => {
                let (absolute, relative) = tolerance.unwrap_or(RequestSpec::TOLERANCE);
                Some(Expected::new(answer, Tolerance { absolute, relative }))
            }
            (None, Some(tolerance)) => Some(reference(&message, tolerance, target).await?),
            (None, None) => None,
        };
        let request = match spec.deadline {
            Some(deadline) => Request::with_deadline(message, deadline),
            None => Request::new(&message),
        };
        requests.push(request.expecting(expected).weighted(weight));
    }
    Ok(requests)
}

/// What a file says the answers are.
fn answers(
    file: &Path,
    spec: &RequestSpec,
    metadata: &ModelMetadataResponse,
    requests: usize,
) -> anyhow::Result<Vec<ModelInferResponse>> {
    let answers = files::read_answers(file, metadata, spec.rows)?;
    ensure!(
        answers.len() == requests,
        "{} holds {} answers to {requests} requests",
        file.display(),
        answers.len()
    );
    Ok(answers)
}

/// What the same request is answered alone.
async fn reference(
    message: &ModelInferRequest,
    (absolute, relative): (f64, f64),
    target: &Target,
) -> anyhow::Result<Expected> {
    let answer = target.infer(message.clone()).await;
    let answer = answer.with_context(|| format!("the reference of {}", message.model_name))?;
    Ok(Expected::new(answer, Tolerance { absolute, relative }))
}

fn messages(
    spec: &RequestSpec,
    metadata: &ModelMetadataResponse,
    random: &mut Rng,
) -> anyhow::Result<Vec<ModelInferRequest>> {
    if let Some(file) = &spec.file {
        let mut requests = files::read(file, metadata, spec.rows)?;
        for request in &mut requests {
            request.model_name.clone_from(&spec.model);
            request.model_version.clone_from(&spec.version);
        }
        return Ok(requests);
    }
    let made = (0..spec.variants).map(|_| make_up(spec, metadata, random));
    made.collect()
}

fn make_up(
    spec: &RequestSpec,
    metadata: &ModelMetadataResponse,
    random: &mut Rng,
) -> anyhow::Result<ModelInferRequest> {
    let mut drawn = Vec::new();
    let mut inputs = Vec::new();
    let mut contents = Vec::new();
    for input in &metadata.inputs {
        let shape = shape(spec, input, &mut drawn, random);
        let count = shape
            .iter()
            .try_fold(1_i64, |all, size| all.checked_mul(*size));
        let count = count.filter(|count| (0..=MOST_ELEMENTS).contains(count));
        let Some(count) = count else {
            bail!(
                "{}: input {} of shape {shape:?} is too large",
                spec.model,
                input.name
            );
        };
        let range = spec.values.iter().find(|(name, _)| *name == input.name);
        let values = Values {
            count: usize::try_from(count)?,
            range: range.map(|(_, range)| *range),
        };
        let data = random_elements(&input.datatype, &values, random)
            .with_context(|| format!("{}: input {}", spec.model, input.name))?;
        contents.push(Bytes::from(data));
        inputs.push(InferInputTensor {
            name: input.name.clone(),
            datatype: input.datatype.clone(),
            shape,
            ..InferInputTensor::default()
        });
    }
    ensure!(!inputs.is_empty(), "{} has no inputs", spec.model);
    Ok(ModelInferRequest {
        model_name: spec.model.clone(),
        model_version: spec.version.clone(),
        inputs,
        raw_input_contents: contents,
        ..ModelInferRequest::default()
    })
}

/// The shape of one input. Rows are as the scenario says; inputs that leave the same axis open agree
/// on its size, unless the scenario says it of each.
fn shape(
    spec: &RequestSpec,
    input: &TensorMetadata,
    drawn: &mut Vec<(usize, i64)>,
    random: &mut Rng,
) -> Vec<i64> {
    let sizes = input.shape.iter().enumerate().map(|(axis, size)| {
        if *size >= 0 {
            return *size;
        }
        let own = [format!("{}.{axis}", input.name), input.name.clone()];
        let given = |name: &str| spec.dimensions.iter().find(|(key, _)| key == name);
        if let Some((_, sizes)) = own.iter().find_map(|name| given(name)) {
            return draw(sizes, random);
        }
        if axis == 0 {
            return i64::try_from(spec.rows).unwrap_or(i64::MAX);
        }
        if let Some((_, size)) = drawn.iter().find(|(known, _)| *known == axis) {
            return *size;
        }
        let size = given("default").map_or(1, |(_, sizes)| draw(sizes, random));
        drawn.push((axis, size));
        size
    });
    sizes.collect()
}

fn draw(sizes: &Sizes, random: &mut Rng) -> i64 {
    let size = match sizes {
        Sizes::Fixed(size) => *size,
        Sizes::Uniform(low, high) => random.usize(*low..=*high),
        Sizes::LogNormal {
            median,
            sigma,
            low,
            high,
        } => {
            let size = median * (sigma * crate::arrivals::normal(random)).exp();
            (size.round() as usize).clamp(*low, *high)
        }
    };
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::read_scenario;

    fn spec(keys: &str) -> RequestSpec {
        let source = format!(
            "[[requests]]\nmodel = \"m\"\n{keys}\n[[steps]]\narrivals = \"poisson\"\nrate = 1\nduration_s = 1"
        );
        let scenario = read_scenario(std::path::Path::new("s.toml"), &source).unwrap();
        scenario.requests[0].clone()
    }

    fn metadata(inputs: &[(&str, &str, &[i64])]) -> ModelMetadataResponse {
        let inputs = inputs.iter().map(|(name, datatype, shape)| TensorMetadata {
            name: (*name).to_owned(),
            datatype: (*datatype).to_owned(),
            shape: shape.to_vec(),
        });
        ModelMetadataResponse {
            inputs: inputs.collect(),
            ..ModelMetadataResponse::default()
        }
    }

    #[test]
    fn inputs_agree_on_open_axes_and_fit_their_shapes() {
        let spec = spec("rows = 3\ndimensions = { default = { low = 5, high = 50 } }");
        let metadata = metadata(&[
            ("ids", "INT64", &[-1, -1]),
            ("mask", "INT64", &[-1, -1]),
            ("words", "BYTES", &[2]),
        ]);
        let mut random = Rng::with_seed(1);
        for _ in 0..50 {
            let made = make_up(&spec, &metadata, &mut random).unwrap();
            let [ids, mask, words] = &made.inputs[..] else {
                panic!("three inputs")
            };
            assert_eq!(ids.shape, mask.shape);
            assert!(ids.shape[0] == 3 && (5..=50).contains(&ids.shape[1]));
            assert_eq!(words.shape, [2]);
            let bytes = 8 * ids.shape[0] * ids.shape[1];
            assert_eq!(made.raw_input_contents[0].len() as i64, bytes);
        }
    }

    #[test]
    fn what_is_said_of_an_input_counts() {
        let spec = spec("dimensions = { x = 4, \"y.1\" = 6 }\nvalues = { x = [7, 7] }");
        let metadata = metadata(&[("x", "UINT8", &[-1]), ("y", "FP32", &[-1, -1])]);
        let made = make_up(&spec, &metadata, &mut Rng::with_seed(1)).unwrap();
        assert_eq!(made.inputs[0].shape, [4]);
        assert_eq!(made.inputs[1].shape, [1, 6]);
        assert_eq!(made.raw_input_contents[0], [7, 7, 7, 7][..]);
    }

    #[test]
    fn the_same_seed_makes_the_same_request() {
        let spec = spec("");
        let metadata = metadata(&[("x", "FP16", &[-1, 9])]);
        let make = |seed| make_up(&spec, &metadata, &mut Rng::with_seed(seed)).unwrap();
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let spec = spec("dimensions = { x = 1000000000 }");
        let metadata = metadata(&[("x", "FP32", &[-1, -1])]);
        let error = make_up(&spec, &metadata, &mut Rng::with_seed(1)).unwrap_err();
        assert!(error.to_string().contains("too large"), "{error}");
    }
}
