//! What becomes of requests, one by one: each is counted, and those that were slow or failed are
//! remembered with what they went through.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::context::response;
use super::story::Story;
use super::timing::server_timing;
use super::tracer::Tracer;
use crate::clock::Moment;
use crate::serving::{Engine, InferRequest, Journey, TraceContext};
use crate::status::Code;

/// Requests that are remembered.
const REMEMBERED: usize = 128;
/// The least time from one that is remembered to the next: where most are slow, one more tells nothing,
/// and costs what there is none of.
const PAUSE: Duration = Duration::from_millis(5);

/// What becomes of requests.
pub struct Requests {
    engine: Engine,
    /// None if nothing is traced.
    tracer: Option<Arc<Tracer>>,
    remembered: Mutex<Remembered>,
    /// The last that is remembered.
    news: watch::Sender<Option<Arc<Story>>>,
}

#[derive(Default)]
struct Remembered {
    /// Oldest first.
    stories: VecDeque<Arc<Story>>,
    last: Option<Moment>,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl Requests {
    /// Those that `engine` answers.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            tracer: None,
            remembered: Mutex::default(),
            news: watch::Sender::default(),
        }
    }

    /// The same, told in traces.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Option<Arc<Tracer>>) -> Self {
        self.tracer = tracer;
        self
    }

    /// Who is traced; none if nothing is.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.tracer.as_deref()
    }

    /// A request whose call was there at `arrived`. It has ended when this is dropped, at the latest.
    pub fn begin(&self, arrived: Moment, context: Option<TraceContext>) -> Watched<'_> {
        Watched {
            requests: self,
            journey: Journey::new(arrived, arrived, context),
            is_timed: false,
            has_ended: false,
        }
    }

    /// Those that were slow or failed, oldest first.
    pub fn remembered(&self) -> Vec<Arc<Story>> {
        self.lock().stories.iter().cloned().collect()
    }

    /// Tells of each that is remembered; who comes late hears of the last.
    pub fn stories(&self) -> watch::Receiver<Option<Arc<Story>>> {
        self.news.subscribe()
    }

    /// Its place in a trace, with whether it is told.
    fn ended(
        &self,
        mut journey: Journey,
        code: Option<Code>,
        encoded: Option<Moment>,
    ) -> Option<TraceContext> {
        let end = encoded.unwrap_or(journey.answered);
        let matters = matters(&journey, code, end);
        let place = self
            .tracer()
            .and_then(|tracer| tracer.place(&mut journey, matters, encoded));
        self.engine.ended(&journey, code, encoded);
        let context = journey.context;
        let is_due = matters && self.is_due(end);
        if is_due || place.is_some() {
            let story = Arc::new(Story::of(journey, code, encoded));
            if is_due {
                self.remember(Arc::clone(&story));
            }
            if let Some(place) = place {
                place.send(story);
            }
        }
        context
    }

    /// Whether one more is remembered already.
    fn is_due(&self, now: Moment) -> bool {
        let mut remembered = self.lock();
        let is_due = remembered.last.is_none_or(|last| now - last >= PAUSE);
        if is_due {
            remembered.last = Some(now);
        }
        is_due
    }

    fn remember(&self, story: Arc<Story>) {
        story.log();
        let mut remembered = self.lock();
        if remembered.stories.len() >= REMEMBERED {
            remembered.stories.pop_front();
        }
        remembered.stories.push_back(Arc::clone(&story));
        drop(remembered);
        self.news.send_replace(Some(story));
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether somebody should look at it: it was slow, or failed by our fault.
fn matters(journey: &Journey, code: Option<Code>, end: Moment) -> bool {
    let Some(version) = &journey.version else {
        return false;
    };
    let is_slow = end - journey.arrived > version.objective();
    (is_slow && code != Some(Code::Cancelled)) || code.is_some_and(Code::is_ours)
}

/// A request that is under way.
#[derive(Debug)]
pub struct Watched<'a> {
    requests: &'a Requests,
    journey: Journey,
    /// Whether its client wants to know how long everything took.
    is_timed: bool,
    has_ended: bool,
}

/// What a client is told of its request beside the answer, by the headers that say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aside {
    /// `traceresponse`: where it is in a trace, if it is told or its client has named one.
    pub response: Option<String>,
    /// `server-timing`: how long everything took, if its client wants to know.
    pub timing: Option<String>,
}

impl Watched<'_> {
    /// Its client wants to know how long everything took.
    pub fn timed(&mut self) {
        self.is_timed = true;
    }

    /// It has been understood: what it goes through from now on, by the name that the client gives it.
    pub fn understood(&mut self, request: &InferRequest) -> &mut Journey {
        self.journey.began = self.requests.engine.clock().now();
        self.journey.id.push_str(&request.id);
        if let Some(tracer) = self.requests.tracer() {
            tracer.decide(&request.model, &mut self.journey.context);
        }
        &mut self.journey
    }

    /// It has ended: its answer is written, or it is told why there is none.
    pub fn ended(mut self, code: Option<Code>) -> Aside {
        let encoded = code.is_none().then(|| self.requests.engine.clock().now());
        self.end(code, encoded)
    }

    fn end(&mut self, code: Option<Code>, encoded: Option<Moment>) -> Aside {
        self.has_ended = true;
        let nothing = Journey::new(self.journey.arrived, self.journey.arrived, None);
        let journey = std::mem::replace(&mut self.journey, nothing);
        let timing = self.is_timed.then(|| server_timing(&journey, encoded));
        let context = self.requests.ended(journey, code, encoded);
        let context = context.filter(|context| context.sampled || context.parent != 0);
        Aside {
            response: context.as_ref().map(response),
            timing,
        }
    }
}

impl Drop for Watched<'_> {
    /// Nobody waits for the answer any more.
    fn drop(&mut self) {
        if !self.has_ended {
            self.journey.answered = self.requests.engine.clock().now();
            self.end(Some(Code::Cancelled), None);
        }
    }
}
