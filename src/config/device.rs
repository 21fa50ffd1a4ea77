//! How a device is written.

use crate::model::DeviceChoice;

/// The ways to write a device, as they read after "allowed:".
pub(super) const ALLOWED: &str = r#""auto", "cpu", "cuda", "cuda:N", "simulated:N""#;

/// A text that is no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("found {found:?}; allowed: {ALLOWED}")]
pub struct UnknownDevice {
    found: String,
}

/// The device that `text` names: `auto`, `cpu`, `cuda`, `cuda:N` or `simulated:N`.
pub fn parse_device(text: &str) -> Result<DeviceChoice, UnknownDevice> {
    let choice = match text.split_once(':') {
        Some(("cuda", index)) => number(index).map(DeviceChoice::Cuda),
        Some(("simulated", index)) => number(index).map(DeviceChoice::Simulated),
        Some(_) => None,
        None => by_name(text),
    };
    choice.ok_or_else(|| UnknownDevice {
        found: text.to_owned(),
    })
}

fn by_name(name: &str) -> Option<DeviceChoice> {
    match name {
        "auto" => Some(DeviceChoice::Auto),
        "cpu" => Some(DeviceChoice::Cpu),
        "cuda" => Some(DeviceChoice::CudaAll),
        _ => None,
    }
}

// One device has one name: neither `cuda:+1` nor `cuda:01` is another for `cuda:1`.
fn number(text: &str) -> Option<u32> {
    let index: u32 = text.parse().ok()?;
    (index.to_string() == text).then_some(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_one_name() {
        let sound = [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda", DeviceChoice::CudaAll),
            ("cuda:1", DeviceChoice::Cuda(1)),
            ("simulated:0", DeviceChoice::Simulated(0)),
        ];
        for (text, choice) in sound {
            assert_eq!(parse_device(text), Ok(choice));
        }
        for text in [
            "",
            "CPU",
            "cuda:",
            "cuda:+1",
            "cuda:01",
            "cuda:-1",
            "cpu:0",
            "simulated",
        ] {
            assert!(parse_device(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_error_lists_what_is_allowed() {
        let error = parse_device("gpu").unwrap_err().to_string();
        let expected = r#"found "gpu"; allowed: "auto", "cpu", "cuda", "cuda:N", "simulated:N""#;
        assert_eq!(error, expected);
    }
}
