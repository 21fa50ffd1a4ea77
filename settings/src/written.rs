//! A value as somebody wrote it.

use std::fmt;

use toml::de::{DeInteger, DeValue};

/// A value as it was written, before a rule has given it a meaning.
#[derive(Clone, Copy)]
pub enum Written<'a> {
    /// On the command line or in the environment, where everything is text.
    Plain(&'a str),
    /// In a TOML file, with a type.
    Toml(&'a DeValue<'a>),
}

impl<'a> Written<'a> {
    /// The text, if it is text.
    pub fn text(self) -> Option<&'a str> {
        match self {
            Self::Plain(text) => Some(text),
            Self::Toml(DeValue::String(text)) => Some(text),
            Self::Toml(_) => None,
        }
    }

    /// The whole number, if it is one.
    pub fn whole(self) -> Option<i128> {
        match self {
            Self::Plain(text) => text.parse().ok(),
            Self::Toml(DeValue::Integer(integer)) => value_of(integer),
            Self::Toml(_) => None,
        }
    }

    /// The number, whole or not, if it is one.
    pub fn number(self) -> Option<f64> {
        match self {
            Self::Plain(text) => text.parse().ok(),
            Self::Toml(DeValue::Float(float)) => float.as_str().parse().ok(),
            Self::Toml(_) => self.whole().map(|whole| whole as f64),
        }
    }

    /// The truth value, if it is one.
    pub fn truth(self) -> Option<bool> {
        match self {
            Self::Plain(text) => text.parse().ok(),
            Self::Toml(value) => value.as_bool(),
        }
    }
}

fn value_of(integer: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// As it reads after the word "found".
impl fmt::Display for Written<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => write!(formatter, "{text:?}"),
            Self::Toml(DeValue::String(text)) => write!(formatter, "{text:?}"),
            Self::Toml(DeValue::Integer(integer)) => write!(formatter, "{integer}"),
            Self::Toml(DeValue::Float(float)) => write!(formatter, "{float}"),
            Self::Toml(DeValue::Boolean(truth)) => write!(formatter, "{truth}"),
            Self::Toml(DeValue::Datetime(moment)) => write!(formatter, "the date {moment}"),
            Self::Toml(DeValue::Array(_)) => formatter.write_str("a list"),
            Self::Toml(DeValue::Table(_)) => formatter.write_str("a table"),
        }
    }
}
