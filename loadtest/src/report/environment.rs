//! Where and when a run was made.

use std::fs;
use std::thread;

use crate::clock::wall_seconds;

/// Where and when a run was made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Environment {
    /// Seconds since the Unix epoch.
    pub time: u64,
    /// This program's version.
    pub version: String,
    /// The scenario's file.
    pub scenario: String,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The server's address, and its name and version as it says them.
    pub server: String,
    /// The generator's operating system and architecture.
    pub system: String,
    /// The generator's processor, if the system says it.
    pub processor: String,
    /// Cores that the generator may use.
    pub cores: usize,
}

impl Environment {
    /// Of this process, now.
    pub(crate) fn here(scenario: &str, seed: u64, server: String) -> Self {
        Self {
            time: wall_seconds(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.to_owned(),
            seed,
            server,
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: processor(),
            cores: thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split(':').nth(1));
    name.unwrap_or_default().trim().to_owned()
}
