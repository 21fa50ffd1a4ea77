//! How long requests may wait, and how many, by priority.

use std::time::Duration;

/// What becomes of a request that has waited too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutAction {
    /// It is refused.
    #[default]
    Reject,
    /// It waits on behind all that have not waited too long.
    Delay,
}

/// How long a request may wait in the queue. Unlike a deadline it is over once the request runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueTimeout {
    /// How long; none for ever.
    pub after: Option<Duration>,
    /// What then.
    pub action: TimeoutAction,
    /// Whether a request's own `timeout` counts, if it is shorter. If not, it is passed over.
    pub allow_override: bool,
}

impl QueueTimeout {
    /// How long a request may wait that asks for `own`.
    pub fn of(&self, own: Option<Duration>) -> Option<Duration> {
        match (self.after, own.filter(|_| self.allow_override)) {
            (Some(after), Some(own)) => Some(after.min(own)),
            (after, own) => after.or(own),
        }
    }
}

/// What holds for requests of one priority in place of what holds for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityPolicy {
    /// The priority, from 1.
    pub level: u32,
    /// The most requests of this priority waiting; none: only the version's own bound holds.
    pub max_queue_size: Option<usize>,
    /// How long they may wait.
    pub timeout: QueueTimeout,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_may_shorten_its_wait_and_never_lengthen_it() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let mut timeout = QueueTimeout {
            after: seconds(2),
            allow_override: true,
            ..QueueTimeout::default()
        };
        assert_eq!(timeout.of(seconds(1)), seconds(1));
        assert_eq!(timeout.of(seconds(3)), seconds(2));
        assert_eq!(timeout.of(None), seconds(2));
        timeout.allow_override = false;
        assert_eq!(timeout.of(seconds(1)), seconds(2));
        timeout.after = None;
        assert_eq!(timeout.of(seconds(1)), None);
    }
}
