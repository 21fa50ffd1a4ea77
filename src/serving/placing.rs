//! Which devices a version goes to, what it takes there at least, and what its instances there share.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::budget::{Claim, Room};
use super::limiter::Stake;
use super::turns::{Turn, Turns};
use crate::backend::{Artifact, Backend, Placement};
use crate::device::{DeviceId, Inventory, SharedDevice, Unavailable};
use crate::model::{BackendPolicy, DeviceChoice, InstanceGroup};

/// Places versions on the devices of this machine.
pub(super) struct Placer {
    inventory: Arc<Inventory>,
    default_device: DeviceChoice,
    turns: Mutex<BTreeMap<DeviceId, Arc<Turns>>>,
}

/// A version's place on one device.
#[derive(Clone)]
pub(super) struct Berth {
    pub(super) device: SharedDevice,
    /// Which executors are as fast as one there; see [`crate::scheduler::Batcher`].
    pub(super) group: usize,
    /// The version's account of the device's time.
    pub(super) turn: Arc<Turn>,
    /// What a batch there has to hold, if anything.
    pub(super) stake: Option<Arc<Stake>>,
    /// The version's memory, which is free when its last instance has gone.
    _claim: Arc<Claim>,
}

impl Placer {
    pub(super) fn new(inventory: Arc<Inventory>, default_device: DeviceChoice) -> Self {
        Self {
            inventory,
            default_device,
            turns: Mutex::default(),
        }
    }

    /// What there is to place on, for the eyes of no one.
    pub(super) fn about(&self) -> String {
        let devices = self.inventory.devices();
        let devices = devices
            .iter()
            .map(|one| format!("{} {}", one.id(), one.name()));
        format!(
            "{:?} {:?}",
            self.default_device,
            devices.collect::<Vec<_>>()
        )
    }

    /// Where a version goes, and which instances of it. Of several devices, those that have room.
    pub(super) fn placements(
        &self,
        artifact: &Artifact,
        room: &Room<'_>,
    ) -> Result<Vec<(Placement, InstanceGroup)>, Unavailable> {
        let default = [InstanceGroup::default()];
        let groups = match &artifact.policy.instances[..] {
            [] => &default,
            groups => groups,
        };
        let mut placements = Vec::new();
        for group in groups {
            let mut devices = self.inventory.choose(&group.device, &self.default_device)?;
            if devices.len() > 1 {
                devices = room.roomy(devices, least_bytes(artifact));
            }
            placements.extend(devices.into_iter().map(|device| {
                let threads = group.threads;
                (Placement { device, threads }, group.clone())
            }));
        }
        Ok(placements)
    }

    /// The places of instances on these devices, of a version of this weight.
    pub(super) fn berths<'a>(
        &self,
        devices: impl Iterator<Item = &'a SharedDevice>,
        weight: u32,
        claim: &Arc<Claim>,
    ) -> Vec<Berth> {
        let mut known: Vec<Berth> = Vec::new();
        let berths = devices.map(|device| {
            let there = known.iter().find(|one| one.device.id() == device.id());
            there.cloned().unwrap_or_else(|| {
                let berth = Berth {
                    device: Arc::clone(device),
                    group: known.len(),
                    turn: self.turn(device.id(), weight),
                    stake: None,
                    _claim: Arc::clone(claim),
                };
                known.push(berth.clone());
                berth
            })
        });
        berths.collect()
    }

    /// A new account of a device's time.
    fn turn(&self, device: DeviceId, weight: u32) -> Arc<Turn> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.entry(device).or_default().join(weight)
    }
}

/// What a version takes at least: its files, once for each copy of its weights.
pub(super) fn expected(
    artifact: &Artifact,
    placements: &[(Placement, InstanceGroup)],
    backend: &dyn Backend,
) -> Vec<(SharedDevice, u64)> {
    let each = least_bytes(artifact);
    let mut expected: Vec<(SharedDevice, u64)> = Vec::new();
    for (Placement { device, .. }, group) in placements {
        let copies = match backend.shares_weights(&artifact.policy, device.id()) {
            true => 1,
            false => group.count as u64,
        };
        let bytes = each.saturating_mul(copies);
        let mut known = expected.iter_mut();
        match known.find(|(known, _)| known.id() == device.id()) {
            Some((_, known)) => *known = known.saturating_add(bytes),
            None => expected.push((backend.device(Arc::clone(device)), bytes)),
        }
    }
    expected
}

/// What one copy of a version takes at least.
fn least_bytes(artifact: &Artifact) -> u64 {
    match &artifact.policy.backend {
        BackendPolicy::Simulated(simulated) => simulated.memory_bytes,
        BackendPolicy::OnnxRuntime(_) => files_bytes(&artifact.folder),
    }
}

/// The weights may lie in the model's file or beside it.
fn files_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let lengths = entries.filter_map(|entry| Some(entry.metadata().ok()?.len()));
    lengths.sum()
}
