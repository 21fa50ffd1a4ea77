//! Jitney serves ONNX models over the KServe V2 protocol, and batches without knobs.
//!
//! The walk of one request, each station consuming one type and handing on the next:
//!
//! ```text
//! bytes -> message -> InferRequest -> Ticket -> Item -> Batch -> Job -> outputs -> InferResponse -> message -> bytes
//!          wire       engine          lane     scheduler        executor           wire
//! ```
//!
//! A [`frontend`] receives a message and [`wire`] decodes it; tensors share the buffer they came
//! in. The engine of [`serving`] picks the version, checks, and queues. The version's lane asks the
//! [`scheduler`] who leaves with whom, when an executor is free to take them. The executor stacks
//! the rows, has a [`backend`] run them on a [`device`], slices the outputs, and answers each
//! request directly. `ARCHITECTURE.md` has the map and what each room never does.

pub mod allocator;
pub mod backend;
pub mod cli;
pub mod clock;
pub mod config;
pub mod device;
pub mod frontend;
pub mod model;
pub mod proto;
pub mod repository;
pub mod scheduler;
pub mod server;
pub mod serving;
pub mod status;
pub mod telemetry;
pub mod tensor;
pub mod wire;
