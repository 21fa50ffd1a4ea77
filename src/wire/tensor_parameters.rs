//! What the parameters of inputs and of outputs wanted ask for (shared memory and classification
//! extensions).

use super::request::{Parameters, refuse_parameters, whole_number};
use crate::proto::infer_parameter::ParameterChoice;
use crate::serving::{InferRequest, RegionPart};
use crate::status::Status;

/// Tensors of a request that lie in shared memory, or are to be put there, by their places.
#[derive(Debug, Default)]
pub struct Regions {
    /// Inputs whose contents are to be read from there; until then they have none.
    pub inputs: Vec<(usize, RegionPart)>,
    /// Outputs wanted whose contents are to be put there.
    pub outputs: Vec<(usize, RegionPart)>,
}

impl Regions {
    /// Whether shared memory has no part in the request.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.outputs.is_empty()
    }
}

/// Whether the parameters of a tensor say that it lies in shared memory.
pub(super) fn is_shared(parameters: &Parameters) -> bool {
    !parameters.is_empty() && parameters.contains_key("shared_memory_region")
}

/// Where a tensor lies in shared memory, if it does.
pub(super) fn region(parameters: &Parameters) -> Result<Option<RegionPart>, Status> {
    if !is_shared(parameters) {
        return Ok(None);
    }
    let named = parameters.get("shared_memory_region");
    let named = named.and_then(|parameter| parameter.parameter_choice.as_ref());
    let Some(ParameterChoice::StringParam(region)) = named else {
        return Err(Status::invalid(
            "parameter \"shared_memory_region\" is not the name of a region",
        ));
    };
    let bytes = whole_number(parameters, "shared_memory_byte_size")?.ok_or_else(|| {
        Status::invalid("parameter \"shared_memory_byte_size\" is missing; it says how long it is")
    })?;
    Ok(Some(RegionPart {
        region: region.clone(),
        offset: whole_number(parameters, "shared_memory_offset")?.unwrap_or(0),
        bytes,
    }))
}

/// Hears what is asked of the output wanted at this place.
pub(super) fn hear_output(
    position: usize,
    name: &str,
    parameters: &Parameters,
    request: &mut InferRequest,
    regions: &mut Regions,
) -> Result<(), Status> {
    if parameters.is_empty() {
        return Ok(());
    }
    let about = |status: Status| status.about(format_args!("output {name:?}"));
    refuse_parameters(parameters)?;
    let part = region(parameters).map_err(about)?;
    regions.outputs.extend(part.map(|part| (position, part)));
    let classes = whole_number(parameters, "classification").map_err(about)?;
    let classes = classes.filter(|classes| *classes > 0);
    let classes = classes.map(|classes| usize::try_from(classes).unwrap_or(usize::MAX));
    request
        .classes
        .extend(classes.map(|classes| (position, classes)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::InferParameter;

    fn parameters(given: &[(&str, ParameterChoice)]) -> Parameters {
        let one = |(name, choice): &(&str, ParameterChoice)| {
            let parameter_choice = Some(choice.clone());
            ((*name).to_owned(), InferParameter { parameter_choice })
        };
        given.iter().map(one).collect()
    }

    fn text(text: &str) -> ParameterChoice {
        ParameterChoice::StringParam(text.to_owned())
    }

    #[test]
    fn regions_and_classes_are_heard() {
        let given = parameters(&[
            ("shared_memory_region", text("r")),
            ("shared_memory_byte_size", ParameterChoice::Int64Param(8)),
            ("shared_memory_offset", ParameterChoice::Uint64Param(4)),
            ("classification", ParameterChoice::Int64Param(3)),
            ("unheard_of", ParameterChoice::BoolParam(true)),
        ]);
        let (mut request, mut regions) = (InferRequest::default(), Regions::default());
        hear_output(1, "y", &given, &mut request, &mut regions).unwrap();
        let part = RegionPart {
            region: "r".to_owned(),
            offset: 4,
            bytes: 8,
        };
        assert_eq!(regions.outputs, [(1, part)]);
        assert_eq!(request.classes, [(1, 3)]);
    }

    #[test]
    fn what_is_no_region_is_named() {
        let size = ("shared_memory_byte_size", ParameterChoice::Int64Param(-8));
        for (given, told) in [
            (
                parameters(&[("shared_memory_region", text("r"))]),
                "byte_size\" is missing",
            ),
            (
                parameters(&[("shared_memory_region", text("r")), size]),
                "whole number",
            ),
            (
                parameters(&[("shared_memory_region", ParameterChoice::Int64Param(1))]),
                "not the name of a region",
            ),
        ] {
            let status = region(&given).unwrap_err();
            assert!(status.message.contains(told), "{status}");
        }
    }
}
