//! The rate limiter's resources, on the command line and in `model.toml`.

use jitney_settings::Table;
use jitney_settings::rule::{Parsed, Text, Truth, whole};

use super::device::parse_device;
use crate::model::{DeviceChoice, NeededResource, OfferedResource};

/// So many copies that nobody counts further.
const MOST: u32 = 1_000_000;

/// What the server has of a resource: `NAME:COUNT` or `NAME:COUNT:DEVICE`.
pub(super) const OFFERED: Parsed<OfferedResource> = Parsed {
    parse: offered,
    allowed: "NAME:COUNT or NAME:COUNT:DEVICE, such as gpu_slots:4 or gpu_slots:2:cuda:0; COUNT is 1 to 1000000",
};

fn offered(text: &str) -> Option<OfferedResource> {
    let (name, rest) = text.split_once(':')?;
    let (count, device) = match rest.split_once(':') {
        Some((count, device)) => (count, Some(one_device(device)?)),
        None => (rest, None),
    };
    let count = count
        .parse()
        .ok()
        .filter(|count| (1..=MOST).contains(count))?;
    (!name.is_empty()).then(|| OfferedResource {
        name: name.to_owned(),
        count,
        device,
    })
}

/// A device by its name; a number alone is a GPU's.
fn one_device(text: &str) -> Option<DeviceChoice> {
    let named = match text.parse() {
        Ok(number) => DeviceChoice::Cuda(number),
        Err(_) => parse_device(text).ok()?,
    };
    let one = |choice: &DeviceChoice| !matches!(choice, DeviceChoice::Auto | DeviceChoice::CudaAll);
    Some(named).filter(one)
}

/// A table of `resources` of an `[[instances]]`.
pub(super) fn needed(table: &mut Table<'_, '_>) -> NeededResource {
    let name = table.value("name", Text);
    let name = table.required("name", name, "say which resource it is");
    NeededResource {
        name: name.unwrap_or_default(),
        count: table.value("count", whole(1..=MOST)).unwrap_or(1),
        global: table.value("global", Truth).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offers() {
        let offer = |count, device| {
            let name = "r".to_owned();
            Some(OfferedResource {
                name,
                count,
                device,
            })
        };
        assert_eq!(offered("r:4"), offer(4, None));
        assert_eq!(offered("r:2:0"), offer(2, Some(DeviceChoice::Cuda(0))));
        let simulated = Some(DeviceChoice::Simulated(3));
        assert_eq!(offered("r:2:simulated:3"), offer(2, simulated));
        assert_eq!(offered("r:2:cpu"), offer(2, Some(DeviceChoice::Cpu)));
        for wrong in [
            "",
            "r",
            "r:",
            "r:0",
            "r:-1",
            ":1",
            "r:1:",
            "r:1:auto",
            "r:1:gpu",
            "r:1000001",
        ] {
            assert_eq!(offered(wrong), None, "{wrong}");
        }
    }
}
