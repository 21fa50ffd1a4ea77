//! CUDA's code under a driver that is not one (tests/driver): what it finds, takes, gives back and says
//! when a GPU fails.
//!
//! A process has one driver for its life, so each test is run again in a process that finds this one.

use std::process::Command;

use jitney::config::RawServer;
use jitney::device::{
    ComputeStream, CudaDevice, CudaIpcMemory, Device, DeviceError, Inventory, SharedDevice,
};
use jitney::model::DeviceChoice;
use jitney::proto::infer_parameter::ParameterChoice;
use jitney::proto::model_infer_request::InferRequestedOutputTensor;
use jitney::proto::{
    CudaSharedMemoryRegisterRequest, CudaSharedMemoryStatusRequest,
    CudaSharedMemoryUnregisterRequest, InferParameter, ModelInferRequest, ModelInferResponse,
};
use jitney_driver::Installed;
use tonic::{Code, Status};

use super::node::{Node, within};
use super::repository::made_models;
use super::request::{bytes_of, input};

const MIB: u64 = 1 << 20;

/// Runs `body` in a process whose driver is as `control` says: this test's own, again.
fn under(control: &str, test: &str, body: impl FnOnce(&Installed)) {
    if let Some(driver) = Installed::here() {
        return body(&driver);
    }
    let driver = Installed::new(control).unwrap();
    let again = driver
        .command(std::env::current_exe().unwrap())
        .args([&format!("driver::{test}"), "--exact", "--nocapture"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&again.stdout);
    let failed = String::from_utf8_lossy(&again.stderr);
    // That the name is right, too.
    assert!(said.contains("1 passed"), "{said}\n{failed}");
}

/// What `jitney devices` prints.
fn listed(driver: &Installed) -> String {
    let output = driver
        .command(env!("CARGO_BIN_EXE_jitney"))
        .arg("devices")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn gpu(number: usize) -> SharedDevice {
    let devices = Inventory::detect().devices();
    // The processor is the first.
    SharedDevice::clone(&devices[1 + number])
}

fn used(device: &SharedDevice) -> u64 {
    let memory = device.memory().unwrap();
    memory.total_bytes - memory.free_bytes
}

fn refused<T>(outcome: Result<T, DeviceError>, said: &str) {
    let error = outcome.err().unwrap().to_string();
    assert!(error.contains(said), "{error}");
}

#[test]
fn gpus_are_found_with_their_names_identities_and_memory() {
    let driver = Installed::new("devices = 2\nmemory_bytes = 1073741824").unwrap();
    let listed = listed(&driver);
    for line in [
        "cuda:0: Jitney GPU 0 (GPU-f0e1d2c3-b4a5-9687-0000-000000000000); 1024 MiB, 1024 MiB free",
        "cuda:1: Jitney GPU 1 (GPU-f0e1d2c3-b4a5-9687-0000-000000000001); 1024 MiB, 1024 MiB free",
    ] {
        assert!(listed.lines().any(|found| found == line), "{listed}");
    }
    assert!(!listed.contains("no CUDA device"), "{listed}");
}

#[test]
fn a_driver_that_is_no_help_says_why() {
    for (control, why) in [
        ("devices = 0", "the NVIDIA driver sees no GPU"),
        ("fail.cuInit = 100", "the NVIDIA driver sees no GPU"),
        ("fail.cuInit = 803", "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        ("fail.cuDeviceGetCount = 999", "CUDA_ERROR_UNKNOWN"),
        (
            "lost.0 = 214",
            "cuda:0: DriverError(CUDA_ERROR_ECC_UNCORRECTABLE",
        ),
        (
            "version = 10020",
            "the NVIDIA driver is too old: it offers CUDA 10.2, and at least 11.0 is needed",
        ),
    ] {
        let listed = listed(&Installed::new(control).unwrap());
        let line = listed.lines().find(|line| line.starts_with("no CUDA"));
        assert!(line.unwrap().contains(why), "{control}: {listed}");
        assert!(!listed.contains("cuda:0: Jitney"), "{control}: {listed}");
    }
}

#[test]
fn a_server_told_to_use_gpus_does_not_start_without() {
    for (control, device, why) in [
        ("fail.cuInit = 803", "cuda", "SYSTEM_DRIVER_MISMATCH"),
        ("devices = 2", "cuda:2", "there are 2 GPUs, from cuda:0"),
        (
            "devices = 2\nlost.1 = 214",
            "cuda:1",
            "cannot be used: DriverError(CUDA_ERROR_ECC_UNCORRECTABLE",
        ),
    ] {
        let driver = Installed::new(control).unwrap();
        let mut check: Command = driver.command(env!("CARGO_BIN_EXE_jitney"));
        let ended = check
            .arg("check")
            .arg(made_models())
            .args(["--device", device])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success() && said.contains(why), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn one_gpu_that_fails_leaves_the_others() {
    let driver = Installed::new("devices = 3\nlost.1 = 214").unwrap();
    let listed = listed(&driver);
    assert!(listed.contains("cuda:0: Jitney GPU 0"), "{listed}");
    assert!(listed.contains("cuda:2: Jitney GPU 2"), "{listed}");
    let broken = listed.lines().find(|line| line.starts_with("cuda:1:"));
    let broken = broken.unwrap();
    assert!(broken.contains("ECC_UNCORRECTABLE") && broken.ends_with("cannot be used"));
    under(
        "devices = 3\nlost.1 = 214",
        "one_gpu_that_fails_leaves_the_others",
        |_| {
            let choice = DeviceChoice::CudaAll;
            let all = Inventory::detect().choose(&choice, &choice).unwrap();
            let ids: Vec<String> = all.iter().map(|device| device.id().to_string()).collect();
            assert_eq!(ids, ["cuda:0", "cuda:2"]);
        },
    );
}

#[test]
fn memory_is_counted_by_device_over_all_processes() {
    let control = "devices = 2\nmemory_bytes = 104857600\ncontext_bytes = 1048576";
    under(
        control,
        "memory_is_counted_by_device_over_all_processes",
        |driver| {
            let (first, second) = (gpu(0), gpu(1));
            // A process that uses a GPU has memory there for that alone.
            assert_eq!((used(&first), used(&second)), (MIB, MIB));
            let _shared = driver.share(1, 5, &vec![0; 3 * MIB as usize]).unwrap();
            assert_eq!((used(&first), used(&second)), (MIB, 4 * MIB));
            assert_eq!(second.taken_bytes(), 4 * MIB);
        },
    );
}

#[test]
fn pinned_memory_is_zero_aligned_bounded_and_given_back() {
    under(
        "pinned_bytes = 10000",
        "pinned_memory_is_zero_aligned_bounded_and_given_back",
        |_| {
            let gpu = gpu(0);
            let mut memory = gpu.staging(8000).unwrap();
            assert!(memory.as_slice().iter().all(|byte| *byte == 0));
            assert_eq!(memory.as_slice().as_ptr().align_offset(64), 0);
            memory.as_mut_slice().fill(7);
            refused(
                gpu.staging(4000).map(drop),
                "cuda:0: DriverError(CUDA_ERROR_OUT_OF_MEMORY",
            );
            // It may be dropped by a thread that has no context.
            std::thread::spawn(move || drop(memory)).join().unwrap();
            assert!(gpu.staging(10000).is_ok());
            // No bytes are still memory.
            assert!(gpu.staging(0).is_ok());
        },
    );
}

#[test]
fn streams_are_each_executors_own_on_any_thread() {
    under(
        "devices = 2",
        "streams_are_each_executors_own_on_any_thread",
        |_| {
            let streams: Vec<ComputeStream> = [0, 0, 1]
                .map(|number| std::thread::spawn(move || ComputeStream::new(number).unwrap()))
                .map(|thread| thread.join().unwrap())
                .into();
            let handles: Vec<usize> = streams
                .iter()
                .map(|stream| stream.handle() as usize)
                .collect();
            assert!(handles.iter().all(|handle| *handle != 0));
            assert!(handles[0] != handles[1] && handles[1] != handles[2]);
            refused(
                ComputeStream::new(2),
                "cuda:2: DriverError(CUDA_ERROR_INVALID_DEVICE",
            );
        },
    );
}

#[test]
fn a_lost_gpu_stays_lost_for_the_process_and_leaves_others_alone() {
    under(
        "devices = 2",
        "a_lost_gpu_stays_lost_for_the_process_and_leaves_others_alone",
        |driver| {
            let (first, second) = (gpu(0), gpu(1));
            let staging = first.staging(64).unwrap();
            let stream = ComputeStream::new(0).unwrap();
            driver.set("devices = 2\nlost.0 = 700").unwrap();
            let sticky = "cuda:0: DriverError(CUDA_ERROR_ILLEGAL_ADDRESS";
            refused(first.memory(), sticky);
            refused(first.staging(64).map(drop), sticky);
            refused(ComputeStream::new(0), sticky);
            assert_eq!(first.taken_bytes(), 0);
            // What is left behind is let go, whatever the driver says to that.
            drop((staging, stream));
            assert!(second.memory().is_ok() && second.staging(64).is_ok());
            // The fault has gone, and this process cannot get over it; another finds the GPU well.
            driver.set("devices = 2").unwrap();
            refused(first.memory(), sticky);
            assert!(listed(driver).contains("cuda:0: Jitney GPU 0"));
        },
    );
}

#[test]
fn a_gpu_may_be_lost_at_any_call() {
    under("", "a_gpu_may_be_lost_at_any_call", |driver| {
        let mut fine = 0;
        for calls in 0..64 {
            driver
                .set(&format!("lost.0 = 700\nafter.0 = {calls}"))
                .unwrap();
            // A process of its own has its GPU for so many calls.
            let child = driver
                .command(std::env::current_exe().unwrap())
                .args(["driver::uses_everything_once", "--exact", "--nocapture"])
                .env("JITNEY_DRIVER_USE", "1")
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&child.stdout);
            assert!(said.contains("1 passed"), "after {calls}: {child:?}");
            fine += usize::from(said.contains("everything was well"));
        }
        assert!((1..64).contains(&fine), "{fine}");
    });
}

/// What the test above runs: no failure of the driver is a panic or a crash.
#[test]
fn uses_everything_once() {
    let Some(driver) = Installed::here() else {
        return;
    };
    let everything = || -> Result<(), Box<dyn std::error::Error>> {
        let (devices, _) = CudaDevice::enumerate()?;
        let gpu = devices.first().ok_or("no GPU")?;
        gpu.uuid().ok_or("no identity")?;
        gpu.memory()?;
        gpu.staging(64)?;
        let stream = ComputeStream::new(0)?;
        let shared = driver.share(0, u64::from(std::process::id()), &[1; 64])?;
        let memory = CudaIpcMemory::open(0, &shared.handle, 64)?;
        memory.write(0, &memory.read(32, 32)?)?;
        drop((memory, stream));
        Ok(())
    };
    match everything() {
        Ok(()) => println!("everything was well"),
        Err(error) => println!("it failed: {error}"),
    }
}

#[test]
fn memory_of_another_process_is_read_and_written_within_its_bounds() {
    under(
        "devices = 2",
        "memory_of_another_process_is_read_and_written_within_its_bounds",
        |driver| {
            let shared = driver.share(0, 1, b"0123456789").unwrap();
            let memory = CudaIpcMemory::open(0, &shared.handle, 8).unwrap();
            assert_eq!(memory.read(2, 3).unwrap(), b"234");
            memory.write(6, b"AB").unwrap();
            assert_eq!(shared.bytes().unwrap(), b"012345AB89");
            // What was opened are 8 of the 10 bytes.
            for (offset, length) in [(0, 9), (8, 1), (usize::MAX, 2), (7, usize::MAX)] {
                refused(memory.read(offset, length.min(1 << 20)), "INVALID_VALUE");
            }
            refused(memory.write(7, b"xy"), "INVALID_VALUE");
            assert_eq!(shared.bytes().unwrap(), b"012345AB89");
            refused(
                CudaIpcMemory::open(0, &shared.handle, 11),
                "byte_size is 11; what was shared has 10",
            );
            refused(CudaIpcMemory::open(1, &shared.handle, 8), "INVALID_CONTEXT");
            refused(CudaIpcMemory::open(0, &[7; 64], 8), "INVALID_VALUE");
            refused(CudaIpcMemory::open(0, &[7; 63], 8), "64 bytes; 63 came");
            // Opened twice it is the same memory, which the second to close lets go.
            let again = CudaIpcMemory::open(0, &shared.handle, 10).unwrap();
            drop(memory);
            assert_eq!(again.read(8, 2).unwrap(), b"89");
            drop(again);
            assert_eq!(
                CudaIpcMemory::open(0, &shared.handle, 10)
                    .unwrap()
                    .read(0, 1)
                    .unwrap(),
                b"0"
            );
        },
    );
}

async fn serve(cuda_shared_memory: &str) -> Node {
    let settings = RawServer {
        cuda_shared_memory: Some(cuda_shared_memory.to_owned()),
        device: Some("cpu".to_owned()),
        ..RawServer::default()
    };
    Node::with(&made_models(), settings).await
}

async fn register(node: &Node, handle: &[u8], bytes: u64) -> Result<(), Status> {
    let request = CudaSharedMemoryRegisterRequest {
        name: "region".to_owned(),
        raw_handle: handle.to_vec().into(),
        device_id: 0,
        byte_size: bytes,
    };
    let answer = node.client().cuda_shared_memory_register(request).await;
    answer.map(|_| ())
}

/// Eight numbers from the region's beginning; their echo goes behind them.
async fn echo(node: &Node) -> Result<ModelInferResponse, Status> {
    let part = |offset: i64| {
        let choice = |choice| InferParameter {
            parameter_choice: Some(choice),
        };
        [
            (
                "shared_memory_region",
                choice(ParameterChoice::StringParam("region".to_owned())),
            ),
            (
                "shared_memory_byte_size",
                choice(ParameterChoice::Int64Param(32)),
            ),
            (
                "shared_memory_offset",
                choice(ParameterChoice::Int64Param(offset)),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    };
    let mut tensor = input("INPUT0", "FP32", &[2, 4]);
    tensor.parameters = part(0);
    let request = ModelInferRequest {
        model_name: "identity_fp32".to_owned(),
        inputs: vec![tensor],
        outputs: vec![InferRequestedOutputTensor {
            name: "OUTPUT0".to_owned(),
            parameters: part(32),
        }],
        ..ModelInferRequest::default()
    };
    node.infer(request).await
}

fn in_runtime(future: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(within("the test", future));
}

#[test]
fn tensors_go_both_ways_through_memory_of_a_gpu() {
    under(
        "",
        "tensors_go_both_ways_through_memory_of_a_gpu",
        |driver| {
            let numbers = bytes_of((0..8).map(|number| number as f32));
            let shared = driver
                .share(0, 1, &[&numbers[..], &[0; 32]].concat())
                .unwrap();
            in_runtime(async {
                let node = serve("true").await;
                register(&node, &shared.handle, 64).await.unwrap();
                let request = CudaSharedMemoryStatusRequest::default();
                let status = node.client().cuda_shared_memory_status(request).await;
                let region = status
                    .unwrap()
                    .into_inner()
                    .regions
                    .remove("region")
                    .unwrap();
                assert_eq!((region.device_id, region.byte_size), (0, 64));
                echo(&node).await.unwrap();
                assert_eq!(shared.bytes().unwrap()[32..], numbers[..]);
                let request = CudaSharedMemoryUnregisterRequest::default();
                node.client()
                    .cuda_shared_memory_unregister(request)
                    .await
                    .unwrap();
                let gone = echo(&node).await.unwrap_err();
                assert!(
                    gone.message().contains("no shared memory region"),
                    "{gone:?}"
                );
            });
        },
    );
}

#[test]
fn wrong_registrations_are_refused_and_only_where_it_is_on() {
    under(
        "",
        "wrong_registrations_are_refused_and_only_where_it_is_on",
        |driver| {
            let shared = driver.share(0, 1, &[0; 64]).unwrap();
            in_runtime(async {
                let node = serve("true").await;
                for (handle, bytes, why) in [
                    (
                        &shared.handle[..],
                        65,
                        "byte_size is 65; what was shared has 64",
                    ),
                    (&shared.handle[..63], 64, "has 64 bytes; 63 came"),
                    (&[9; 64][..], 64, "INVALID_VALUE"),
                ] {
                    let refused = register(&node, handle, bytes).await.unwrap_err();
                    assert_eq!(refused.code(), Code::InvalidArgument);
                    assert!(refused.message().contains(why), "{refused:?}");
                }
                let off = register(&serve("false").await, &shared.handle, 64).await;
                assert!(
                    off.unwrap_err()
                        .message()
                        .contains("--cuda-shared-memory true")
                );
            });
        },
    );
}

#[test]
fn a_gpu_that_is_lost_while_it_serves_is_the_servers_fault_and_not_its_end() {
    under(
        "",
        "a_gpu_that_is_lost_while_it_serves_is_the_servers_fault_and_not_its_end",
        |driver| {
            let shared = driver.share(0, 1, &[0; 64]).unwrap();
            in_runtime(async {
                let node = serve("true").await;
                register(&node, &shared.handle, 64).await.unwrap();
                echo(&node).await.unwrap();
                driver.set("lost.0 = 700").unwrap();
                let lost = echo(&node).await.unwrap_err();
                assert_eq!(lost.code(), Code::Unavailable);
                assert!(lost.message().contains("ILLEGAL_ADDRESS"), "{lost:?}");
                // What needs no GPU is served as before, and metrics tell nothing of it.
                assert!(node.is_ready("identity_fp32", "").await);
                let metrics = http::Request::get("/metrics");
                let metrics = node.ask(metrics, "").await;
                assert_eq!(metrics.status(), 200);
                let unregister = CudaSharedMemoryUnregisterRequest::default();
                let mut client = node.client();
                client
                    .cuda_shared_memory_unregister(unregister)
                    .await
                    .unwrap();
            });
        },
    );
}
