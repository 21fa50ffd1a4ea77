//! What the driver is to be like, as its folder says at this moment.

use std::fs;
use std::path::{Path, PathBuf};

use crate::code::Code;

/// Names the folder; without it there is no GPU.
pub(crate) const FOLDER: &str = "JITNEY_DRIVER";
/// The file in it.
pub(crate) const FILE: &str = "control";

/// The folder, and the text of its file.
pub(crate) struct Control {
    folder: PathBuf,
    text: String,
}

impl Control {
    /// As it is now; none without a folder.
    pub(crate) fn read() -> Option<Self> {
        let folder = PathBuf::from(std::env::var_os(FOLDER)?);
        let text = fs::read_to_string(folder.join(FILE)).unwrap_or_default();
        Some(Self { folder, text })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn number(&self, key: &str) -> Option<u64> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(said, _)| said.trim() == key)?;
        value.trim().parse().ok()
    }

    /// The error that a key asks for.
    pub(crate) fn code(&self, key: &str) -> Option<Code> {
        self.number(key).and_then(|code| Code::try_from(code).ok())
    }

    pub(crate) fn devices(&self) -> u32 {
        let devices = self.number("devices").unwrap_or(1);
        u32::try_from(devices).unwrap_or(u32::MAX)
    }

    pub(crate) fn memory_bytes(&self) -> u64 {
        self.number("memory_bytes").unwrap_or(1 << 30)
    }
}
