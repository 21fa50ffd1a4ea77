//! A JSON object of parameters.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};

use crate::proto::InferParameter;
use crate::proto::infer_parameter::ParameterChoice;
use crate::wire::outline::MOST_PARAMETERS as MOST;

/// Parameters by name.
#[derive(Debug, Default)]
pub(super) struct Parameters(pub(super) HashMap<String, InferParameter>);

impl Parameters {
    /// Takes out one that is true or false.
    pub(super) fn take_bool(&mut self, name: &str) -> Option<bool> {
        match self.0.get(name)?.parameter_choice {
            Some(ParameterChoice::BoolParam(truth)) => {
                self.0.remove(name);
                Some(truth)
            }
            _ => None,
        }
    }

    /// Takes out one that is a whole number of at least 0.
    pub(super) fn take_size(&mut self, name: &str) -> Option<usize> {
        match self.0.get(name)?.parameter_choice {
            Some(ParameterChoice::Int64Param(number)) => {
                let size = usize::try_from(number).ok()?;
                self.0.remove(name);
                Some(size)
            }
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Object)
    }
}

struct Object;

impl<'de> Visitor<'de> for Object {
    type Value = Parameters;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of parameters")
    }

    fn visit_unit<E: Error>(self) -> Result<Parameters, E> {
        Ok(Parameters::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut parameters = HashMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if parameters.len() == MOST {
                return Err(A::Error::custom(format_args!(
                    "more than {MOST} parameters"
                )));
            }
            let parameter_choice = map.next_value::<Choice>()?.0;
            parameters.insert(name, InferParameter { parameter_choice });
        }
        Ok(Parameters(parameters))
    }
}

struct Choice(Option<ParameterChoice>);

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Value).map(Self)
    }
}

struct Value;

impl Visitor<'_> for Value {
    type Value = Option<ParameterChoice>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a parameter: true, false, a number or a string")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Some(ParameterChoice::BoolParam(value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Some(ParameterChoice::Int64Param(value)))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Some(match i64::try_from(value) {
            Ok(value) => ParameterChoice::Int64Param(value),
            Err(_) => ParameterChoice::Uint64Param(value),
        }))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Some(ParameterChoice::DoubleParam(value)))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Some(ParameterChoice::StringParam(value.to_owned())))
    }
}
