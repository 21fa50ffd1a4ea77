//! From a decoded request to its answer: versions, lanes, executors, and what loads them.
//! Uses `scheduler`, `backend`, `repository`, `model` and `tensor`.
//! Never sees a protocol: no protobuf, no JSON, no socket.

mod assembly;
mod breaker;
mod budget;
mod cache;
mod catalog;
mod changes;
mod classification;
mod delivery;
mod engine;
mod ensemble;
mod executor;
mod facade;
mod graph;
mod histogram;
mod inputs;
mod instance;
mod journey;
mod lane;
mod limiter;
mod loading;
mod logbook;
mod optional;
mod order;
mod padding;
mod placing;
mod profile;
mod progress;
mod quickness;
mod ragged;
mod reconcile;
mod rehearsal;
mod request;
mod runner;
mod sequences;
mod shared_memory;
mod site;
mod stacking;
mod staging;
mod stateful;
mod statistics;
mod supplied;
mod ticket;
mod trial;
mod turns;
mod walk;
mod watchdog;

pub use assembly::Assembly;
pub use breaker::{BreakerPolicy, Casualties};
pub use cache::{CacheUsage, ResponseCache};
pub use catalog::{Catalog, IndexEntry, ModelState, Version};
pub use changes::Changes;
pub use engine::Engine;
pub use ensemble::Ensemble;
pub use graph::Interface;
pub use histogram::{Histogram, ROWS, SECONDS, SHARES, Times};
pub use journey::{Journey, Leg, Member, Stage, TraceContext, Trip};
pub use lane::Demand;
pub use limiter::Limiter;
pub use loading::{Backends, Containment, Loader};
pub use logbook::Logbook;
pub use profile::Profile;
pub use progress::{LoadProgress, Phase};
pub use reconcile::{Control, Reconciler, Repository};
pub use request::{
    CorrelationId, InSequence, InferRequest, InferResponse, NamedTensor, OutputTensor,
};
pub use shared_memory::{Region, RegionKind, RegionMemory, RegionPart, SharedMemory, Span};
pub use statistics::{BatchCounts, Count, DeviceCounts, Exemplar, Statistics};
pub use supplied::Supplied;
pub use watchdog::Watchdog;
