//! How much of each device's memory models may take, and how much they have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::Notify;

use crate::device::{DeviceId, SharedDevice};

/// A model that does not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{device}: {needed} bytes are needed, and models have taken {taken} of {limit} (device_memory_bytes)"
)]
pub(super) struct OverBudget {
    pub(super) device: DeviceId,
    pub(super) needed: u64,
    pub(super) taken: u64,
    pub(super) limit: u64,
}

/// How much of each device's memory models may take, and how much they have.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// Of each device; none for as much as there is.
    limit: Option<u64>,
    taken: Mutex<BTreeMap<DeviceId, u64>>,
    /// Held while a model is loaded: alone if it is measured, so that what a device has more afterwards
    /// is that model's; with others if it is known what it takes.
    loading: RwLock<()>,
    freed: Notify,
}

impl Budget {
    pub(super) fn new(limit: Option<u64>) -> Arc<Self> {
        Arc::new(Self {
            limit,
            ..Self::default()
        })
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limit.is_some()
    }

    /// Lets a model be loaded. Blocks while another is, if there is a limit.
    pub(super) fn enter(self: &Arc<Self>) -> Room<'_> {
        let loading = self.limit.map(|_| self.loading.write());
        let alone = loading.map(|lock| lock.unwrap_or_else(PoisonError::into_inner));
        self.room(Loading::Alone(alone))
    }

    /// Lets a model be loaded of which it is known what it takes. Blocks while one is measured.
    pub(super) fn enter_beside(self: &Arc<Self>) -> Room<'_> {
        let beside = self.loading.read();
        self.room(Loading::Beside(
            beside.unwrap_or_else(PoisonError::into_inner),
        ))
    }

    fn room<'a>(self: &'a Arc<Self>, loading: Loading<'a>) -> Room<'a> {
        Room {
            budget: self,
            before: Vec::new(),
            reserved: None,
            _loading: loading,
        }
    }

    /// Takes so many bytes of each device, or of none if there is not enough of one.
    fn claim(self: &Arc<Self>, wanted: Vec<(DeviceId, u64)>) -> Result<Claim, OverBudget> {
        let mut taken = self.taken();
        for (device, needed) in &wanted {
            self.fit(&taken, *device, *needed)?;
        }
        for (device, needed) in &wanted {
            *taken.entry(*device).or_default() += needed;
        }
        drop(taken);
        Ok(Claim {
            budget: Arc::clone(self),
            bytes: wanted,
        })
    }

    /// Waits until so much is free on a device.
    pub(super) async fn fits(&self, device: DeviceId, needed: u64) {
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Whatever is freed from here on is noticed.
            freed.as_mut().enable();
            if self.check(device, needed).is_ok() {
                return;
            }
            freed.await;
        }
    }

    fn check(&self, device: DeviceId, needed: u64) -> Result<(), OverBudget> {
        self.fit(&self.taken(), device, needed)
    }

    fn fit(
        &self,
        taken: &BTreeMap<DeviceId, u64>,
        device: DeviceId,
        needed: u64,
    ) -> Result<(), OverBudget> {
        let Some(limit) = self.limit else {
            return Ok(());
        };
        let taken = taken.get(&device).copied().unwrap_or(0);
        if taken.saturating_add(needed) <= limit {
            return Ok(());
        }
        Err(OverBudget {
            device,
            needed,
            taken,
            limit,
        })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<DeviceId, u64>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load under way.
pub(super) struct Room<'a> {
    budget: &'a Arc<Budget>,
    /// Devices, what was expected on each, and what was taken there before.
    before: Vec<(SharedDevice, u64, u64)>,
    /// What it takes, if that is known.
    reserved: Option<Claim>,
    _loading: Loading<'a>,
}

