//! What a batcher is told, and what it answers.

use std::time::Duration;

use super::{ItemId, ShapeClass};
use crate::clock::Moment;
use crate::model::round_up;

/// What a batcher may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The most rows in one batch; at least 1.
    pub max_batch_size: usize,
    /// The most work in one batch: its rows times the length that they are padded to.
    pub max_batch_tokens: usize,
    /// Rows of the batches that executors take, ascending; a batch is padded to the next. Empty if
    /// they take any.
    pub batch_sizes: Vec<usize>,
    /// Lengths to which rows are padded, ascending; empty: to the longest of the batch.
    pub lengths: Vec<usize>,
    /// The most items queued.
    pub max_queue_size: usize,
    /// If not zero: how long a batch that is not full waits for company while an executor is free,
    /// in place of what the batcher would find itself.
    pub max_queue_delay: Duration,
    /// With such a delay: rows with which a batch leaves before it is over.
    pub preferred_sizes: Vec<usize>,
    /// An item without a deadline is ordered as if it had one this long after its arrival, so that
    /// it cannot be overtaken for ever. It never expires.
    pub patience: Duration,
    /// What one level of priority is worth: an item is overtaken by those of the next more urgent
    /// level whose deadlines are up to this much later than its own, and by no others.
    pub level_step: Duration,
    /// Time to keep between the end of a batch and a deadline, for the answer's way back.
    pub margin: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_batch_size: 32,
            max_batch_tokens: usize::MAX,
            batch_sizes: Vec::new(),
            lengths: Vec::new(),
            max_queue_size: 1024,
            max_queue_delay: Duration::ZERO,
            preferred_sizes: Vec::new(),
            patience: Duration::from_secs(1),
            level_step: Duration::from_secs(10),
            margin: Duration::ZERO,
        }
    }
}

impl Policy {
    /// The rows that a batch of so many runs as.
    pub fn run_rows(&self, rows: usize) -> usize {
        round_up(&self.batch_sizes, rows)
    }

    /// The length that rows of this length are padded to, alone.
    pub fn run_length(&self, length: usize) -> usize {
        round_up(&self.lengths, length)
    }

    /// The work of a batch: its rows times their length, as it runs.
    pub(super) fn work(&self, rows: usize, length: usize) -> f64 {
        self.run_rows(rows) as f64 * self.run_length(length) as f64
    }
}

/// What an executor runs at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The class of all rows.
    pub class: ShapeClass,
    /// Rows.
    pub rows: usize,
    /// How long each is, padding included; 1 where nothing is padded.
    pub length: usize,
}

impl Load {
    /// Rows of no particular class that nothing is padded of.
    pub fn of(rows: usize) -> Self {
        Self {
            rows,
            length: 1,
            ..Self::default()
        }
    }

    /// Rows times their length.
    pub(super) fn work(self) -> f64 {
        self.rows as f64 * self.length as f64
    }
}

/// Why an item was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The queue holds as many items as it may.
    #[error("the queue is full")]
    Full,
    /// It has no rows, or more rows or tokens than a batch may have.
    #[error("the rows do not fit a batch")]
    Rows,
    /// Its deadline has passed, or is nearer than the time in which any executor is expected to
    /// serve it, which is given.
    #[error("the deadline cannot be met")]
    Late(Duration),
}

/// An item that is queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who it is.
    pub id: ItemId,
    /// When its class leaves if nothing more arrives and an executor is free.
    pub leaves: Moment,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run the batch that was written into the caller's [`Batch`].
    Dispatch,
    /// Nothing leaves with this executor before this moment unless something arrives.
    WaitUntil(Moment),
    /// Nothing is queued.
    Idle,
}

/// Who cannot be answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// Who it is.
    pub id: ItemId,
    /// The time that its batch was expected to take; zero if the deadline has passed anyway.
    pub expected: Duration,
}

/// A batch that leaves, and who was found too late on the way. Kept by the caller and used again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Who travels, in order.
    pub members: Vec<ItemId>,
    /// What runs: rows of all members, padded to one length and to a number of rows that executors
    /// take.
    pub load: Load,
    /// Why it leaves now.
    pub reason: Reason,
    /// Who left the queue because the deadline had passed or could not be met.
    pub late: Vec<Late>,
    /// Members of the class by rank, while it is decided who leaves.
    pub(super) line: Vec<ItemId>,
}

impl Batch {
    pub(super) fn clear(&mut self) {
        self.members.clear();
        self.late.clear();
        self.line.clear();
        self.load = Load::default();
        self.reason = Reason::default();
    }
}

/// Why a batch leaves when it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// An executor is free, and nothing says to wait: whoever is there travels.
    #[default]
    Free,
    /// No more rows or tokens may travel together.
    Full,
    /// It is large enough for the executors to keep up with what arrives.
    Enough,
    /// Its head could wait no longer.
    Due,
    /// It has a preferred size (`preferred_batch_sizes`).
    Preferred,
    /// Its head has waited as long as it was to (`max_queue_delay_ms`).
    Delayed,
}

impl Reason {
    /// In one word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Full => "full",
            Self::Enough => "enough",
            Self::Due => "due",
            Self::Preferred => "preferred",
            Self::Delayed => "delayed",
        }
    }
}
