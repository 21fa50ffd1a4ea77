//! What goes wrong with a store or with the cache.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

/// Why a repository in a store cannot be read, or a model of it not be taken.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The settings or the environment do not describe a store.
    #[error("{url}: {source}")]
    Settings {
        /// The repository.
        url: String,
        /// What is wrong.
        source: object_store::Error,
    },
    /// The store does not answer, or refuses.
    #[error("{url}: {}", whole(source))]
    Store {
        /// The repository, or an object of it.
        url: String,
        /// What the store or the network said.
        source: object_store::Error,
    },
    /// More objects than the server is told to bear.
    #[error("{url}: there are more than {most} objects; max_repository_objects allows more")]
    TooMany {
        /// The repository.
        url: String,
        /// The setting.
        most: usize,
    },
    /// An object that cannot be a file of a model.
    #[error("{url}: {reason}; the model stays as it was")]
    Name {
        /// The repository.
        url: String,
        /// Which object, and why.
        reason: String,
    },
    /// A model that is still being uploaded.
    #[error("{url}: model {model:?} is still changing; it is taken when it rests")]
    Changing {
        /// The repository.
        url: String,
        /// The model.
        model: String,
    },
    /// A model that has no version with everything it needs.
    #[error("{url}: no version of {model:?} has its model.onnx yet; it is taken when one does")]
    Incomplete {
        /// The repository.
        url: String,
        /// The model.
        model: String,
    },
    /// What came is not what was listed.
    #[error("{url}: {reason}; the object is fetched again when it rests")]
    Content {
        /// The object.
        url: String,
        /// What was expected, and what came.
        reason: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("cache {path}: {source}")]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// The cache cannot hold what is to be served.
    #[error(
        "cache {path}: {needed} bytes are needed beside {used} in use, and cache_bytes is {limit}"
    )]
    NoRoom {
        /// The cache.
        path: PathBuf,
        /// Bytes of what is to be fetched.
        needed: u64,
        /// Bytes of what is served or being fetched.
        used: u64,
        /// The setting.
        limit: u64,
    },
    /// Another server holds the cache and does not let go.
    #[error("cache {path}: another server has held its lock for {seconds} s; it may be stopped")]
    Held {
        /// The cache.
        path: PathBuf,
        /// How long this one waited.
        seconds: u64,
    },
    /// A bug of ours.
    #[error("working on the cache panicked: {0}")]
    Panicked(String),
}

/// An error with what it came from, as far as it does not say that itself.
fn whole(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let own = error.to_string();
        if !text.contains(&own) {
            text = format!("{text}: {own}");
        }
        source = error.source();
    }
    text
}

/// Names the file that could not be read or written.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> RemoteError + '_ {
    |source| RemoteError::Cache {
        path: path.to_owned(),
        source,
    }
}
