//! How old connections get. One whose time has come tells its client, which takes its next call to
//! another connection, and so perhaps to another server; what is in progress is finished.
//!
//! HTTP/2 is told by GOAWAY. HTTP/1 has no word for it but `connection: close` with an answer: one that
//! is idle is left open until its next answer, for a client may be sending just now.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;

use super::places::Seat;
use super::readiness::Readiness;
use crate::clock::Clock;

/// How far to either side connections' times are spread, so that those that came together do not all
/// go together.
const SPREAD: f64 = 0.1;
/// How long a client has to say what it has just sent, where its connection makes room for others.
const LAST_WORD: Duration = Duration::from_secs(1);

/// How old connections get, and how long calls may outlast that.
#[derive(Clone)]
pub(super) struct Age {
    pub(super) clock: Arc<dyn Clock>,
    /// None for as old as they like.
    pub(super) most: Option<Duration>,
    /// None for as long as they take.
    pub(super) grace: Option<Duration>,
    pub(super) readiness: Arc<Readiness>,
}

impl std::fmt::Debug for Age {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut about = formatter.debug_struct("Age");
        about.field("most", &self.most).field("grace", &self.grace);
        about.finish_non_exhaustive()
    }
}

/// What a connection's calls have to know of it.
#[derive(Debug)]
pub(super) struct Farewell {
    readiness: Arc<Readiness>,
    is_http1: AtomicBool,
    is_old: AtomicBool,
    seat: Arc<Seat>,
}

impl Age {
    /// What a new connection's calls have to know of it.
    pub(super) fn farewell(&self, seat: Arc<Seat>) -> Arc<Farewell> {
        Arc::new(Farewell {
            readiness: Arc::clone(&self.readiness),
            is_http1: AtomicBool::new(false),
            is_old: AtomicBool::new(false),
            seat,
        })
    }

    /// Serves a connection until it ends, which it does in good order if it gets old, if it has to make room, or if
    /// the server `leaves`.
    pub(super) async fn serve(
        self,
        connection: impl GracefulConnection,
        farewell: Arc<Farewell>,
        mut leaves: watch::Receiver<bool>,
    ) {
        let mut connection = pin!(connection);
        let mut leaves = pin!(async move {
            // A sender that is dropped means the same as one that is used.
            let _ = leaves.wait_for(|leaves| *leaves).await;
        });
        tokio::select! {
            // A connection that breaks is its client's to notice.
            _ = connection.as_mut() => return,
            () = leaves.as_mut() => {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
                return;
            }
            () = farewell.seat.asked() => return self.make_room(connection, &farewell).await,
            () = self.passes(self.most.map(spread)) => {}
        }
        farewell.is_old.store(true, Ordering::Relaxed);
        if !farewell.is_http1.load(Ordering::Relaxed) {
            connection.as_mut().graceful_shutdown();
        }
        tokio::select! {
            _ = connection.as_mut() => return,
            () = leaves => {}
            () = farewell.seat.asked() => return self.make_room(connection, &farewell).await,
            // What is dropped ends its calls.
            () = self.passes(self.grace) => return,
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    }

    /// Ends a connection that nobody needs: what has come meanwhile is finished. A client of HTTP/2 is asked first
    /// whether it has sent anything, and may not answer.
    async fn make_room<C: GracefulConnection>(
        &self,
        mut connection: Pin<&mut C>,
        farewell: &Farewell,
    ) {
        connection.as_mut().graceful_shutdown();
        loop {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = self.passes(Some(LAST_WORD)) => {}
            }
            let is_http1 = farewell.is_http1.load(Ordering::Relaxed);
            if !is_http1 && !farewell.seat.has_calls() {
                return;
            }
        }
    }

    /// Completes after this time; never, if there is none.
    async fn passes(&self, time: Option<Duration>) {
        match time {
            Some(time) => self.clock.sleep_until(self.clock.now() + time).await,
            None => std::future::pending().await,
        }
    }
}

impl Farewell {
    /// Notes that a call came, and in which version of HTTP.
    pub(super) fn hear<B>(&self, request: Request<B>) -> Request<B> {
        self.seat.hear();
        if request.version() < Version::HTTP_2 {
            self.is_http1.store(true, Ordering::Relaxed);
        }
        request
    }

    /// Tells a client of HTTP/1 to go elsewhere with its next request, if it is time: the connection is
    /// old, or the server is about to leave.
    pub(super) fn tell<B>(&self, mut answer: Response<B>) -> Response<B> {
        if self.is_http1.load(Ordering::Relaxed)
            && (self.is_old.load(Ordering::Relaxed) || self.readiness.is_leaving())
        {
            let close = HeaderValue::from_static("close");
            answer.headers_mut().insert(CONNECTION, close);
        }
        answer
    }
}

/// A time, by chance a little shorter or longer.
fn spread(time: Duration) -> Duration {
    time.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spread_by_a_tenth() {
        let times: Vec<f64> = (0..200)
            .map(|_| spread(Duration::from_secs(100)).as_secs_f64())
            .collect();
        assert!(times.iter().all(|time| (90.0..=110.0).contains(time)));
        assert!(times.iter().any(|time| *time < 97.0) && times.iter().any(|time| *time > 103.0));
    }
}
