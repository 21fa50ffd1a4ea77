//! A stand-in for a model on a device: takes the time that it is told to take, and fails when it is
//! told to fail, so that eight GPUs can be tried on a laptop.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;

use super::{
    Artifact, Backend, Executor, Input, LoadError, Outline, Place, Placement, RunError, Weights,
};
use crate::clock::{Clock, Moment};
use crate::device::{DeviceId, Reservation, SimulatedDevice, SimulatedDevices};
use crate::model::{BackendPolicy, ModelPolicy, Signature, SimulatedPolicy, TensorSpec};
use crate::tensor::{Dtype, Shape, Tensor, elements};

/// How often it is looked whether a run may end.
const LOOK: Duration = Duration::from_millis(1);
/// After so long a run ends, whatever keeps it.
const LONGEST: Duration = Duration::from_secs(600);

/// Loads models that are not there.
pub struct SimulatedBackend {
    clock: Arc<dyn Clock>,
    devices: Arc<SimulatedDevices>,
}

impl SimulatedBackend {
    /// A backend whose models take time by `clock` and memory of `devices`.
    pub fn new(clock: Arc<dyn Clock>, devices: Arc<SimulatedDevices>) -> Self {
        Self { clock, devices }
    }
}

impl Backend for SimulatedBackend {
    fn load(
        &self,
        artifact: &Artifact,
        placement: &Placement,
    ) -> Result<Arc<dyn Weights>, LoadError> {
        let BackendPolicy::Simulated(policy) = &artifact.policy.backend else {
            return Err(LoadError::Model {
                file: artifact.file.clone(),
                reason: "model.toml has no [simulated]".to_owned(),
            });
        };
        let device = match placement.device.id() {
            DeviceId::Simulated(number) => Some(self.devices.get(number)),
            _ => None,
        };
        let memory = match &device {
            Some(device) => Some(claim(device, policy)?),
            None => None,
        };
        wait(self.clock.as_ref(), self.clock.now() + policy.load);
        Ok(Arc::new(SimulatedWeights {
            policy: policy.clone(),
            clock: Arc::clone(&self.clock),
            device,
            slowdown: slowdown(policy, placement.device.id()),
            memory: memory.map(Arc::new),
        }))
    }

    fn profiled(
        &self,
        artifact: &Artifact,
        _placement: &Placement,
        _prefix: &Path,
    ) -> Result<Box<dyn Executor>, LoadError> {
        Err(LoadError::Model {
            file: artifact.file.clone(),
            reason: "a simulated model has no operators whose times could be told".to_owned(),
        })
    }

    fn shares_weights(&self, _policy: &ModelPolicy, _device: DeviceId) -> bool {
        true
    }
}

struct SimulatedWeights {
    policy: SimulatedPolicy,
    clock: Arc<dyn Clock>,
    device: Option<Arc<SimulatedDevice>>,
    slowdown: f64,
    memory: Option<Arc<Reservation>>,
}

impl Weights for SimulatedWeights {
    fn executor(&self) -> Result<Box<dyn Executor>, LoadError> {
        Ok(Box::new(SimulatedExecutor {
            signature: Signature {
                inputs: self.policy.inputs.clone(),
                outputs: self.policy.outputs.clone(),
            },
            policy: self.policy.clone(),
            clock: Arc::clone(&self.clock),
            device: self.device.clone(),
            slowdown: self.slowdown,
            batches: 0,
            _memory: self.memory.clone(),
        }))
    }
}

fn slowdown(policy: &SimulatedPolicy, device: DeviceId) -> f64 {
    let number = match device {
        DeviceId::Simulated(number) => usize::try_from(number).ok(),
        _ => None,
    };
    let factor = number.and_then(|number| policy.slowdown.get(number));
    factor.copied().unwrap_or(1.0)
}

fn claim(
    device: &Arc<SimulatedDevice>,
    policy: &SimulatedPolicy,
) -> Result<Reservation, LoadError> {
    device.configure(policy.device_memory_bytes, policy.lost_while_exists.clone());
    if device.is_lost() {
        return Err(LoadError::Provider {
            device: crate::device::Device::id(device.as_ref()).to_string(),
            reason: "the device is lost".to_owned(),
        });
    }
    Ok(device.reserve(policy.memory_bytes)?)
}

