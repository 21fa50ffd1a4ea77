//! Answers on their way out, of which a client may not take nothing for ever.
//!
//! HTTP/2 asks a body for more only when its client takes more, so that no body finds out by itself that
//! nobody does. It notes whom it waits for, and the task of its call looks at that.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use super::patience::{Patience, Wait};
use super::places::{Call, Seat};
use crate::telemetry::{DoorCounts, Stalled};

thread_local! {
    /// What was noted since the call on this thread was polled.
    static NOTED: Cell<Option<Awaited>> = const { Cell::new(None) };
}

/// For whom an answer waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaited {
    /// For us: there is nothing to send yet.
    Server,
    /// For its client, which has to take what was passed on.
    Client,
}

impl Awaited {
    /// Tells the task that polls this body.
    pub(super) fn note(self) {
        NOTED.set(Some(self));
    }
}

/// Runs the calls of a connection of HTTP/2, and ends those of whose answer nothing is taken for too long.
#[derive(Clone, Debug)]
pub(super) struct Courier {
    /// None for ever.
    pub(super) patience: Option<Patience>,
    pub(super) counts: Arc<DoorCounts>,
    /// The connection's.
    pub(super) seat: Arc<Seat>,
}

impl<F> Executor<F> for Courier
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, call: F) {
        tokio::spawn(Delivery {
            call,
            wait: Wait::new(self.patience.clone()),
            counts: Arc::clone(&self.counts),
            _call: self.seat.call(),
        });
    }
}

pin_project! {
    /// A call, which ends without its result when its client takes nothing of its answer: what is dropped
    /// resets its stream, and gives back all that it holds.
    struct Delivery<F> {
        #[pin]
        call: F,
        wait: Wait,
        counts: Arc<DoorCounts>,
        _call: Call,
    }
}

impl<F: Future> Future for Delivery<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        NOTED.set(None);
        if this.call.poll(context).is_ready() {
            return Poll::Ready(());
        }
        match NOTED.take() {
            Some(Awaited::Server) => this.wait.end(),
            Some(Awaited::Client) => this.wait.begin(),
            None => {}
        }
        ready!(this.wait.poll_over(context));
        this.counts.stalled(Stalled::Call);
        tracing::debug!(
            "a call is ended: its client takes nothing of its answer (write_timeout_ms)"
        );
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Mutex;
    use std::time::Duration;

    use tokio::sync::oneshot;

    use super::*;
    use crate::clock::{Clock, Moment, Sleep};

    /// A clock whose sleeps end when the test says so, and those who sleep by it.
    #[derive(Default)]
    struct Hand(Mutex<Vec<oneshot::Sender<()>>>);

    impl Hand {
        fn asleep(&self) -> Vec<oneshot::Sender<()>> {
            let mut asleep = std::mem::take(&mut *self.0.lock().unwrap());
            asleep.retain(|sleep| !sleep.is_closed());
            asleep
        }
    }

    impl Clock for Hand {
        fn now(&self) -> Moment {
            Moment::ORIGIN
        }

        fn sleep_until(&self, _: Moment) -> Sleep {
            let (wake, woken) = oneshot::channel();
            self.0.lock().unwrap().push(wake);
            Box::pin(async { woken.await.unwrap() })
        }
    }

    type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

    fn delivery(clock: &Arc<Hand>, call: Call) -> (Pin<Box<Delivery<Call>>>, Arc<DoorCounts>) {
        let counts = Arc::new(DoorCounts::default());
        let patience = Patience::new(Arc::clone(clock) as Arc<dyn Clock>, Duration::from_secs(1));
        let wait = Wait::new(Some(patience));
        let told = Arc::clone(&counts);
        let delivery = Delivery {
            call,
            wait,
            counts,
            _call: Arc::<Seat>::default().call(),
        };
        (Box::pin(delivery), told)
    }

    /// A call that never ends, and notes what it is told to.
    fn noting(notes: impl IntoIterator<Item = Option<Awaited>, IntoIter: Send + 'static>) -> Call {
        let mut notes = notes.into_iter();
        Box::pin(poll_fn(move |_| {
            if let Some(note) = notes.next().flatten() {
                note.note();
            }
            Poll::Pending
        }))
    }

    fn poll(delivery: &mut Pin<Box<Delivery<Call>>>) -> Poll<()> {
        delivery
            .as_mut()
            .poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[test]
    fn who_takes_something_has_all_the_time_again() {
        let clock = Arc::new(Hand::default());
        let client = Some(Awaited::Client);
        let (mut delivery, counts) = delivery(&clock, noting([None, client, None, client, None]));
        assert!(poll(&mut delivery).is_pending());
        assert!(clock.asleep().is_empty());
        assert!(poll(&mut delivery).is_pending());
        let first = clock.asleep();
        assert_eq!(first.len(), 1);
        assert!(poll(&mut delivery).is_pending());
        assert!(clock.asleep().is_empty(), "it goes on waiting");
        assert!(poll(&mut delivery).is_pending());
        assert!(first[0].is_closed(), "it waits anew");
        clock.asleep().pop().unwrap().send(()).unwrap();
        assert_eq!(counts.stalls(Stalled::Call), 0);
        assert!(poll(&mut delivery).is_ready());
        assert_eq!(counts.stalls(Stalled::Call), 1);
    }

    #[test]
    fn who_waits_for_us_may_wait() {
        let clock = Arc::new(Hand::default());
        let notes = [Some(Awaited::Client), Some(Awaited::Server), None];
        let (mut delivery, _) = delivery(&clock, noting(notes));
        assert!(poll(&mut delivery).is_pending());
        let sleep = clock.asleep().pop().unwrap();
        for _ in 0..2 {
            assert!(poll(&mut delivery).is_pending());
            assert!(sleep.is_closed() && clock.asleep().is_empty());
        }
    }
}
