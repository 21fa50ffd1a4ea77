//! How many requests of each priority wait, where priorities have bounds of their own.

use crate::model::QueuePolicy;

/// The priorities that have a bound, and who waits.
#[derive(Debug, Default)]
pub(in crate::serving) struct Levels(Vec<Level>);

#[derive(Debug)]
struct Level {
    level: u32,
    most: usize,
    queued: usize,
}

impl Levels {
    /// The bounds of this policy; nobody waits.
    pub(in crate::serving) fn new(policy: &QueuePolicy) -> Self {
        let bounded = policy.priorities.iter();
        let levels = bounded.filter_map(|priority| {
            Some(Level {
                level: priority.level.saturating_sub(1),
                most: priority.max_queue_size?,
                queued: 0,
            })
        });
        Self(levels.collect())
    }

    /// Whether one more may wait.
    pub(super) fn admits(&self, level: u32) -> bool {
        let mut levels = self.0.iter();
        levels.all(|own| own.level != level || own.queued < own.most)
    }

    pub(super) fn came(&mut self, level: u32) {
        self.count(level, |queued| queued + 1);
    }

    pub(super) fn left(&mut self, level: u32) {
        self.count(level, |queued| queued.saturating_sub(1));
    }

    fn count(&mut self, level: u32, change: impl FnOnce(usize) -> usize) {
        if let Some(own) = self.0.iter_mut().find(|own| own.level == level) {
            own.queued = change(own.queued);
        }
    }
}
