//! Chaos: a real server, in a process of its own, is dealt what production deals. Whatever it is, every
//! request is answered once, and right or with its code; and when it is over the server has what it had
//! before: memory, threads, descriptors. docs/reliability.md has the figures of the long runs
//! (`make chaos`); what runs otherwise is the same, but less of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods
)] // all of this is a test, helpers too, and says how long things took

#[path = "../it/mutation/dice.rs"]
#[allow(dead_code)]
mod dice;
#[path = "../it/plain_bytes.rs"]
mod plain_bytes;
#[path = "../it/repository.rs"]
#[allow(dead_code)]
mod repository;
#[path = "../it/request.rs"]
#[allow(dead_code)]
mod request;

mod clocks;
mod connections;
mod faults;
mod overload;
mod requests;
mod server;
mod signals;
mod slowness;
mod witness;

use std::time::Duration;

/// A test that waits longer than this hangs; none comes near it.
const HANG: Duration = Duration::from_secs(120);

/// So many in a test, and so many in a long run.
fn extent(few: usize, many: usize) -> usize {
    match std::env::var_os("JITNEY_CHAOS") {
        Some(extent) if extent == "full" => many,
        _ => few,
    }
}

/// Waits, but not for ever.
async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("waited {HANG:?} in vain: {what}"))
}
