//! The parts of the hot path by themselves: `cargo bench --bench parts`.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use jitney::backend::ort::{Library, OrtBackend};
use jitney::backend::{Artifact, Backend, Executor, Input, Place, Placement};
use jitney::clock::Moment;
use jitney::config::read_model_policy;
use jitney::device::{HostDevice, HostMemory, MappedMemory};
use jitney::model::VersionId;
use jitney::proto::ModelInferRequest;
use jitney::proto::model_infer_request::InferInputTensor;
use jitney::scheduler::{Batch, Batcher, Item, Policy, ShapeClass};
use jitney::tensor::{Dtype, Shape, Slicer, Tensor};
use jitney::wire;

/// One request in and its share of a batch out, with 10,000 others queued all the time.
fn decision(criterion: &mut Criterion) {
    const QUEUED: u64 = 10_000;
    let mut group = criterion.benchmark_group("scheduler: one request, 10,000 queued");
    for (name, classes, deadlines) in [
        ("one shape", 1, false),
        ("one shape, deadlines", 1, true),
        ("64 shapes, deadlines", 64, true),
    ] {
        let policy = Policy {
            max_queue_size: 2 * QUEUED as usize,
            ..Policy::default()
        };
        let mut batcher = Batcher::new(policy, &[1]);
        let mut arrivals = 0_u64;
        let mut arrive = |batcher: &mut Batcher| {
            arrivals += 1;
            let now = Moment::from_nanos(arrivals * 1_000);
            // Deadlines in no order, none of which passes.
            let slack = arrivals.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
            let item = Item {
                rows: 1,
                length: 1,
                class: ShapeClass(arrivals % classes),
                level: 0,
                deadline: deadlines
                    .then(|| now + Duration::from_secs(3600) + Duration::from_nanos(slack)),
            };
            assert!(batcher.admit(now, item).is_ok());
            now
        };
        for _ in 0..QUEUED {
            arrive(&mut batcher);
        }
        let mut batch = Batch::default();
        let mut owed = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let now = arrive(&mut batcher);
                owed += 1;
                if owed == 32 {
                    black_box(batcher.poll(now, 0, &mut batch));
                    owed -= batch.load.rows;
                }
            });
        });
    }
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let message = ModelInferRequest {
        model_name: "tiny_mlp".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![1, 16],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![Bytes::from(vec![0; 64])],
        ..ModelInferRequest::default()
    };
    criterion.bench_function("wire: message to request", |bencher| {
        bencher.iter_batched(
            || message.clone(),
            |message| black_box(wire::infer_request(message)),
            criterion::BatchSize::SmallInput,
        );
    });
}

/// A document with 150,000 numbers, as Python writes them.
fn json(criterion: &mut Criterion) {
    const NUMBERS: usize = 150_000;
    let numbers = (0..NUMBERS as u32).map(|number| {
        let number = (number.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
        // Python has no other numbers than those of 64 bits.
        f64::from(number).to_string()
    });
    let data = numbers.collect::<Vec<_>>().join(", ");
    let document = format!(
        r#"{{"inputs": [{{"name": "x", "datatype": "FP32", "shape": [1, {NUMBERS}], "data": [{data}]}}]}}"#
    );
    let mut group = criterion.benchmark_group("wire: JSON to request");
    group.throughput(Throughput::Bytes(document.len() as u64));
    group.bench_function("150,000 numbers", |bencher| {
        bencher.iter(|| {
            black_box(wire::rest::infer_request(
                "m",
                "",
                document.as_bytes(),
                Bytes::new(),
            ))
        });
    });
    group.finish();
}

fn slice(criterion: &mut Criterion) {
    let batch = Tensor {
        dtype: Dtype::Fp32,
        shape: Shape::new(&[32, 4]),
        data: Bytes::from(vec![0; 32 * 16]),
    };
    criterion.bench_function("tensor: slice a batch of 32 rows", |bencher| {
        bencher.iter(|| {
            let Ok(mut slicer) = Slicer::new(batch.clone(), 32) else {
                return;
            };
            for _ in 0..32 {
                let _ = black_box(slicer.take(1));
            }
        });
    });
}

/// An output of 600 KiB on its way out of a worker: put there by ONNX Runtime, or by a copy.
fn outputs(criterion: &mut Criterion) {
    const BYTES: usize = 600 * 1024;
    let (Some(mut executor), Ok(mut memory)) = (identity(), MappedMemory::zeroed(BYTES)) else {
        eprintln!("outputs are not measured: JITNEY_ONNXRUNTIME is not set, or wrong");
        return;
    };
    let data = vec![0; BYTES];
    let inputs = [Input {
        dtype: Dtype::Fp32,
        shape: &[1, BYTES as i64 / 4],
        data: &data,
    }];
    let mut group = criterion.benchmark_group("worker: 600 KiB out of an identity");
    group.throughput(Throughput::Bytes(BYTES as u64));
    group.bench_function("by a copy", |bencher| {
        bencher.iter(|| {
            let outputs = executor.run(&inputs).unwrap_or_default();
            for output in &outputs {
                memory.as_mut_slice().copy_from_slice(&output.data);
            }
            assert!(!outputs.is_empty());
        });
    });
    group.bench_function("straight", |bencher| {
        bencher.iter(|| {
            let outlines = executor.foresee(&inputs).unwrap_or_default();
            let mut places: Vec<Place<'_>> = outlines
                .iter()
                .zip([memory.as_mut_slice()])
                .map(|(outline, data)| Place { outline, data })
                .collect();
            assert!(matches!(executor.run_into(&inputs, &mut places), Ok(None)));
        });
    });
    group.finish();
}

/// What runs the test model that answers what it was asked.
fn identity() -> Option<Box<dyn Executor>> {
    let library = Library::load(Path::new(&std::env::var_os("JITNEY_ONNXRUNTIME")?)).ok()?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/identity_fp32/1");
    let artifact = Artifact {
        id: VersionId {
            model: "identity_fp32".into(),
            version: 1,
        },
        file: folder.join("model.onnx"),
        folder,
        policy: read_model_policy(Path::new("model.toml"), "").ok()?,
        lease: None,
    };
    let placement = Placement {
        device: Arc::new(HostDevice::detect()),
        threads: Some(1),
    };
    let weights = OrtBackend::new(library, None).load(&artifact, &placement);
    weights.ok()?.executor().ok()
}

criterion_group!(parts, decision, decode, json, slice, outputs);
criterion_main!(parts);
