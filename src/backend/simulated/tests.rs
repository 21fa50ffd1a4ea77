use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::clock::Sleep;
use crate::device::Device;
use crate::model::{Dimension, ModelPolicy, VersionId};

/// Time that passes by a millisecond at each look.
#[derive(Default)]
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn now(&self) -> Moment {
        Moment::ORIGIN + Duration::from_millis(self.0.fetch_add(1, Ordering::Relaxed))
    }

    fn sleep_until(&self, _moment: Moment) -> Sleep {
        Box::pin(std::future::ready(()))
    }
}

fn spec(name: &str, dtype: Dtype) -> TensorSpec {
    TensorSpec {
        name: name.to_owned(),
        dtype,
        dimensions: vec![Dimension::varying(""), Dimension::fixed(2)],
    }
}

fn policy() -> SimulatedPolicy {
    SimulatedPolicy {
        inputs: vec![spec("x", Dtype::Uint8)],
        outputs: vec![spec("y", Dtype::Uint8), spec("words", Dtype::Bytes)],
        fixed: Duration::ZERO,
        per_row: Duration::ZERO,
        per_element: Duration::ZERO,
        cold_runs: 0,
        cold: Duration::ZERO,
        slowdown: Vec::new(),
        load: Duration::ZERO,
        memory_bytes: 60,
        memory_per_row_bytes: 0,
        batch_sizes: Vec::new(),
        device_memory_bytes: 100,
        time_sliced: false,
        fail_every: 0,
        panic_every: 0,
        panic_on: None,
        abort_on: None,
        hang_on: None,
        lost_while_exists: None,
        waits_while_exists: None,
    }
}

struct Bench {
    clock: Arc<Ticking>,
    devices: Arc<SimulatedDevices>,
}

impl Bench {
    fn new() -> Self {
        Self {
            clock: Arc::default(),
            devices: Arc::default(),
        }
    }

    fn load(&self, policy: SimulatedPolicy) -> Result<Box<dyn Executor>, LoadError> {
        let artifact = Artifact {
            id: VersionId {
                model: "m".into(),
                version: 1,
            },
            folder: PathBuf::new(),
            file: PathBuf::from("model.onnx"),
            policy: ModelPolicy {
                backend: BackendPolicy::Simulated(policy),
                ..ModelPolicy::default()
            },
            lease: None,
        };
        let placement = Placement {
            device: self.devices.get(0),
            threads: None,
        };
        let backend =
            SimulatedBackend::new(Arc::clone(&self.clock) as _, Arc::clone(&self.devices));
        backend.load(&artifact, &placement)?.executor()
    }
}

fn run(executor: &mut dyn Executor, rows: usize) -> Result<Vec<Tensor>, RunError> {
    let data = vec![7; rows * 2];
    executor.run(&[Input {
        dtype: Dtype::Uint8,
        shape: &[rows as i64, 2],
        data: &data,
    }])
}

#[test]
fn a_run_takes_a_plus_c_n() {
    let bench = Bench::new();
    let mut executor = bench
        .load(SimulatedPolicy {
            fixed: Duration::from_millis(20),
            per_row: Duration::from_millis(3),
            ..policy()
        })
        .unwrap();
    let before = bench.clock.now();
    run(executor.as_mut(), 4).unwrap();
    // One look of the clock to start, one to see the end, and one of our own.
    let passed = bench.clock.now() - before;
    assert_eq!(passed, Duration::from_millis(20 + 4 * 3 + 2));
}

#[test]
fn no_run_ends_while_a_file_exists_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("closed");
    let bench = Bench::new();
    let mut executor = bench
        .load(SimulatedPolicy {
            waits_while_exists: Some(file.clone()),
            ..policy()
        })
        .unwrap();
    let mut takes = || {
        let before = bench.clock.now();
        run(executor.as_mut(), 1).unwrap();
        bench.clock.now() - before
    };
    assert!(takes() < Duration::from_secs(1));
    std::fs::write(&file, "").unwrap();
    assert!(takes() >= Duration::from_secs(600));
    std::fs::remove_file(&file).unwrap();
    assert!(takes() < Duration::from_secs(1));
}

#[test]
fn first_runs_and_slow_devices_take_longer() {
    let bench = Bench::new();
    let mut executor = bench
        .load(SimulatedPolicy {
            fixed: Duration::from_millis(20),
            cold_runs: 2,
            cold: Duration::from_millis(30),
            slowdown: vec![1.5],
            ..policy()
        })
        .unwrap();
    let took: Vec<Duration> = (0..3)
        .map(|_| {
            let before = bench.clock.now();
            run(executor.as_mut(), 1).unwrap();
            bench.clock.now() - before - Duration::from_millis(2)
        })
        .collect();
    let [cold, warm] = [75, 30].map(Duration::from_millis);
    assert_eq!(took, [cold, cold, warm]);
}

#[test]
fn outputs_echo_what_fits_and_are_zero_elsewhere() {
    let mut executor = Bench::new().load(policy()).unwrap();
    let outputs = run(executor.as_mut(), 3).unwrap();
    assert_eq!(outputs[0].data[..], [7; 6]);
    assert_eq!(outputs[1].shape, Shape::new(&[3, 2]));
    assert_eq!(outputs[1].data[..], [0; 24]);
}

#[test]
fn faults_come_on_the_batch_they_were_asked_for() {
    let bench = Bench::new();
    let mut failing = bench
        .load(SimulatedPolicy {
            fail_every: 2,
            ..policy()
        })
        .unwrap();
    let failed: Vec<bool> = (0..4).map(|_| run(failing.as_mut(), 1).is_err()).collect();
    assert_eq!(failed, [false, true, false, true]);
    drop(failing);
    let mut panicking = bench
        .load(SimulatedPolicy {
            panic_every: 2,
            ..policy()
        })
        .unwrap();
    assert!(run(panicking.as_mut(), 1).is_ok());
    assert!(catch_unwind(AssertUnwindSafe(|| run(panicking.as_mut(), 1))).is_err());
}

#[test]
fn memory_is_taken_for_as_long_as_the_instance_lives() {
    let bench = Bench::new();
    let first = bench.load(policy()).unwrap();
    let error = bench.load(policy()).err().unwrap().to_string();
    assert_eq!(
        error,
        "simulated:0: out of memory: 60 bytes are needed and 40 of 100 are free"
    );
    drop(first);
    assert!(bench.load(policy()).is_ok());
    assert_eq!(bench.devices.get(0).memory().unwrap().free_bytes, 100);
}

#[test]
fn a_lost_device_runs_and_loads_nothing_until_it_is_back() {
    let bench = Bench::new();
    let mut executor = bench.load(policy()).unwrap();
    bench.devices.get(0).set_lost(true);
    assert!(matches!(
        run(executor.as_mut(), 1),
        Err(RunError::DeviceLost(_))
    ));
    assert!(bench.load(policy()).is_err());
    bench.devices.get(0).set_lost(false);
    assert!(run(executor.as_mut(), 1).is_ok());
}
