//! The whole server over real sockets: what a client and an operator can rely on.
//!
//! Every test starts a server of its own on a free port. Expectations are closed-form: an echo of
//! what was sent, a count of rows, a status. Nothing here is true only on a fast machine: what has
//! to happen is awaited, and the one bound on time says only that a test hangs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)] // all of this is a test, helpers too

mod age;
mod alignment;
mod authority;
mod batch;
mod cache;
mod capacity;
mod console;
mod corpora;
mod crowd;
mod deadline;
mod driver;
mod ensemble;
mod fault;
mod graphs;
mod hang;
mod http;
mod isolation;
mod left_out;
mod limits;
mod load;
mod memory;
mod metrics;
mod mutation;
mod node;
mod occupant;
mod optional;
mod outputs;
mod overload;
mod padding;
mod pbtxt;
mod place;
mod plain_bytes;
mod poison;
mod profile;
mod progress;
mod pushed;
mod ragged;
mod receiver;
mod reload;
mod repository;
mod request;
mod rest;
mod schedule;
mod security;
mod sequence;
mod shared_memory;
mod sharing;
mod shutdown;
mod silence;
mod sizes;
mod stalled;
mod start;
mod stream;
mod timing;
mod tls;
mod traces;
mod traffic;
mod upload;
mod waiting;
mod watch;
mod web;
mod weights;
mod workers;
