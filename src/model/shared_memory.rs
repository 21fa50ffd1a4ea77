//! What is offered of shared memory.

use std::path::PathBuf;

/// What a server offers of memory that clients share with it, and how much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedMemoryPolicy {
    /// Where files of system shared memory may lie: a folder, or a folder and how the names of files
    /// in it begin. None if system shared memory is not offered.
    pub prefix: Option<PathBuf>,
    /// Whether CUDA shared memory is offered.
    pub cuda: bool,
    /// Regions registered at the same time.
    pub max_regions: usize,
    /// Bytes of all of them.
    pub max_bytes: u64,
}
