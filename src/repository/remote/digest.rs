//! What a content is called: its SHA-256, in hexadecimal.

use std::fmt::Write;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

const BLOCK: usize = 1 << 16;

/// A SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Digest(String);

impl Digest {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it can be one: what was read from a file may be anything.
    pub(super) fn is_sound(&self) -> bool {
        self.0.len() == 2 * SHA256.output_len()
            && self.0.bytes().all(|byte| byte.is_ascii_hexdigit())
    }
}

impl From<ring::digest::Digest> for Digest {
    fn from(digest: ring::digest::Digest) -> Self {
        let mut text = String::new();
        for byte in digest.as_ref() {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }
}

/// The digest of a text.
pub(super) fn of_text(text: &str) -> Digest {
    digest(&SHA256, text.as_bytes()).into()
}

/// The digest of a file's content, read through.
pub(super) fn of_file(path: &Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut block = vec![0; BLOCK];
    loop {
        let read = file.read(&mut block)?;
        let Some(block) = block.get(..read).filter(|block| !block.is_empty()) else {
            return Ok(context.finish().into());
        };
        context.update(block);
    }
}
