//! What must hold of a batcher after every call. Checked in debug builds, tests and simulation.

use super::batcher::Batcher;

impl Batcher {
    /// Checks every invariant in debug builds; nothing in release builds.
    pub(super) fn debug_check(&self) {
        if cfg!(debug_assertions) {
            self.check();
        }
    }

    /// Panics if an invariant does not hold: that is a bug of ours, whatever the caller did.
    pub fn check(&self) {
        assert!(
            self.len() <= self.policy().max_queue_size,
            "more items than the bound"
        );
        let mut items = 0;
        let mut heads = 0;
        for queue in &self.classes {
            items += queue.len();
            if let Some((rank, _)) = queue.head() {
                heads += 1;
                assert!(
                    self.heads.contains(&(rank, queue.class)),
                    "a class whose head is not noted"
                );
            }
            self.check_class(queue);
        }
        assert_eq!(items, self.len(), "items in classes");
        assert_eq!(heads, self.heads.len(), "heads noted");
    }

    fn check_class(&self, queue: &super::class::ClassQueue) {
        let mut rows = 0;
        let head = queue.head().map(|(rank, _)| rank);
        for (position, rank, id) in queue.members() {
            let queued = self.slots.get(id);
            assert!(
                queued.is_some_and(|queued| queued.position == position
                    && queued.rank == rank
                    && queued.item.class == queue.class),
                "a member that its slot does not know"
            );
            assert!(head <= Some(rank), "a head that is not the first");
            rows += queued.map_or(0, |queued| queued.item.rows);
        }
        assert_eq!(rows, queue.rows, "rows of a class");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::clock::Moment;
    use crate::scheduler::{Batch, Batcher, Item, ItemId, Policy, Rejected, ShapeClass, Step};

    #[derive(Clone, Debug)]
    enum Event {
        Arrive {
            rows: usize,
            class: u64,
            patience: Option<u64>,
        },
        Cancel(usize),
        Pass(u64),
        ExecutorFree,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (0usize..6, 0u64..3, proptest::option::of(0u64..40))
                .prop_map(|(rows, class, patience)| Event::Arrive { rows, class, patience }),
            1 => (0usize..64).prop_map(Event::Cancel),
            2 => (0u64..20).prop_map(Event::Pass),
            3 => Just(Event::ExecutorFree),
        ]
    }

    fn policy() -> impl Strategy<Value = Policy> {
        (1usize..8, 1usize..20, 0u64..15).prop_map(|(batch, queue, delay)| Policy {
            max_batch_size: batch,
            max_queue_size: queue,
            max_queue_delay: Duration::from_nanos(delay),
            patience: Duration::from_nanos(25),
        })
    }

    /// A model too simple to be wrong: who is waiting, and since when.
    struct Oracle {
        now: Moment,
        waiting: HashMap<ItemId, (Item, Moment, u64)>,
        admitted: u64,
    }

    impl Oracle {
        fn arrive(&mut self, batcher: &mut Batcher, item: Item) {
            let policy = batcher.policy().clone();
            let expected = if self.waiting.len() >= policy.max_queue_size {
                Err(Rejected::Full)
            } else if item.rows == 0 || item.rows > policy.max_batch_size {
                Err(Rejected::Rows)
            } else if item.deadline.is_some_and(|deadline| deadline <= self.now) {
                Err(Rejected::Late)
            } else {
                Ok(())
            };
            let admitted = batcher.admit(self.now, item);
            assert_eq!(admitted.map(|_| ()), expected);
            if let Ok(id) = admitted {
                let again = self.waiting.insert(id, (item, self.now, self.admitted));
                assert!(again.is_none(), "an id given twice");
                self.admitted += 1;
            }
        }

        fn poll(&mut self, batcher: &mut Batcher, batch: &mut Batch) {
            let step = batcher.poll(self.now, batch);
            for id in &batch.expired {
                let (item, ..) = self.waiting.remove(id).expect("expired once");
                assert!(item.deadline.expect("has a deadline") <= self.now);
            }
            match step {
                Step::Dispatch => self.departed(batcher, batch),
                Step::Idle => assert!(self.waiting.is_empty(), "work was left waiting"),
                Step::WaitUntil(moment) => {
                    assert!(batch.members.is_empty());
                    assert!(moment > self.now);
                    assert!(
                        !batcher.policy().max_queue_delay.is_zero(),
                        "waits without reason"
                    );
                    assert!(moment <= self.now + batcher.policy().max_queue_delay);
                }
            }
        }

        fn departed(&mut self, batcher: &Batcher, batch: &Batch) {
            assert!(
                batch.rows <= batcher.policy().max_batch_size,
                "over the cap"
            );
            let mut left = Vec::new();
            for id in &batch.members {
                left.push(self.waiting.remove(id).expect("leaves once"));
            }
            assert_eq!(
                batch.rows,
                left.iter().map(|(item, ..)| item.rows).sum::<usize>()
            );
            let class = left[0].0.class;
            for (item, ..) in &left {
                assert_eq!(item.class, class, "strangers in a batch");
                assert!(
                    item.deadline.is_none_or(|deadline| deadline > self.now),
                    "left late"
                );
            }
            self.first_come(class, &left);
        }

        /// Without deadlines nobody overtakes within a class.
        fn first_come(&self, class: ShapeClass, left: &[(Item, Moment, u64)]) {
            let plain = |item: &Item| item.class == class && item.deadline.is_none();
            let last = left
                .iter()
                .filter(|(item, ..)| plain(item))
                .map(|(.., n)| *n)
                .max();
            let first = self
                .waiting
                .values()
                .filter(|(item, ..)| plain(item))
                .map(|(.., n)| *n)
                .min();
            if let (Some(last), Some(first)) = (last, first) {
                assert!(last < first, "overtaken");
            }
        }
    }

    proptest! {
        #[test]
        fn every_item_leaves_once_in_time_and_in_order(
            policy in policy(),
            events in proptest::collection::vec(event(), 0..200),
        ) {
            let mut batcher = Batcher::new(policy);
            let mut batch = Batch::default();
            let mut oracle = Oracle { now: Moment::ORIGIN, waiting: HashMap::new(), admitted: 0 };
            for event in events {
                match event {
                    Event::Arrive { rows, class, patience } => {
                        let deadline = patience.map(|n| oracle.now + Duration::from_nanos(n));
                        let item = Item { rows, class: ShapeClass(class), deadline };
                        oracle.arrive(&mut batcher, item);
                    }
                    Event::Cancel(nth) => {
                        if let Some(id) = oracle.waiting.keys().copied().nth(nth) {
                            oracle.waiting.remove(&id);
                            prop_assert!(batcher.cancel(id));
                            prop_assert!(!batcher.cancel(id));
                        }
                    }
                    Event::Pass(n) => oracle.now = oracle.now + Duration::from_nanos(n),
                    Event::ExecutorFree => oracle.poll(&mut batcher, &mut batch),
                }
                prop_assert_eq!(batcher.len(), oracle.waiting.len());
                batcher.check();
            }
            oracle.now = oracle.now + Duration::from_secs(1);
            while !oracle.waiting.is_empty() {
                oracle.poll(&mut batcher, &mut batch);
            }
            prop_assert!(batcher.is_empty());
        }
    }
}