/// Who else may be loading.
enum Loading<'a> {
    /// Nobody, if there is a limit.
    Alone(#[allow(dead_code)] Option<RwLockWriteGuard<'a, ()>>), // held, not read
    /// Others of which it is known what they take.
    Beside(#[allow(dead_code)] RwLockReadGuard<'a, ()>),
}

impl Room<'_> {
    /// Those of several devices that have so much left; all if none has, so that the refusal has
    /// their numbers.
    pub(super) fn roomy(&self, devices: Vec<SharedDevice>, bytes: u64) -> Vec<SharedDevice> {
        let has_room = |device: &&SharedDevice| self.budget.check(device.id(), bytes).is_ok();
        let roomy: Vec<SharedDevice> = devices.iter().filter(has_room).cloned().collect();
        match roomy.is_empty() {
            true => devices,
            false => roomy,
        }
    }

    /// At least so many bytes are expected on each device; an error if it is known not to fit.
    pub(super) fn expect(&mut self, expected: &[(SharedDevice, u64)]) -> Result<(), OverBudget> {
        if !self.budget.is_limited() {
            return Ok(());
        }
        for (device, expected) in expected {
            self.budget.check(device.id(), *expected)?;
            let before = device.taken_bytes();
            self.before.push((Arc::clone(device), *expected, before));
        }
        Ok(())
    }

    /// Takes what the model is known to take before it is loaded; an error if it does not fit.
    pub(super) fn reserve(&mut self, known: &[(SharedDevice, u64)]) -> Result<(), OverBudget> {
        let wanted = known.iter().map(|(device, bytes)| (device.id(), *bytes));
        self.reserved = Some(self.budget.claim(wanted.collect())?);
        Ok(())
    }

    /// Claims what the model has taken, now that it is warm; refuses it if that is too much.
    pub(super) fn settle(self) -> Result<Claim, OverBudget> {
        if let Some(reserved) = self.reserved {
            return Ok(reserved);
        }
        let grown = self.before.iter().map(|(device, expected, before)| {
            let grown = device.taken_bytes().saturating_sub(*before);
            (device.id(), grown.max(*expected))
        });
        self.budget.claim(grown.collect())
    }
}

/// Memory that a version has; given back when dropped.
#[derive(Debug)]
pub(super) struct Claim {
    budget: Arc<Budget>,
    bytes: Vec<(DeviceId, u64)>,
}

impl Claim {
    /// What was measured, by device; nothing where there is no limit.
    pub(super) fn bytes(&self) -> &[(DeviceId, u64)] {
        &self.bytes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut taken = self.budget.taken();
        for (device, bytes) in &self.bytes {
            if let Some(taken) = taken.get_mut(device) {
                *taken = taken.saturating_sub(*bytes);
            }
        }
        drop(taken);
        self.budget.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::SimulatedDevices;

    #[test]
    fn what_grows_beyond_what_was_expected_counts() {
        let device = SimulatedDevices::default().get(0);
        let shared: SharedDevice = device.clone();
        let budget = Budget::new(Some(100));
        let expected = [(shared, 10)];
        let mut room = budget.enter();
        room.expect(&expected).unwrap();
        let memory = device.reserve(60).unwrap();
        let claim = room.settle().unwrap();
        assert_eq!(claim.bytes(), [(DeviceId::Simulated(0), 60)]);
        let mut room = budget.enter();
        room.expect(&expected).unwrap();
        let more = device.reserve(50).unwrap();
        let refused = room.settle().unwrap_err();
        assert_eq!(
            refused.to_string(),
            "simulated:0: 50 bytes are needed, and models have taken 60 of 100 (device_memory_bytes)"
        );
        drop(more);
        let more = [(expected[0].0.clone(), 41)];
        assert!(budget.enter().expect(&more).is_err());
        drop((claim, memory));
        assert!(budget.enter().expect(&more).is_ok());
    }

    #[test]
    fn a_model_goes_to_those_devices_that_have_room() {
        let devices = SimulatedDevices::default();
        let [first, second]: [SharedDevice; 2] = [devices.get(0), devices.get(1)];
        let budget = Budget::new(Some(100));
        let mut room = budget.enter();
        room.expect(&[(Arc::clone(&first), 60)]).unwrap();
        let _claim = room.settle().unwrap();
        let both = vec![first, second];
        let placed = |bytes| {
            let devices = budget.enter().roomy(both.clone(), bytes);
            devices.iter().map(|one| one.id()).collect::<Vec<_>>()
        };
        let [first, second] = [0, 1].map(DeviceId::Simulated);
        assert_eq!(placed(40), [first, second]);
        assert_eq!(placed(41), [second]);
        assert_eq!(placed(101), [first, second]);
    }

    #[test]
    fn without_a_limit_nothing_is_refused() {
        let device: SharedDevice = SimulatedDevices::default().get(0);
        let budget = Budget::new(None);
        let mut room = budget.enter();
        room.expect(&[(device, u64::MAX)]).unwrap();
        assert!(room.settle().unwrap().bytes().is_empty());
    }
}
