//! Rules for settings that speak of the server's own terms.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use jitney_settings::Written;
use jitney_settings::rule::{Parsed, Rule, milliseconds};

use super::device::{self, parse_device};
use crate::model::{DeviceChoice, check_name};

/// Any single value, turned into the text that ONNX Runtime takes for it.
pub(super) struct OptionText;

impl Rule for OptionText {
    type Output = String;

    fn read(&self, written: Written<'_>) -> Option<String> {
        // Every option of ONNX Runtime reads 1 and 0; not every one reads true and false.
        let truth = || written.truth().map(|truth| u8::from(truth).to_string());
        let whole = || written.whole().map(|whole| whole.to_string());
        let number = || written.number().map(|number| number.to_string());
        let text = written.text().map(str::to_owned);
        text.or_else(truth).or_else(whole).or_else(number)
    }

    fn allowed(&self) -> String {
        "text, a number, true or false".to_owned()
    }
}

/// A device, or a rule for finding one.
pub(super) const DEVICE: Parsed<DeviceChoice> = Parsed {
    parse: |text| parse_device(text).ok(),
    allowed: device::ALLOWED,
};

/// An address to listen on, or none.
pub(super) const ADDRESS_OR_OFF: Parsed<Option<SocketAddr>> = Parsed {
    parse: |text| match text {
        "off" => Some(None),
        address => address.parse().ok().map(Some),
    },
    allowed: "an IP address and a port, such as \"0.0.0.0:8000\" or \"[::]:8000\", or off",
};

/// A time whose milliseconds are in a range, or none.
pub(super) struct TimeOrOff(pub(super) RangeInclusive<f64>);

impl Rule for TimeOrOff {
    type Output = Option<Duration>;

    fn read(&self, written: Written<'_>) -> Option<Option<Duration>> {
        match written.text() {
            Some("off") => Some(None),
            _ => milliseconds(self.0.clone()).read(written).map(Some),
        }
    }

    fn allowed(&self) -> String {
        format!("{}, or off", milliseconds(self.0.clone()).allowed())
    }
}

/// A model's name.
pub(super) const MODEL_NAME: Parsed<String> = Parsed {
    parse: |text| check_name(text).ok().map(|()| text.to_owned()),
    allowed: "a model's name: 1 to 255 letters, digits, '.', '_' or '-', not starting with '.'",
};

/// Where a page comes from, as browsers write it.
pub(super) const ORIGIN: Parsed<String> = Parsed {
    parse: |text| is_origin(text).then(|| text.to_owned()),
    allowed: "an origin, such as \"https://example.com\" or \"http://localhost:3000\", or \"*\"",
};

fn is_origin(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    let host = |rest: &str| !rest.is_empty() && rest.bytes().all(plain);
    text == "*"
        || text
            .split_once("://")
            .is_some_and(|(scheme, rest)| matches!(scheme, "http" | "https") && host(rest))
}

/// A file's name, in a folder that is given.
pub(super) const FILE_NAME: Parsed<String> = Parsed {
    parse: |text| is_file_name(text).then(|| text.to_owned()),
    allowed: FILE_NAMES,
};

/// What a file's name is, as it reads after "allowed:".
pub(super) const FILE_NAMES: &str =
    "a file's name: 1 to 255 bytes, without '/', '\\' or NUL, not starting with '.'";

/// Whether a text is a file's name and leaves its folder on no system.
pub(super) fn is_file_name(text: &str) -> bool {
    let unsafe_letters = ['/', '\\', '\0'];
    (1..=255).contains(&text.len()) && !text.starts_with('.') && !text.contains(unsafe_letters)
}
