//! How much of what a store has to give has come.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much of what a store has to give has come.
#[derive(Debug, Default)]
pub struct Fetched {
    bytes: AtomicU64,
    of: AtomicU64,
}

impl Fetched {
    /// So many bytes are yet to come.
    pub(super) fn expect(&self, bytes: u64) {
        self.of.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many have come.
    pub(super) fn came(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that have come, and of how many; none if nothing has to be fetched.
    pub fn told(&self) -> Option<(u64, u64)> {
        let of = self.of.load(Ordering::Relaxed);
        // A store that sends more than it listed is told so elsewhere.
        let bytes = self.bytes.load(Ordering::Relaxed).min(of);
        (of > 0).then_some((bytes, of))
    }
}
