//! What a process that was started takes of its machine, by what Linux says of it.

use std::fs;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::interval_at;

use crate::clock::now;

/// What a process takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// Open file descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Usage {
    /// What process `id` takes now; none where there is no such process or no `/proc`.
    pub(crate) fn of(id: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
        let number = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        Some(Self {
            resident_bytes: 1_024 * number("VmRSS:")?,
            descriptors: fs::read_dir(format!("/proc/{id}/fd")).ok()?.count() as u64,
            threads: number("Threads:")?,
        })
    }
}

/// Looks at a process each second, until it is asked what it saw or dropped.
pub(crate) struct Watch {
    stop: oneshot::Sender<()>,
    looks: JoinHandle<Vec<(f64, Usage)>>,
}

impl Watch {
    /// Looks at process `id`, if there is one, from this time on.
    pub(crate) fn of(id: Option<u32>, from: Duration) -> Self {
        let (stop, stopped) = oneshot::channel();
        let looks = tokio::spawn(look(id, from, stopped));
        Self { stop, looks }
    }

    /// What was seen in this time, with the seconds at which it was.
    pub(crate) async fn seen(self, within: Duration) -> Vec<(f64, Usage)> {
        // If it has ended, it saw the process end.
        let _ = self.stop.send(());
        let mut seen = self.looks.await.unwrap_or_default();
        seen.retain(|(second, _)| *second <= within.as_secs_f64());
        seen
    }
}

async fn look(
    id: Option<u32>,
    from: Duration,
    mut stopped: oneshot::Receiver<()>,
) -> Vec<(f64, Usage)> {
    let mut seen = Vec::new();
    let start = now() + from;
    let mut looks = interval_at(start.into(), Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = &mut stopped => return seen,
            _ = looks.tick() => {}
        }
        let Some(usage) = id.and_then(Usage::of) else {
            return seen;
        };
        let second = now().saturating_duration_since(start).as_secs_f64();
        seen.push((second, usage));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something() {
        let usage = Usage::of(std::process::id()).unwrap();
        assert!(usage.resident_bytes > 100_000 && usage.threads >= 1);
        let before = usage.descriptors;
        let _file = fs::File::open("/proc/self/status").unwrap();
        // Other tests open and close files too.
        assert!(before > 0);
        assert!(Usage::of(u32::MAX).is_none());
    }
}
