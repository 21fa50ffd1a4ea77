//! How long clients are waited for: those that connect and say nothing, those that stop in the middle of
//! a body, and those that take nothing of an answer. HTTP/2 asks silent clients itself, once it has begun.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::body::Body;

use crate::clock::{Clock, Moment, Sleep};

/// How long nothing is accepted when that has just failed.
const PAUSE: Duration = Duration::from_millis(10);

/// A time, and the clock that it is measured by.
#[derive(Clone)]
pub(super) struct Patience {
    clock: Arc<dyn Clock>,
    limit: Duration,
}

impl fmt::Debug for Patience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.limit.fmt(formatter)
    }
}

impl Patience {
    pub(super) fn new(clock: Arc<dyn Clock>, limit: Duration) -> Self {
        Self { clock, limit }
    }

    pub(super) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// The moment that it is.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Completes after a moment in which others may make room.
    pub(super) fn pause(&self) -> Sleep {
        self.clock.sleep_until(self.clock.now() + PAUSE)
    }

    /// Completes when it is at its end.
    pub(super) fn begin(&self) -> Sleep {
        self.clock.sleep_until(self.clock.now() + self.limit)
    }

    /// The same, or at a deadline that is earlier.
    pub(super) fn begin_before(&self, deadline: Option<Moment>) -> Sleep {
        let ends = self.clock.now() + self.limit;
        let ends = deadline.map_or(ends, |deadline| deadline.min(ends));
        self.clock.sleep_until(ends)
    }

    /// A body that fails when nothing more of it comes.
    pub(super) fn watch(&self, body: Body) -> Body {
        match http_body::Body::is_end_stream(&body) {
            true => body,
            false => Body::new(PatientBody {
                inner: body,
                patience: self.clone(),
                ends: None,
            }),
        }
    }

    /// What is told to whoever was waited for.
    pub(super) fn lost(&self) -> io::Error {
        let told = format!("nothing came for {:?} (read_timeout_ms)", self.limit);
        io::Error::new(io::ErrorKind::TimedOut, told)
    }
}

/// A wait that is bounded, if there is a bound.
pub(super) struct Wait {
    patience: Option<Patience>,
    /// There while it lasts.
    ends: Option<Sleep>,
}

impl Wait {
    /// One that has not begun.
    pub(super) fn new(patience: Option<Patience>) -> Self {
        Self {
            patience,
            ends: None,
        }
    }

    /// Begins, from now.
    pub(super) fn begin(&mut self) {
        self.ends = self.patience.as_ref().map(Patience::begin);
    }

    /// Begins, unless it has.
    pub(super) fn go_on(&mut self) {
        if self.ends.is_none() {
            self.begin();
        }
    }

    /// Is over in good order.
    pub(super) fn end(&mut self) {
        self.ends = None;
    }

    /// Ready when it has begun and lasted too long.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match &mut self.ends {
            Some(ends) => ends.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

pin_project! {
    /// A body whose pauses are bounded.
    struct PatientBody {
        #[pin]
        inner: Body,
        patience: Patience,
        // There while the next piece is waited for.
        ends: Option<Sleep>,
    }
}

impl http_body::Body for PatientBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(context) {
            *this.ends = None;
            return Poll::Ready(frame);
        }
        let ends = this.ends.get_or_insert_with(|| this.patience.begin());
        ready!(ends.as_mut().poll(context));
        let told = this.patience.lost().to_string();
        Poll::Ready(Some(Err(tonic::Status::deadline_exceeded(told))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
