//! What was decided around a request that broke its objective.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::watch;

use super::{Anchor, Decision, Shelf, SlowRequest, decisions};
use crate::serving::Engine;
use crate::telemetry::{Requests, Story};

/// Breaches that are kept.
const KEPT: usize = 16;
/// The least time from one to the next: those that follow have the same cause.
const PAUSE: Duration = Duration::from_secs(5);
/// Decisions that are kept with each: over all models, back from the breach.
const AROUND: usize = 64;

/// A request that broke its objective, and what was decided before it ended.
#[derive(Debug, Serialize)]
pub struct Breach {
    /// Counts the breaches that were kept, from 1.
    pub number: u64,
    /// When it was noticed, in milliseconds since the Unix epoch.
    pub unix_ms: f64,
    /// The request.
    pub request: SlowRequest,
    /// The last decisions of every model, newest first.
    pub decisions: Vec<Decision>,
}

/// The last breaches.
#[derive(Clone)]
pub struct Breaches {
    engine: Engine,
    requests: Arc<Requests>,
    shelf: Option<Shelf>,
    kept: Arc<Mutex<VecDeque<Arc<Breach>>>>,
}

impl std::fmt::Debug for Breaches {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Breaches").finish_non_exhaustive()
    }
}

impl Breaches {
    /// Of `requests`; written to `shelf` too, if there is one.
    pub fn new(engine: Engine, requests: Arc<Requests>, shelf: Option<Shelf>) -> Self {
        Self {
            engine,
            requests,
            shelf,
            kept: Arc::default(),
        }
    }

    /// The last ones, oldest first.
    pub fn kept(&self) -> Vec<Arc<Breach>> {
        self.lock().iter().cloned().collect()
    }

    /// Keeps what is to be kept, for ever.
    pub async fn watch(self) {
        self.follow(self.requests.stories()).await;
    }

    async fn follow(&self, mut told: watch::Receiver<Option<Arc<Story>>>) {
        let mut number = 0;
        while told.changed().await.is_ok() {
            let story = told.borrow_and_update().clone();
            let Some(story) = story else {
                continue;
            };
            number += 1;
            self.keep(number, &story).await;
            let clock = self.engine.clock();
            clock.sleep_until(clock.now() + PAUSE).await;
            // Those that came meanwhile are among the stories.
            told.mark_unchanged();
        }
    }

    async fn keep(&self, number: u64, story: &Story) {
        let now = self.engine.clock().now();
        let anchor = Anchor::at(now);
        let versions = self.engine.catalog().serving();
        let breach = Arc::new(Breach {
            number,
            unix_ms: anchor.unix_ms(now),
            request: SlowRequest::told(story, anchor),
            decisions: decisions(&versions, AROUND, anchor),
        });
        let request = &breach.request;
        tracing::warn!(
            model = request.model,
            version = request.version,
            id = request.id.chars().take(64).collect::<String>(),
            code = request.code,
            total_ms = request.total_ms,
            objective_ms = request.objective_ms,
            breach = number,
            "a request broke its objective; what was decided around it is kept"
        );
        {
            let mut kept = self.lock();
            if kept.len() >= KEPT {
                kept.pop_front();
            }
            kept.push_back(Arc::clone(&breach));
        }
        if let Some(shelf) = self.shelf.clone() {
            write(shelf, breach).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Breach>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// On a thread that may wait for the disk.
async fn write(shelf: Shelf, breach: Arc<Breach>) {
    let put = move || shelf.put(breach.unix_ms as u64, breach.number, breach.as_ref());
    match tokio::task::spawn_blocking(put).await {
        Ok(Ok(path)) => tracing::debug!(path = %path.display(), "a breach is written"),
        Ok(Err(error)) => tracing::warn!(%error, "a breach could not be written (breach_dir)"),
        Err(error) => tracing::error!(%error, "writing a breach panicked"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;
    use crate::clock::{Clock, Moment, Sleep};
    use crate::serving::Catalog;

    /// Sleeps as long as the test says.
    struct Dozing(Arc<Semaphore>);

    impl Clock for Dozing {
        fn now(&self) -> Moment {
            Moment::ORIGIN
        }

        fn sleep_until(&self, moment: Moment) -> Sleep {
            assert_eq!(moment, Moment::ORIGIN + PAUSE);
            let permits = Arc::clone(&self.0);
            Box::pin(async move { permits.acquire().await.unwrap().forget() })
        }
    }

    fn story(id: usize) -> Option<Arc<Story>> {
        Some(Arc::new(Story {
            model: "m".to_owned(),
            version: 1,
            step: String::new(),
            id: id.to_string(),
            code: None,
            rows: 1,
            wall_nanoseconds: 0,
            total: Duration::from_secs(2),
            objective: Duration::from_secs(1),
            stages: Vec::new(),
            trip: None,
            cached: false,
            steps: Vec::new(),
            context: None,
            arrived: Moment::ORIGIN,
        }))
    }

    /// Of one thread: whoever yields lets the others go as far as they can.
    async fn others() {
        for _ in 0..8 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn those_that_follow_at_once_are_not_kept_and_the_oldest_go() {
        let rested = Arc::new(Semaphore::new(0));
        let clock = Arc::new(Dozing(Arc::clone(&rested)));
        let engine = Engine::new(Arc::new(Catalog::default()), clock);
        let requests = Arc::new(Requests::new(engine.clone()));
        let breaches = Breaches::new(engine, requests, None);
        let (news, told) = watch::channel(None);
        let follower = breaches.clone();
        let task = tokio::spawn(async move { follower.follow(told).await });
        others().await;
        for id in 0..20 {
            news.send_replace(story(id));
            others().await;
            news.send_replace(story(1_000 + id));
            others().await;
            rested.add_permits(1);
            others().await;
        }
        let kept = breaches.kept();
        let ids: Vec<_> = kept
            .iter()
            .map(|breach| breach.request.id.as_str())
            .collect();
        let expected: Vec<_> = (20 - KEPT..20).map(|id| id.to_string()).collect();
        assert_eq!(ids, expected);
        drop(news);
        task.await.unwrap();
    }
}
