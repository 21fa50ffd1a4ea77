//! Answers in the order in which their requests came, for a version that wants that.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

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
    /// A place behind all that were given before. Dropping it gives it up.
    pub(super) fn enter(self: &Arc<Self>) -> Place {
        let mut open = self.lock();
        let number = open.next;
        open.next += 1;
        open.numbers.insert(number);
        Place {
            order: Arc::clone(self),
            number,
        }
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

/// One request's place.
#[derive(Debug)]
pub(super) struct Place {
    order: Arc<Order>,
    number: u64,
}

impl Place {
    /// Waits until everyone before has been answered.
    pub(super) async fn turn(&self) {
        let mut first = self.order.first.subscribe();
        // The sender lives as long as the place.
        let _ = first.wait_for(|first| *first >= self.number).await;
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
    use std::task::{Context, Waker};

    use super::*;

    fn is_turn(place: &Place) -> bool {
        let turn = pin!(place.turn());
        turn.poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
    }

    #[test]
    fn whoever_came_first_goes_first() {
        let order: Arc<Order> = Arc::default();
        let (first, second, third) = (order.enter(), order.enter(), order.enter());
        assert!(is_turn(&first) && !is_turn(&second));
        drop(second);
        assert!(!is_turn(&third));
        drop(first);
        assert!(is_turn(&third));
        drop(third);
        assert!(is_turn(&order.enter()));
    }
}
