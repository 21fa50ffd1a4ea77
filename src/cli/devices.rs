//! `jitney devices`: what models can run on here, and why not on more.

use crate::device::{Device, Inventory};

/// Lists the devices that models can run on, and why others are missing.
#[derive(Debug, clap::Args)]
pub(super) struct Devices {}

const MEBIBYTE: u64 = 1024 * 1024;

impl Devices {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let inventory = Inventory::detect();
        for device in inventory.devices() {
            super::say!("{}", describe(device.as_ref()));
        }
        for error in inventory.broken() {
            super::say!("{error}: it cannot be used");
        }
        if let Some(reason) = inventory.cuda_absence() {
            super::say!("no CUDA device: {reason}");
        }
        super::say!("simulated:N for any model whose model.toml has [simulated]");
        Ok(())
    }
}

fn describe(device: &dyn Device) -> String {
    let memory = match device.memory() {
        Ok(memory) => format!(
            "{} MiB, {} MiB free",
            memory.total_bytes / MEBIBYTE,
            memory.free_bytes / MEBIBYTE
        ),
        Err(error) => error.to_string(),
    };
    let uuid = device.uuid().map(|uuid| format!(" ({uuid})"));
    let uuid = uuid.unwrap_or_default();
    format!("{}: {}{uuid}; {memory}", device.id(), device.name())
}
