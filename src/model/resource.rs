//! What instances need to run a batch, and what there is of it: names and numbers that an operator
//! chooses.

use super::DeviceChoice;

/// What each instance of a group has to hold while it runs a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededResource {
    /// The resource's name.
    pub name: String,
    /// Copies of it, at least 1.
    pub count: u32,
    /// Whether all devices share it; else each has its own.
    pub global: bool,
}

/// What the server has of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedResource {
    /// The resource's name.
    pub name: String,
    /// Copies of it, at least 1.
    pub count: u32,
    /// The device that has so many; none for each of them.
    pub device: Option<DeviceChoice>,
}
