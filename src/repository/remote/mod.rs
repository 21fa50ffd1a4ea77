//! A repository in an object store: listed, taken when it rests, kept in a cache on this machine.
//! Uses `object_store`, which appears here and nowhere else, and `clock` for when to look again.
//! Never loads a model, and never hands out what is not whole.

mod cache;
mod desk;
mod digest;
mod error;
mod fetch;
mod mirror;
mod object;
mod pace;
mod record;
mod resting;
mod state;
mod store;
mod taking;

pub use error::RemoteError;
pub(super) use mirror::Mirror;

use std::path::PathBuf;
use std::time::Duration;

/// What a server is told about repositories in stores.
#[derive(Clone, Debug)]
pub struct RemoteSettings {
    /// Where models are kept on this machine.
    pub cache_dir: PathBuf,
    /// Bytes of files that the cache may hold.
    pub cache_bytes: u64,
    /// How long objects have to stay the same before they are taken.
    pub rest: Duration,
    /// Objects that a store may list.
    pub max_objects: usize,
}
