//! The way of what is told in traces: who is in one, and the queue to whoever sends it on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc::{self, Permit, Receiver, Sender};

use super::context::below;
use super::sampling::Sampling;
use super::story::Story;
use crate::clock::Moment;
use crate::serving::{Journey, TraceContext};

/// Requests that wait to be sent on.
const WAITING: usize = 2048;
/// Requests a second that are told because they were slow or failed: where most are, more of them tell
/// nothing, and cost what there is none of.
const LATE: u32 = 1000;

/// What became of spans.
#[derive(Debug, Default)]
pub(super) struct Spans {
    pub(super) sent: AtomicU64,
    pub(super) dropped: AtomicU64,
}

/// Who is traced.
#[derive(Debug)]
pub struct Tracer {
    sampling: Sampling,
    queue: Sender<Arc<Story>>,
    late: Mutex<Late>,
    spans: Arc<Spans>,
}

/// How many were told late in the second that began at a moment.
#[derive(Debug, Default)]
struct Late {
    second: Moment,
    told: u32,
}

impl Late {
    fn takes(&mut self, now: Moment) -> bool {
        if now - self.second >= Duration::from_secs(1) {
            (self.second, self.told) = (now, 0);
        }
        self.told += 1;
        self.told <= LATE
    }
}

impl Tracer {
    /// Tells this share of all requests to whoever has the other end of the queue.
    pub(super) fn new(ratio: f64) -> (Self, Receiver<Arc<Story>>) {
        let (queue, stories) = mpsc::channel(WAITING);
        let tracer = Self {
            sampling: Sampling::new(ratio),
            queue,
            late: Mutex::default(),
            spans: Arc::default(),
        };
        (tracer, stories)
    }

    /// Which requests are told.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// Where a request is in a trace: the one that it names, or one of its own.
    pub fn context(&self, traceparent: Option<&str>) -> TraceContext {
        let theirs = traceparent.and_then(below);
        theirs.unwrap_or_else(TraceContext::root)
    }

    pub(super) fn spans(&self) -> &Arc<Spans> {
        &self.spans
    }

    /// Spans that were sent, and dropped.
    pub(super) fn counts(&self) -> (u64, u64) {
        let Spans { sent, dropped } = self.spans.as_ref();
        (
            sent.load(Ordering::Relaxed),
            dropped.load(Ordering::Relaxed),
        )
    }

    /// Decides whether a request of a model is told. Who sent it as a part of a trace has decided.
    pub(super) fn decide(&self, model: &str, context: &mut Option<TraceContext>) {
        match context {
            None => {}
            Some(theirs) if theirs.parent != 0 => {
                context.take_if(|_| !self.sampling.is_on(model));
            }
            Some(own) => match self.sampling.decides(model) {
                Some(sampled) => own.sampled = sampled,
                None => *context = None,
            },
        }
    }

    /// A place for what a request went through, if it is to be told: it was chosen, or it matters.
    /// Its context says then that it is told.
    pub(super) fn place(
        &self,
        journey: &mut Journey,
        matters: bool,
        encoded: Option<Moment>,
    ) -> Option<Permit<'_, Arc<Story>>> {
        let mut context = journey.context?;
        if !context.sampled && !matters {
            return None;
        }
        let end = encoded.unwrap_or(journey.answered);
        let place = match context.sampled || self.late(end) {
            true => self.queue.try_reserve().ok(),
            false => None,
        };
        if place.is_none() {
            let spans = Story::spans(journey, encoded) as u64;
            self.spans.dropped.fetch_add(spans, Ordering::Relaxed);
        }
        context.sampled = place.is_some();
        journey.context = Some(context);
        place
    }

    fn late(&self, now: Moment) -> bool {
        let mut late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.takes(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journey(sampled: bool) -> Journey {
        let mut context = TraceContext::root();
        context.sampled = sampled;
        Journey::new(Moment::ORIGIN, Moment::ORIGIN, Some(context))
    }

    #[test]
    fn what_finds_no_place_is_counted_and_not_said_to_be_told() {
        let (tracer, _stories) = Tracer::new(1.0);
        let mut places = Vec::new();
        for _ in 0..WAITING {
            places.extend(tracer.place(&mut journey(true), false, None));
        }
        assert_eq!(places.len(), WAITING);
        assert_eq!(tracer.spans().dropped.load(Ordering::Relaxed), 0);
        let mut late = journey(true);
        assert!(tracer.place(&mut late, false, None).is_none());
        assert!(!late.context.unwrap().sampled);
        // The request's own, and that of decoding it.
        assert_eq!(tracer.spans().dropped.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn slow_ones_are_told_though_nobody_chose_them_up_to_a_bound() {
        let (tracer, _stories) = Tracer::new(0.0);
        let second = Moment::ORIGIN + Duration::from_secs(1);
        assert!(
            tracer
                .place(&mut journey(false), false, Some(second))
                .is_none()
        );
        let told = |now| {
            let mut slow = journey(false);
            let told = tracer.place(&mut slow, true, Some(now)).is_some();
            assert_eq!(slow.context.unwrap().sampled, told);
            told
        };
        let among = (0..2 * LATE).filter(|_| told(second)).count();
        assert_eq!(among, LATE as usize);
        assert!(told(second + Duration::from_secs(1)));
    }

    #[test]
    fn who_is_part_of_a_trace_has_decided() {
        let (tracer, _stories) = Tracer::new(0.0);
        let theirs = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let mut context = Some(tracer.context(Some(theirs)));
        tracer.decide("m", &mut context);
        assert!(context.unwrap().sampled);
        let mut own = Some(tracer.context(Some("nonsense")));
        tracer.decide("m", &mut own);
        assert!(!own.unwrap().sampled);
        tracer
            .sampling()
            .change("m", |_| true, |own| own.on = Some(false));
        tracer.decide("m", &mut context);
        assert_eq!(context, None);
    }
}
