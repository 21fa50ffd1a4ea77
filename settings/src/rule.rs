//! Rules that say which values a setting may have, the same for a flag, the environment and a file.

use std::fmt::Display;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::written::Written;

/// Which values a setting may have, and what they mean.
pub trait Rule {
    /// What a value means.
    type Output;

    /// The meaning of `written`; none if the rule does not allow it.
    fn read(&self, written: Written<'_>) -> Option<Self::Output>;

    /// What the rule allows, as it reads after "allowed:".
    fn allowed(&self) -> String;

    /// The meaning of `written`, or what to tell the user.
    fn check(&self, written: Written<'_>) -> Result<Self::Output, String> {
        self.read(written)
            .ok_or_else(|| found(written, &self.allowed()))
    }
}

/// What to tell the user who wrote `written` where only `allowed` is.
pub fn found(written: Written<'_>, allowed: &str) -> String {
    format!("found {written}; allowed: {allowed}")
}

/// A whole number in a range. Made by [`whole`] and [`whole_from`].
pub struct Whole<T> {
    low: T,
    high: Option<T>,
}

/// Whole numbers in `range`.
pub fn whole<T>(range: RangeInclusive<T>) -> Whole<T> {
    let (low, high) = range.into_inner();
    let high = Some(high);
    Whole { low, high }
}

/// Whole numbers of at least `low`.
pub fn whole_from<T>(low: T) -> Whole<T> {
    Whole { low, high: None }
}

impl<T: TryFrom<i128> + PartialOrd + Display> Rule for Whole<T> {
    type Output = T;

    fn read(&self, written: Written<'_>) -> Option<T> {
        let value = T::try_from(written.whole()?).ok()?;
        let sound = value >= self.low && self.high.as_ref().is_none_or(|high| value <= *high);
        sound.then_some(value)
    }

    fn allowed(&self) -> String {
        match &self.high {
            Some(high) => format!("a whole number, {} to {high}", self.low),
            None => format!("a whole number, at least {}", self.low),
        }
    }
}

/// A time, whole or not, in a range. Made by [`milliseconds`] and [`seconds`].
pub struct Time {
    range: RangeInclusive<f64>,
    unit: &'static str,
    a_second: f64,
}

/// Times whose milliseconds are in `range`.
pub fn milliseconds(range: RangeInclusive<f64>) -> Time {
    Time {
        range,
        unit: "milliseconds",
        a_second: 1e3,
    }
}

/// Times whose seconds are in `range`.
pub fn seconds(range: RangeInclusive<f64>) -> Time {
    Time {
        range,
        unit: "seconds",
        a_second: 1.0,
    }
}

impl Rule for Time {
    type Output = Duration;

    fn read(&self, written: Written<'_>) -> Option<Duration> {
        let value = written
            .number()
            .filter(|value| self.range.contains(value))?;
        Duration::try_from_secs_f64(value / self.a_second).ok()
    }

    fn allowed(&self) -> String {
        let (low, high) = (self.range.start(), self.range.end());
        format!("{}, {low} to {high}", self.unit)
    }
}

/// True or false.
pub struct Truth;

impl Rule for Truth {
    type Output = bool;

    fn read(&self, written: Written<'_>) -> Option<bool> {
        written.truth()
    }

    fn allowed(&self) -> String {
        "true, false".to_owned()
    }
}

/// Any number that is one.
pub struct Number;

impl Rule for Number {
    type Output = f64;

    fn read(&self, written: Written<'_>) -> Option<f64> {
        written.number().filter(|number| number.is_finite())
    }

    fn allowed(&self) -> String {
        "a number".to_owned()
    }
}

/// A number in a range.
pub struct Between(pub RangeInclusive<f64>);

impl Rule for Between {
    type Output = f64;

    fn read(&self, written: Written<'_>) -> Option<f64> {
        written.number().filter(|number| self.0.contains(number))
    }

    fn allowed(&self) -> String {
        format!("a number, {} to {}", self.0.start(), self.0.end())
    }
}

/// One of these names, each with its meaning.
pub struct OneOf<'a, T>(pub &'a [(&'static str, T)]);

impl<T: Clone> Rule for OneOf<'_, T> {
    type Output = T;

    fn read(&self, written: Written<'_>) -> Option<T> {
        let text = written.text()?;
        let entry = self.0.iter().find(|(name, _)| *name == text)?;
        Some(entry.1.clone())
    }

    fn allowed(&self) -> String {
        let names: Vec<String> = self.0.iter().map(|(name, _)| format!("{name:?}")).collect();
        names.join(", ")
    }
}

/// Any text that is not empty.
pub struct Text;

impl Rule for Text {
    type Output = String;

    fn read(&self, written: Written<'_>) -> Option<String> {
        let text = written.text().filter(|text| !text.is_empty())?;
        Some(text.to_owned())
    }

    fn allowed(&self) -> String {
        "text that is not empty".to_owned()
    }
}

/// Text that a function understands.
pub struct Parsed<T> {
    /// What the text means; none if it is not allowed.
    pub parse: fn(&str) -> Option<T>,
    /// What is allowed, as it reads after "allowed:".
    pub allowed: &'static str,
}

impl<T> Rule for Parsed<T> {
    type Output = T;

    fn read(&self, written: Written<'_>) -> Option<T> {
        (self.parse)(written.text()?)
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }
}

/// An address to listen on.
pub const ADDRESS: Parsed<SocketAddr> = Parsed {
    parse: |text| text.parse().ok(),
    allowed: "an IP address and a port, such as \"0.0.0.0:8001\" or \"[::]:8001\"",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_a_fraction_and_stays_in_range() {
        let rule = milliseconds(0.001..=1000.0);
        let read = |text| rule.read(Written::Plain(text));
        assert_eq!(read("0.1"), Some(Duration::from_micros(100)));
        assert_eq!(read("1000"), Some(Duration::from_secs(1)));
        for text in ["0", "-1", "nan", "inf", "1e300", "1000.1", "1ms", ""] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_whole_number_never_wraps() {
        let rule = whole(1_u32..=7);
        let read = |text| rule.read(Written::Plain(text));
        assert_eq!(read("7"), Some(7));
        for text in ["0", "-1", "8", "4294967297", "1.0", "0x1", ""] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(rule.allowed(), "a whole number, 1 to 7");
        assert_eq!(whole_from(1).allowed(), "a whole number, at least 1");
    }

    #[test]
    fn an_address_names_its_port() {
        assert!(ADDRESS.read(Written::Plain("[::]:8001")).is_some());
        assert!(ADDRESS.read(Written::Plain("127.0.0.1")).is_none());
    }
}
