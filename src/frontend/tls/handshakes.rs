//! Handshakes in progress: when there are too many the oldest ends. Those of clients that mean it are done
//! within a few round trips, so that whoever opens many and leaves them so pushes out its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

#[derive(Debug, Default)]
struct Running {
    begun: u64,
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

/// Handshakes in progress.
#[derive(Debug)]
pub(super) struct Handshakes {
    most: usize,
    running: Arc<Mutex<Running>>,
}

impl Handshakes {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most: most.max(1),
            running: Arc::default(),
        }
    }

    /// A place for one more, and what completes when it has to make room.
    pub(super) fn begin(&self) -> (Place, oneshot::Receiver<()>) {
        let (ends, ended) = oneshot::channel();
        let mut running = locked(&self.running);
        while running.by_age.len() >= self.most {
            // What is dropped tells the other side.
            running.by_age.pop_first();
        }
        running.begun += 1;
        let number = running.begun;
        running.by_age.insert(number, ends);
        let place = Place {
            number,
            running: Arc::clone(&self.running),
        };
        (place, ended)
    }
}

/// One handshake's place.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    running: Arc<Mutex<Running>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        locked(&self.running).by_age.remove(&self.number);
    }
}

fn locked(running: &Mutex<Running>) -> MutexGuard<'_, Running> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_and_who_is_done_has_made_it() {
        let handshakes = Handshakes::new(2);
        let (_first, mut first_ends) = handshakes.begin();
        let (second, _) = handshakes.begin();
        drop(second);
        let (_third, mut third_ends) = handshakes.begin();
        let open = oneshot::error::TryRecvError::Empty;
        assert_eq!(first_ends.try_recv(), Err(open.clone()));
        let (_fourth, mut fourth_ends) = handshakes.begin();
        assert_eq!(
            first_ends.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
        assert_eq!(third_ends.try_recv(), Err(open.clone()));
        assert_eq!(fourth_ends.try_recv(), Err(open));
        assert_eq!(locked(&handshakes.running).by_age.len(), 2);
    }
}
