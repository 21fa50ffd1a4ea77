//! What a client brings with a load.

use bytes::Bytes;

/// A configuration and files in place of those in the repository.
#[derive(Clone, Debug, Default)]
pub struct Supplied {
    /// Triton's ModelConfig, as JSON.
    pub config: Option<String>,
    /// Paths in the model's folder, and what is there.
    pub files: Vec<(String, Bytes)>,
}

impl Supplied {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.config.is_none() && self.files.is_empty()
    }
}
