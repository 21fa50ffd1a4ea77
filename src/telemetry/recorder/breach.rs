//! What was decided around a request that broke its objective.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

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
        let mut told = self.requests.stories();
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
