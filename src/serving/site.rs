//! A version on one device: its weights, and the executors that run with them.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{Artifact, Backend, Death, Executor, LoadError, Placement, Weights};
use crate::device::SharedDevice;

/// A version on one device, from which its executors are made, and made again.
pub(super) struct Site {
    backend: Arc<dyn Backend>,
    artifact: Artifact,
    placement: Placement,
    /// What was loaded last. The lock is held while loading: whoever else wants an executor then
    /// wants those weights.
    loaded: Mutex<Option<Loaded>>,
}

struct Loaded {
    weights: Arc<dyn Weights>,
    /// How often they were loaded before.
    generation: u64,
}

/// An executor, and with which weights it runs.
pub(super) struct Made {
    pub(super) executor: Box<dyn Executor>,
    pub(super) generation: u64,
}

impl std::fmt::Debug for Site {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Site").finish_non_exhaustive()
    }
}

impl Site {
    pub(super) fn new(
        backend: Arc<dyn Backend>,
        artifact: &Artifact,
        placement: Placement,
    ) -> Self {
        Self {
            backend,
            artifact: artifact.clone(),
            placement,
            loaded: Mutex::new(None),
        }
    }

    pub(super) fn device(&self) -> &SharedDevice {
        &self.placement.device
    }

    /// An executor that writes down where its time goes, in a file whose path begins with `prefix`.
    pub(super) fn profiled(&self, prefix: &Path) -> Result<Box<dyn Executor>, LoadError> {
        self.backend
            .profiled(&self.artifact, &self.placement, prefix)
    }

    /// How the worker ended that had what was loaded last, if it did.
    pub(super) fn death(&self) -> Option<Death> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.as_ref()?.weights.death()
    }

    /// One more executor, over the weights that are there unless they are the `lost` ones.
    pub(super) fn executor(&self, lost: Option<u64>) -> Result<Made, LoadError> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = lost.map_or(0, |generation| generation + 1);
        // Those that were lost since nobody can use.
        if let Some(dead) = loaded.take_if(|one| one.weights.death().is_some()) {
            next = next.max(dead.generation + 1);
        }
        let present = loaded.as_ref().filter(|one| one.generation >= next);
        let (weights, generation) = match present {
            Some(one) => (Arc::clone(&one.weights), one.generation),
            None => {
                // What is lost gives its memory back first, as far as it is the site's to give.
                *loaded = None;
                let weights = self.backend.load(&self.artifact, &self.placement)?;
                *loaded = Some(Loaded {
                    weights: Arc::clone(&weights),
                    generation: next,
                });
                (weights, next)
            }
        };
        let executor = weights.executor()?;
        Ok(Made {
            executor,
            generation,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::backend::simulated::SimulatedBackend;
    use crate::clock::MonotonicClock;
    use crate::config::read_model_policy;
    use crate::device::{Device, SimulatedDevices};
    use crate::model::VersionId;

    const POLICY: &str = "[simulated]\ninputs = []\noutputs = []\nmemory_bytes = 7";

    #[test]
    fn executors_share_what_is_there_until_it_is_lost() {
        let devices: Arc<SimulatedDevices> = Arc::default();
        let device = devices.get(0);
        let backend = SimulatedBackend::new(Arc::new(MonotonicClock::start()), devices);
        let artifact = Artifact {
            id: VersionId {
                model: "m".into(),
                version: 1,
            },
            folder: PathBuf::new(),
            file: PathBuf::new(),
            policy: read_model_policy(Path::new("model.toml"), POLICY).unwrap(),
            lease: None,
        };
        let placement = Placement {
            device: device.clone(),
            threads: None,
        };
        let site = Site::new(Arc::new(backend), &artifact, placement);
        let first = site.executor(None).unwrap();
        let second = site.executor(None).unwrap();
        assert_eq!(device.taken_bytes(), 7);
        // The first to notice a loss loads anew, and the second finds that done.
        let first_again = site.executor(Some(first.generation)).unwrap();
        assert_eq!((first_again.generation, device.taken_bytes()), (1, 14));
        let second_again = site.executor(Some(second.generation)).unwrap();
        assert_eq!((second_again.generation, device.taken_bytes()), (1, 14));
        drop((first, second));
        assert_eq!(device.taken_bytes(), 7);
        drop((first_again, second_again, site));
        assert_eq!(device.taken_bytes(), 0);
    }
}
