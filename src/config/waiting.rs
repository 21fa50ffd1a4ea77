//! The tables `[queue_timeout]` and `[[priorities]]` of `model.toml`.

use crate::model::{PriorityPolicy, QueueTimeout, TimeoutAction};
use jitney_settings::Table;
use jitney_settings::rule::{OneOf, Truth, milliseconds, whole};

const ACTIONS: OneOf<'_, TimeoutAction> = OneOf(&[
    ("reject", TimeoutAction::Reject),
    ("delay", TimeoutAction::Delay),
]);

/// How long requests may wait.
pub(super) fn timeout(table: &mut Table<'_, '_>) -> QueueTimeout {
    QueueTimeout {
        after: table.value("after_ms", milliseconds(0.001..=86_400_000.0)),
        action: table.value("action", ACTIONS).unwrap_or_default(),
        allow_override: table.value("allow_override", Truth).unwrap_or_default(),
    }
}

/// What holds for single priorities, of which there are so many.
pub(super) fn priorities(table: &mut Table<'_, '_>, levels: u32) -> Vec<PriorityPolicy> {
    let priorities = table.sections("priorities", |table| {
        let level = table.value("level", whole(1..=levels));
        let timeout = table.section("timeout", timeout).unwrap_or_default();
        PriorityPolicy {
            level: table
                .required("level", level, "which priority this is for")
                .unwrap_or(1),
            max_queue_size: table.value("max_queue_size", whole(1..=1_000_000)),
            timeout,
        }
    });
    let priorities = priorities.unwrap_or_default();
    let mut seen = Vec::new();
    for priority in &priorities {
        if seen.contains(&priority.level) {
            let message = format!("level {} is given twice", priority.level);
            table.contradict("priorities", message);
        }
        seen.push(priority.level);
    }
    priorities
}
