//! What the operating system says of this process.

use std::fs;
use std::thread::available_parallelism;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

/// What the operating system says of this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Process {
    /// Seconds of processor time that it has taken, over all its threads.
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    /// Files and sockets that are open, and how many may be.
    pub(super) open_files: u64,
    pub(super) most_files: u64,
    /// Seconds since the Unix epoch when it started.
    pub(super) started: f64,
    /// Processors that it may use.
    pub(super) processors: f64,
    /// Memory of the host.
    pub(super) host_bytes: u64,
}

impl Process {
    /// None where there is no `/proc`.
    pub(super) fn look() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot: f64 = boot.trim().parse().ok()?;
        // proc(5): the second field is the name in brackets, which may contain anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let field = |number: usize| -> Option<u64> { fields.get(number - 3)?.parse().ok() };
        let ticks = clock_ticks_per_second() as f64;
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) as f64 / ticks,
            resident_bytes: field(24)? * page_size() as u64,
            threads: field(20)?,
            open_files: fs::read_dir("/proc/self/fd").ok()?.count() as u64,
            most_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
            started: boot + field(22)? as f64 / ticks,
            processors: available_parallelism().map_or(1.0, |count| count.get() as f64),
            host_bytes: host_bytes()?,
        })
    }

    /// Of the host's memory.
    pub(super) fn memory_share(&self) -> f64 {
        self.resident_bytes as f64 / self.host_bytes.max(1) as f64
    }
}

fn host_bytes() -> Option<u64> {
    let about = fs::read_to_string("/proc/meminfo").ok()?;
    let total = about
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = total.split_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::wall_nanoseconds;

    #[test]
    fn this_process_is_alive() {
        let process = Process::look().unwrap();
        assert!(process.threads >= 1 && process.open_files >= 3);
        assert!(process.resident_bytes > 1 << 20);
        assert!(process.most_files >= process.open_files);
        let age = wall_nanoseconds() as f64 * 1e-9 - process.started;
        // Of the clock's ticks and of when the machine says that it began.
        assert!((-2.0..86_400.0).contains(&age), "{age}");
    }
}
