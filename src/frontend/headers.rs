//! Headers that stand for parameters of requests: a proxy knows what a client does not say.

use std::collections::HashMap;

use http::HeaderMap;

use super::api::Api;
use crate::proto::InferParameter;
use crate::proto::infer_parameter::ParameterChoice;

impl Api {
    /// What a call's headers say in place of parameters, of those that the operator named.
    pub(super) fn forwarded(&self, headers: &HeaderMap) -> HashMap<String, InferParameter> {
        let named = self.forward_headers.iter().filter_map(|name| {
            let value = headers.get(*name)?.to_str().ok()?;
            let parameter = InferParameter {
                parameter_choice: Some(ParameterChoice::StringParam(value.to_owned())),
            };
            Some(((*name).to_owned(), parameter))
        });
        named.collect()
    }
}
