//! What devices there are, and what a person means by a device's name.

use std::sync::Arc;

use super::cuda::CudaAbsence;
use super::simulated::SimulatedDevices;
use super::{CudaDevice, DeviceError, DeviceId, HostDevice, SharedDevice};
use crate::model::DeviceChoice;

/// A device was asked for that is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// There is no CUDA GPU at all.
    #[error("device = {asked:?} is not available: {absence}")]
    NoCuda {
        /// What was asked for.
        asked: String,
        /// What is missing, and what to do.
        absence: CudaAbsence,
    },
    /// That GPU is there and fails.
    #[error("device = \"cuda:{number}\" cannot be used: {reason}; see what nvidia-smi says")]
    Broken {
        /// Its number.
        number: u32,
        /// What the driver said.
        reason: String,
    },
    /// There are GPUs, but not that one.
    #[error("device = \"cuda:{number}\" is not available: there are {count} GPUs, from cuda:0")]
    NoSuchGpu {
        /// Its number.
        number: u32,
        /// How many there are.
        count: usize,
    },
}

/// The devices of this machine.
#[derive(Debug)]
pub struct Inventory {
    host: SharedDevice,
    cuda: Result<Vec<SharedDevice>, CudaAbsence>,
    broken: Vec<DeviceError>,
    simulated: Arc<SimulatedDevices>,
}

impl Inventory {
    /// Looks for devices.
    pub fn detect() -> Self {
        let share = |devices: Vec<CudaDevice>| -> Vec<SharedDevice> {
            devices
                .into_iter()
                .map(|device| Arc::new(device) as SharedDevice)
                .collect()
        };
        let (cuda, broken) = match CudaDevice::enumerate() {
            Ok((devices, broken)) => (Ok(share(devices)), broken),
            Err(absence) => (Err(absence), Vec::new()),
        };
        Self {
            host: Arc::new(HostDevice::detect()),
            cuda,
            broken,
            simulated: Arc::default(),
        }
    }

    /// Every device there is; simulated ones are not.
    pub fn devices(&self) -> Vec<SharedDevice> {
        let gpus = self.cuda.iter().flatten().cloned();
        std::iter::once(Arc::clone(&self.host))
            .chain(gpus)
            .collect()
    }

    /// Why there is no CUDA GPU, if there is none.
    pub fn cuda_absence(&self) -> Option<&CudaAbsence> {
        self.cuda.as_ref().err()
    }

    /// GPUs that are there beside others and cannot be used.
    pub fn broken(&self) -> &[DeviceError] {
        &self.broken
    }

    /// The simulated devices.
    pub fn simulated(&self) -> Arc<SimulatedDevices> {
        Arc::clone(&self.simulated)
    }

    /// The devices that `choice` means, where `default` says what no choice means. Never falls back
    /// to another device than the one that was asked for.
    pub fn choose(
        &self,
        choice: &DeviceChoice,
        default: &DeviceChoice,
    ) -> Result<Vec<SharedDevice>, Unavailable> {
        match choice {
            DeviceChoice::Default if *default == DeviceChoice::Default => Ok(self.best()),
            DeviceChoice::Default => self.choose(default, default),
            DeviceChoice::Auto => Ok(self.best()),
            DeviceChoice::Cpu => Ok(vec![Arc::clone(&self.host)]),
            DeviceChoice::CudaAll => Ok(self.gpus("cuda")?.to_vec()),
            DeviceChoice::Cuda(number) => self.gpu(*number),
            DeviceChoice::Simulated(number) => Ok(vec![self.simulated.get(*number)]),
        }
    }

    /// Every GPU, or the processor where there is none.
    fn best(&self) -> Vec<SharedDevice> {
        self.gpus("auto")
            .map_or_else(|_| vec![Arc::clone(&self.host)], <[_]>::to_vec)
    }

    fn gpus(&self, asked: &str) -> Result<&[SharedDevice], Unavailable> {
        self.cuda.as_deref().map_err(|absence| Unavailable::NoCuda {
            asked: asked.to_owned(),
            absence: absence.clone(),
        })
    }

    fn gpu(&self, number: u32) -> Result<Vec<SharedDevice>, Unavailable> {
        let gpus = self.gpus(&format!("cuda:{number}"))?;
        let broken = |error: &&DeviceError| error.device == DeviceId::Cuda(number);
        if let Some(DeviceError { reason, .. }) = self.broken.iter().find(broken).cloned() {
            return Err(Unavailable::Broken { number, reason });
        }
        let found = gpus
            .iter()
            .find(|device| device.id() == DeviceId::Cuda(number));
        found
            .map(|device| vec![Arc::clone(device)])
            .ok_or(Unavailable::NoSuchGpu {
                number,
                count: gpus.len() + self.broken.len(),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_gpus() -> Inventory {
        Inventory {
            host: Arc::new(HostDevice::detect()),
            cuda: Err(CudaAbsence::NoDriver),
            broken: Vec::new(),
            simulated: Arc::default(),
        }
    }

    fn names(devices: &[SharedDevice]) -> Vec<String> {
        devices
            .iter()
            .map(|device| device.id().to_string())
            .collect()
    }

    #[test]
    fn auto_takes_the_processor_where_there_is_no_gpu() {
        let inventory = without_gpus();
        let auto = inventory.choose(&DeviceChoice::Default, &DeviceChoice::Auto);
        assert_eq!(names(&auto.unwrap()), ["cpu"]);
    }

    #[test]
    fn a_gpu_that_is_asked_for_is_never_replaced() {
        let inventory = without_gpus();
        let error = inventory
            .choose(&DeviceChoice::Cuda(1), &DeviceChoice::Auto)
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "device = \"cuda:1\" is not available: the NVIDIA driver's library libcuda.so.1 was not found: \
             install the driver, or start the container with GPUs (docker run --gpus all)"
        );
        let default = inventory.choose(&DeviceChoice::Default, &DeviceChoice::CudaAll);
        assert!(default.is_err());
    }

    #[test]
    fn simulated_devices_are_made_when_named() {
        let inventory = without_gpus();
        let choice = DeviceChoice::Simulated(7);
        let device = inventory.choose(&choice, &DeviceChoice::Auto).unwrap();
        assert_eq!(names(&device), ["simulated:7"]);
        inventory.simulated().get(7).configure(42, None);
        assert_eq!(device[0].memory().unwrap().total_bytes, 42);
    }

    #[test]
    fn detecting_never_panics() {
        assert!(!Inventory::detect().devices().is_empty());
    }
}
