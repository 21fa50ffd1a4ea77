//! What one request went through, noted on its way: for whoever asks afterwards why it took so long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::catalog::Version;
use crate::clock::Moment;
use crate::scheduler::Reason;
use crate::status::Code;

/// Which request of which trace this is (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace: u128,
    /// The request's own span.
    pub span: u64,
    /// The span that it is a part of; 0 if it is the first.
    pub parent: u64,
    /// Whether it was chosen to be told.
    pub sampled: bool,
}

impl TraceContext {
    /// The first of a trace of its own.
    pub fn root() -> Self {
        Self {
            trace: u128::from(any()) << 64 | u128::from(any()),
            span: any(),
            parent: 0,
            sampled: false,
        }
    }

    /// The next of the same parent; if it has none, the first of another trace.
    #[must_use]
    pub fn sibling(&self) -> Self {
        match self.parent {
            0 => Self::root(),
            parent => Self {
                span: any(),
                parent,
                ..*self
            },
        }
    }

    /// A part of this one: the same trace, a span of its own.
    #[must_use]
    pub fn child(&self) -> Self {
        Self {
            span: any(),
            parent: self.span,
            ..*self
        }
    }
}

/// A number that is not zero, by chance. It is asked for in each request, and a range would cost a
/// division.
fn any() -> u64 {
    fastrand::u64(..).max(1)
}

/// What one request went through. Each station notes what it knows.
#[derive(Clone, Debug)]
pub struct Journey {
    /// The client's name for it; empty if it has none.
    pub id: String,
    /// When its call was there.
    pub arrived: Moment,
    /// When it had been decoded, and the engine began.
    pub began: Moment,
    /// When there was an answer, or none was to come.
    pub answered: Moment,
    /// Where it is in a trace, if it is traced.
    pub context: Option<TraceContext>,
    /// Who answered.
    pub version: Option<Arc<Version>>,
    /// Its rows; 0 if they were not looked at.
    pub rows: usize,
    /// The batch that it was in.
    pub trip: Option<Arc<Trip>>,
    /// Whether the answer came from the response cache.
    pub cached: bool,
    /// The steps of an ensemble by name, in the order in which they ended.
    pub steps: Vec<Leg>,
}

/// A step of an ensemble.
#[derive(Clone, Debug)]
pub struct Leg {
    /// The step's name.
    pub name: String,
    /// What it went through.
    pub journey: Journey,
    /// How it ended.
    pub code: Option<Code>,
}

impl Journey {
    /// Of a request whose call was there at `arrived` and that was decoded at `began`.
    pub fn new(arrived: Moment, began: Moment, context: Option<TraceContext>) -> Self {
        Self {
            id: String::new(),
            arrived,
            began,
            answered: began,
            context,
            version: None,
            rows: 0,
            trip: None,
            cached: false,
            steps: Vec::new(),
        }
    }

    /// The stages up to the answer, in their order; those that it did not come to are left out.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, Moment, Moment)> {
        let decode = [(Stage::Decode, self.arrived, self.began)];
        let trip = self.trip.as_deref().map(|trip| {
            // What broke and ran again counts as waiting.
            [
                (Stage::Queue, self.began, trip.left),
                (Stage::Stack, trip.left, trip.stacked),
                (Stage::Execute, trip.stacked, trip.ran),
                (Stage::Slice, trip.ran, trip.ended),
                (Stage::Deliver, trip.ended, self.answered),
            ]
        });
        decode.into_iter().chain(trip.into_iter().flatten())
    }
}

/// A part of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// From the headers to a request that is understood; the body comes meanwhile.
    Decode,
    /// Waiting for a batch.
    Queue,
    /// Stacking the batch's inputs.
    Stack,
    /// The backend's run.
    Execute,
    /// Slicing the batch's outputs.
    Slice,
    /// From the end of the batch to the request's own task.
    Deliver,
    /// Writing the answer.
    Encode,
}

impl Stage {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Queue => "queue",
            Self::Stack => "stack",
            Self::Execute => "execute",
            Self::Slice => "slice",
            Self::Deliver => "deliver",
            Self::Encode => "encode",
        }
    }
}

/// One batch: who left, with whom and why, and what became of it.
#[derive(Debug, Default)]
pub struct Trip {
    /// Counts the version's batches.
    pub number: u64,
    /// Where it ran.
    pub device: Arc<str>,
    /// When it left the queue.
    pub left: Moment,
    /// When its inputs were stacked.
    pub stacked: Moment,
    /// When it had run.
    pub ran: Moment,
    /// When its outputs were sliced; if it failed, then.
    pub ended: Moment,
    /// The device's time that it had: of the time in which others ran there too, its part.
    pub device_time: Duration,
    /// Why it left then.
    pub reason: Reason,
    /// Rows of its members.
    pub rows: usize,
    /// Rows as they ran, with those that were added.
    pub run_rows: usize,
    /// Rows times their own lengths.
    pub own_tokens: usize,
    /// The same as they ran, with what was added.
    pub run_tokens: usize,
    /// Requests that stayed in the queue.
    pub stayed: usize,
    /// Who travelled.
    pub members: Vec<Member>,
    /// Its own trace, if any of them is traced.
    pub context: Option<TraceContext>,
    /// What it failed with.
    pub failed: Option<Code>,
    pub(crate) told: AtomicBool,
}

/// A request of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Its rows.
    pub rows: usize,
    /// When it was queued.
    pub arrived: Moment,
    /// When its answer is worthless.
    pub deadline: Option<Moment>,
    /// Its level of priority; 0 is the most urgent.
    pub level: u32,
    /// Where it is in a trace, if it is traced.
    pub context: Option<TraceContext>,
    /// Whether somebody still waited for its answer.
    pub awaited: bool,
}

impl Trip {
    /// The share of what ran that was added to fill it up.
    pub fn padding(&self) -> f64 {
        let added = self.run_tokens.saturating_sub(self.own_tokens);
        added as f64 / self.run_tokens.max(1) as f64
    }

    /// How long an executor had it.
    pub fn took(&self) -> Duration {
        self.ended - self.left
    }

    /// True for the first who asks: the batch is told once, though each of its members might.
    pub fn is_news(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }
}
