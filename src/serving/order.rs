//! Answers in the order in which their requests came, for a version that wants that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::clock::{Clock, Moment};

/// Who is not answered yet, in order.
#[derive(Debug, Default)]
pub(super) struct Order {
    open: Mutex<Open>,
    /// The number of the first who is not answered.
    first: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    numbers: BTreeSet<u64>,
}

impl Order {
    /// A place behind all that were given before, and the turn that comes when all of those are left.
    pub(super) fn enter(self: &Arc<Self>) -> (Place, Turn) {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.numbers.insert(number);
        let place = || Place {
            order: Arc::clone(self),
            number,
        };
        (place(), Turn(place()))
    }

    fn leave(&self, number: u64) {
        let mut open = self.lock();
        open.numbers.remove(&number);
        let first = open.numbers.first().copied().unwrap_or(open.next);
        // Under the lock, so that it never goes back.
        self.first.send_replace(first);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request's place. It goes with the promise of an answer, not with whoever waits for that: one
/// that is not looked at any more, as behind a client that reads nothing, keeps nobody waiting once it
/// is answered. Dropping it leaves it.
#[derive(Debug)]
pub(super) struct Place {
    order: Arc<Order>,
    number: u64,
}

/// When one request's answer may leave. Dropping it gives the place up, answered or not.
#[derive(Debug)]
pub(super) struct Turn(Place);

impl Turn {
    /// Waits until everyone before has been answered, but not beyond the deadline: false then.
    pub(super) async fn comes(&self, clock: &dyn Clock, deadline: Option<Moment>) -> bool {
        let Place { order, number } = &self.0;
        let mut first = order.first.subscribe();
        // The sender lives as long as the place.
        let turn = first.wait_for(|first| first >= number);
        let Some(deadline) = deadline else {
            return turn.await.is_ok();
        };
        tokio::select! {
            biased;
            _ = turn => true,
            () = clock.sleep_until(deadline) => false,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.order.leave(self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::clock::Sleep;

    /// Time never passes, or all of it has.
    struct Over(bool);

    impl Clock for Over {
        fn now(&self) -> Moment {
            Moment::ORIGIN
        }

        fn sleep_until(&self, _: Moment) -> Sleep {
            match self.0 {
                true => Box::pin(std::future::ready(())),
                false => Box::pin(std::future::pending()),
            }
        }
    }

    fn comes(turn: &Turn, over: bool) -> Poll<bool> {
        let clock = Over(over);
        let turn = pin!(turn.comes(&clock, Some(Moment::ORIGIN)));
        turn.poll(&mut Context::from_waker(Waker::noop()))
    }

    fn is_turn(turn: &Turn) -> bool {
        comes(turn, false) == Poll::Ready(true)
    }

    #[test]
    fn whoever_came_first_goes_first() {
        let order: Arc<Order> = Arc::default();
        let [(one, first), (two, second), (three, third)] =
            [order.enter(), order.enter(), order.enter()];
        assert!(is_turn(&first) && !is_turn(&second));
        drop(two);
        assert!(is_turn(&first) && !is_turn(&second) && !is_turn(&third));
        drop(one);
        assert!(is_turn(&second) && is_turn(&third));
        drop((first, second, three, third));
        assert!(is_turn(&order.enter().1));
    }

    #[test]
    fn whoever_goes_away_gives_the_place_up() {
        let order: Arc<Order> = Arc::default();
        let (_place, first) = order.enter();
        let (_other, second) = order.enter();
        assert!(!is_turn(&second));
        drop(first);
        assert!(is_turn(&second));
    }

    #[test]
    fn nobody_waits_beyond_the_deadline() {
        let order: Arc<Order> = Arc::default();
        let (_place, first) = order.enter();
        let (_other, second) = order.enter();
        assert_eq!(comes(&second, true), Poll::Ready(false));
        assert_eq!(comes(&first, true), Poll::Ready(true));
    }
}
