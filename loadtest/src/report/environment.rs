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
    /// What it says.
    pub scenario_text: String,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The server's address, and its name and version as it says them.
    pub server: String,
    /// The generator's operating system, its release and its architecture.
    pub system: String,
    /// The generator's processor, if the system says it.
    pub processor: String,
    /// Cores that the generator may use.
    pub cores: usize,
    /// The machine's memory, if the system says it; else 0.
    pub memory_bytes: u64,
}

impl Environment {
    /// Of this process, now.
    pub(crate) fn here(scenario: &str, text: &str, seed: u64, server: String) -> Self {
        Self {
            time: wall_seconds(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            scenario: scenario.to_owned(),
            scenario_text: text.to_owned(),
            seed,
            server,
            system: system(),
            processor: processor(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes().unwrap_or_default(),
        }
    }
}

fn system() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let words = [std::env::consts::OS, release.trim(), std::env::consts::ARCH];
    words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(1_024 * kibibytes)
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split(':').nth(1));
    name.unwrap_or_default().trim().to_owned()
}
