//! What becomes of requests, one by one: each is counted, and those that were slow or failed are
//! remembered with what they went through.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::story::Story;
use crate::clock::Moment;
use crate::serving::{Engine, Journey, TraceContext};
use crate::status::Code;

/// Requests that are remembered.
const REMEMBERED: usize = 128;
/// The least time from one that is remembered to the next: where most are slow, one more tells nothing,
/// and costs what there is none of.
const PAUSE: Duration = Duration::from_millis(5);

/// What becomes of requests.
pub struct Requests {
    engine: Engine,
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
            remembered: Mutex::default(),
            news: watch::Sender::default(),
        }
    }

    /// A request whose call was there at `arrived`. It has ended when this is dropped, at the latest.
    pub fn begin(&self, arrived: Moment, context: Option<TraceContext>) -> Watched<'_> {
        Watched {
            requests: self,
            journey: Journey::new(arrived, arrived, context),
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

    fn ended(&self, journey: Journey, code: Option<Code>, encoded: Option<Moment>) {
        self.engine.ended(&journey, code, encoded);
        let Some(version) = &journey.version else {
            return;
        };
        let end = encoded.unwrap_or(journey.answered);
        let is_slow = end - journey.arrived > version.objective();
        if (is_slow && code != Some(Code::Cancelled)) || code.is_some_and(Code::is_ours) {
            self.remember(end, || Story::of(journey, code, encoded));
        }
    }

    fn remember(&self, now: Moment, story: impl FnOnce() -> Story) {
        let mut remembered = self.lock();
        if remembered.last.is_some_and(|last| now - last < PAUSE) {
            return;
        }
        remembered.last = Some(now);
        if remembered.stories.len() >= REMEMBERED {
            remembered.stories.pop_front();
        }
        let story = Arc::new(story());
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

/// A request that is under way.
#[derive(Debug)]
pub struct Watched<'a> {
    requests: &'a Requests,
    journey: Journey,
    has_ended: bool,
}

impl Watched<'_> {
    /// It has been understood: what it goes through from now on, by the name that the client gives it.
    pub fn understood(&mut self, id: &str) -> &mut Journey {
        self.journey.began = self.requests.engine.clock().now();
        self.journey.id.push_str(id);
        &mut self.journey
    }

    /// It has ended: its answer is written, or it is told why there is none.
    pub fn ended(mut self, code: Option<Code>) {
        let encoded = code.is_none().then(|| self.requests.engine.clock().now());
        self.end(code, encoded);
    }

    fn end(&mut self, code: Option<Code>, encoded: Option<Moment>) {
        self.has_ended = true;
        let nothing = Journey::new(self.journey.arrived, self.journey.arrived, None);
        let journey = std::mem::replace(&mut self.journey, nothing);
        self.requests.ended(journey, code, encoded);
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