/// Blocks until then by `clock`. Parking may end early, so it looks again.
fn wait(clock: &dyn Clock, until: Moment) {
    loop {
        let left = until.since(clock.now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

struct SimulatedExecutor {
    signature: Signature,
    policy: SimulatedPolicy,
    clock: Arc<dyn Clock>,
    device: Option<Arc<SimulatedDevice>>,
    /// How many times as long everything takes on its device.
    slowdown: f64,
    batches: u64,
    _memory: Option<Arc<Reservation>>,
}

impl Executor for SimulatedExecutor {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, inputs: &[Input<'_>]) -> Result<Vec<Tensor>, RunError> {
        self.pass(inputs)?;
        let outputs = self.signature.outputs.iter().enumerate();
        Ok(outputs
            .map(|(position, spec)| output(spec, inputs.get(position), rows(inputs)))
            .collect())
    }

    fn foresee(&self, inputs: &[Input<'_>]) -> Option<Vec<Outline>> {
        let outputs = self.signature.outputs.iter().enumerate();
        let outlines = outputs.map(|(position, spec)| {
            spec.dtype.size()?;
            Some(match fitting(spec, inputs.get(position)) {
                Some(input) => outline(spec, input.shape),
                None => outline(spec, &zero_shape(spec, rows(inputs))),
            })
        });
        outlines.collect()
    }

    fn run_into(
        &mut self,
        inputs: &[Input<'_>],
        places: &mut [Place<'_>],
    ) -> Result<Option<Vec<Tensor>>, RunError> {
        self.pass(inputs)?;
        let outputs = self.signature.outputs.iter().zip(places).enumerate();
        for (position, (spec, place)) in outputs {
            match fitting(spec, inputs.get(position)) {
                Some(input) => place.data.copy_from_slice(input.data),
                None => place.data.fill(0),
            }
        }
        Ok(None)
    }
}

impl SimulatedExecutor {
    /// Takes the time that a batch takes, and fails if it is to.
    fn pass(&mut self, inputs: &[Input<'_>]) -> Result<(), RunError> {
        let rows = rows(inputs);
        self.batches += 1;
        self.refuse(rows)?;
        let _memory = self.memory(rows)?;
        self.work(self.service(rows, inputs.first()));
        self.linger();
        self.fault(inputs.first())
    }

    /// How long a batch takes here.
    fn service(&self, rows: i64, input: Option<&Input<'_>>) -> Duration {
        let policy = &self.policy;
        let rows = u32::try_from(rows).unwrap_or(u32::MAX);
        let cells = input.and_then(|input| elements(input.shape)).unwrap_or(0);
        let cells = u32::try_from(cells).unwrap_or(u32::MAX);
        let cold = match self.batches <= policy.cold_runs {
            true => policy.cold,
            false => Duration::ZERO,
        };
        let all = policy.fixed
            + cold
            + policy.per_row.saturating_mul(rows)
            + policy.per_element.saturating_mul(cells);
        Duration::try_from_secs_f64(all.as_secs_f64() * self.slowdown).unwrap_or(Duration::MAX)
    }

    /// Blocks for as long as the device takes.
    fn work(&self, service: Duration) {
        let clock = self.clock.as_ref();
        match &self.device {
            Some(device) if self.policy.time_sliced => device.work(clock, service),
            _ => wait(clock, clock.now() + service),
        }
    }

    /// Blocks for as long as there is a file that says so.
    fn linger(&self) {
        let Some(file) = &self.policy.waits_while_exists else {
            return;
        };
        let clock = self.clock.as_ref();
        let end = clock.now() + LONGEST;
        while file.exists() && clock.now() < end {
            wait(clock, clock.now() + LOOK);
        }
    }

    fn refuse(&self, rows: i64) -> Result<(), RunError> {
        let sizes = &self.policy.batch_sizes;
        let size = usize::try_from(rows).unwrap_or(0);
        if sizes.is_empty() || sizes.contains(&size) {
            return Ok(());
        }
        let message = format!("{rows} rows came where only {sizes:?} are taken");
        Err(RunError::Failed(message))
    }

    /// What the batch takes of its device while it runs.
    fn memory(&self, rows: i64) -> Result<Option<Reservation>, RunError> {
        let each = self.policy.memory_per_row_bytes;
        let bytes = each.saturating_mul(u64::try_from(rows).unwrap_or(0));
        let device = self.device.as_ref().filter(|_| bytes > 0);
        let reservation = device.map(|device| device.reserve(bytes)).transpose();
        reservation.map_err(|error| RunError::OutOfMemory(error.reason))
    }

    fn fault(&self, input: Option<&Input<'_>>) -> Result<(), RunError> {
        if self.device.as_ref().is_some_and(|device| device.is_lost()) {
            return Err(RunError::DeviceLost("simulated loss".to_owned()));
        }
        let due = |every: u64| every > 0 && self.batches.is_multiple_of(every);
        assert!(!due(self.policy.panic_every), "simulated panic");
        assert!(!holds(input, self.policy.panic_on), "simulated poison");
        if holds(input, self.policy.abort_on) {
            std::process::abort();
        }
        if holds(input, self.policy.hang_on) {
            wait(self.clock.as_ref(), self.clock.now() + LONGEST);
        }
        if due(self.policy.fail_every) {
            return Err(RunError::Failed("simulated failure".to_owned()));
        }
        Ok(())
    }
}

/// Whether the input has this number, if there is one to look for.
fn holds(input: Option<&Input<'_>>, number: Option<f32>) -> bool {
    let (Some(input), Some(number)) = (input, number) else {
        return false;
    };
    let numbers = input.data.as_chunks::<4>().0;
    input.dtype == Dtype::Fp32 && numbers.contains(&number.to_le_bytes())
}

fn rows(inputs: &[Input<'_>]) -> i64 {
    let rows = inputs.first().and_then(|input| input.shape.first());
    rows.copied().unwrap_or(1)
}

/// The input of the same position if it fits, else zeros.
fn output(spec: &TensorSpec, input: Option<&Input<'_>>, rows: i64) -> Tensor {
    match fitting(spec, input) {
        Some(input) => Tensor {
            dtype: spec.dtype,
            shape: Shape::new(input.shape),
            data: Bytes::copy_from_slice(input.data),
        },
        None => zeros(spec, rows),
    }
}

fn fitting<'a, 'b>(spec: &TensorSpec, input: Option<&'a Input<'b>>) -> Option<&'a Input<'b>> {
    input.filter(|input| {
        let dimensions = spec.dimensions.iter().zip(input.shape);
        input.dtype == spec.dtype
            && input.shape.len() == spec.dimensions.len()
            && dimensions.into_iter().all(|(own, size)| own.admits(*size))
    })
}

fn outline(spec: &TensorSpec, shape: &[i64]) -> Outline {
    Outline {
        dtype: spec.dtype,
        shape: Shape::new(shape),
    }
}

fn zero_shape(spec: &TensorSpec, rows: i64) -> Vec<i64> {
    let dimensions = spec.dimensions.iter().enumerate();
    dimensions
        .map(|(index, dimension)| match dimension.size {
            Some(size) => i64::try_from(size).unwrap_or(i64::MAX),
            None if index == 0 => rows,
            None => 1,
        })
        .collect()
}

fn zeros(spec: &TensorSpec, rows: i64) -> Tensor {
    let dimensions = zero_shape(spec, rows);
    // An empty string is four bytes of length zero.
    let size = match spec.dtype {
        Dtype::Bytes => 4,
        dtype => dtype.size().unwrap_or(1),
    };
    let count = elements(&dimensions).unwrap_or(0);
    Tensor {
        dtype: spec.dtype,
        data: vec![0; count.saturating_mul(size)].into(),
        shape: Shape::new(&dimensions),
    }
}

#[cfg(test)]
mod tests;
