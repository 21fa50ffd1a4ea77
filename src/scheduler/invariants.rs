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
        let (mut rows, mut work) = (0, 0);
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
            work += queued.map_or(0, |queued| queued.item.rows * queued.item.length);
        }
        assert_eq!(rows, queue.rows, "rows of a class");
        assert_eq!(work, queue.work, "work of a class");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::clock::Moment;
    use crate::scheduler::{
        Batch, Batcher, Item, ItemId, Load, Policy, Rejected, ShapeClass, Step,
    };

    /// Two groups, of which the second is slower.
    const EXECUTORS: [usize; 2] = [2, 1];
    const MARGIN: Duration = Duration::from_nanos(1);

    #[derive(Clone, Debug)]
    enum Event {
        Arrive {
            rows: usize,
            length: usize,
            class: u64,
            patience: Option<u64>,
            level: u32,
        },
        Cancel(usize),
        Pass(u64),
        ExecutorFree(usize),
        Completed(usize, usize, u64),
        Alive(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (0usize..6, 1usize..40, 0u64..3, proptest::option::of(0u64..40), 0u32..3)
                .prop_map(|(rows, length, class, patience, level)| {
                    Event::Arrive { rows, length, class, patience, level }
                }),
            1 => (0usize..64).prop_map(Event::Cancel),
            2 => (0u64..20).prop_map(Event::Pass),
            4 => (0usize..2).prop_map(Event::ExecutorFree),
            2 => (0usize..2, 1usize..8, 1u64..30)
                .prop_map(|(group, rows, took)| Event::Completed(group, rows, took)),
            1 => (0usize..3).prop_map(Event::Alive),
        ]
    }

    fn policy() -> impl Strategy<Value = Policy> {
        let lengths = prop_oneof![Just(None), Just(Some(vec![])), Just(Some(vec![4, 16, 40]))];
        let delay = prop_oneof![Just(0), 0u64..15];
        let tokens = prop_oneof![Just(usize::MAX), 1usize..200];
        (1usize..8, 1usize..20, delay, lengths, tokens, any::<bool>()).prop_map(
            |(batch, queue, delay, lengths, tokens, sizes)| Policy {
                max_batch_size: batch,
                max_batch_tokens: lengths.as_ref().map_or(usize::MAX, |_| tokens),
                batch_sizes: if sizes {
                    vec![batch.div_ceil(2), batch]
                } else {
                    vec![]
                },
                // One of length 1 stands for a model of which nothing is padded.
                lengths: lengths.unwrap_or_else(|| vec![1]),
                max_queue_size: queue,
                max_queue_delay: Duration::from_nanos(delay),
                preferred_sizes: if delay % 2 == 0 { vec![] } else { vec![3] },
                patience: Duration::from_nanos(25),
                level_step: Duration::from_nanos(30),
                margin: MARGIN,
            },
        )
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
            let admitted = batcher.admit(self.now, item);
            let passed = item.deadline.is_some_and(|deadline| deadline <= self.now);
            match admitted {
                Err(Rejected::Rows) => {
                    let tokens = item.rows * policy.run_length(item.length);
                    assert!(
                        item.rows == 0
                            || item.rows > policy.max_batch_size
                            || tokens > policy.max_batch_tokens
                    );
                }
                Err(Rejected::Full) => assert!(self.waiting.len() >= policy.max_queue_size),
                Err(Rejected::Late(expected)) => self.is_late(&item, expected),
                Ok(admitted) => {
                    assert!(!passed, "admitted late");
                    assert!(admitted.leaves >= self.now);
                    let entry = (item, self.now, self.admitted);
                    let again = self.waiting.insert(admitted.id, entry);
                    assert!(again.is_none(), "an id given twice");
                    self.admitted += 1;
                }
            }
        }

        fn is_late(&self, item: &Item, expected: Duration) {
            let deadline = item.deadline.expect("only deadlines can be missed");
            let left = deadline.since(self.now);
            assert!(
                left <= MARGIN || !expected.is_zero(),
                "condemned without a reason"
            );
        }

        fn poll(&mut self, batcher: &mut Batcher, group: usize, batch: &mut Batch) {
            let step = batcher.poll(self.now, group, batch);
            for late in &batch.late {
                let (item, ..) = self.waiting.remove(&late.id).expect("late once");
                self.is_late(&item, late.expected);
            }
            match step {
                Step::Dispatch => self.departed(batcher, batch),
                Step::Idle => assert!(self.waiting.is_empty(), "work was left waiting"),
                Step::WaitUntil(moment) => self.waits(batcher, group, moment),
            }
        }

        /// Nobody waits past the time to leave: not longer than an explicit delay, and without one
        /// not past the deadline, and not at all without a deadline.
        fn waits(&self, batcher: &mut Batcher, group: usize, moment: Moment) {
            assert!(moment > self.now);
            let delay = batcher.policy().max_queue_delay;
            if delay.is_zero() {
                let reasons = self.waiting.values().filter_map(|(item, ..)| item.deadline);
                let last = reasons.max().expect("somebody has a reason to wait");
                assert!(moment <= last);
            } else {
                assert!(moment <= self.now + delay);
            }
            // The wait ends.
            let mut again = Batch::default();
            let mut copy = batcher.clone();
            assert!(
                copy.poll(moment, group, &mut again) != Step::WaitUntil(moment),
                "waits for ever"
            );
        }

        fn departed(&mut self, batcher: &Batcher, batch: &Batch) {
            let policy = batcher.policy();
            let Load {
                class,
                rows,
                length,
            } = batch.load;
            let mut left = Vec::new();
            for id in &batch.members {
                left.push(self.waiting.remove(id).expect("leaves once"));
            }
            let members = left.iter().map(|(item, ..)| item.rows).sum::<usize>();
            assert!(members <= policy.max_batch_size, "over the cap");
            assert!(members * length <= policy.max_batch_tokens, "over the cap");
            assert_eq!(rows, policy.run_rows(members));
            let longest = left.iter().map(|(item, ..)| item.length).max();
            assert_eq!(length, policy.run_length(longest.unwrap_or(0)));
            assert_eq!(class, left[0].0.class);
            for (item, ..) in &left {
                assert_eq!(item.class, class, "strangers in a batch");
                assert!(
                    item.deadline.is_none_or(|deadline| deadline > self.now),
                    "left late"
                );
            }
            if policy.lengths == [1] {
                self.first_come(class, &left);
            }
        }

        /// Without deadlines nobody overtakes within a class and a level.
        fn first_come(&self, class: ShapeClass, left: &[(Item, Moment, u64)]) {
            for level in 0..3 {
                let plain = |item: &Item| {
                    item.class == class && item.level == level && item.deadline.is_none()
                };
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
    }

    proptest! {
        #[test]
        fn every_item_leaves_once_in_time_and_in_order(
            policy in policy(),
            events in proptest::collection::vec(event(), 0..200),
        ) {
            let mut batcher = Batcher::new(policy, &EXECUTORS);
            let mut batch = Batch::default();
            let mut oracle = Oracle { now: Moment::ORIGIN, waiting: HashMap::new(), admitted: 0 };
            for event in events {
                match event {
                    Event::Arrive { rows, length, class, patience, level } => {
                        let deadline = patience.map(|n| oracle.now + Duration::from_nanos(n));
                        let length = if batcher.policy().lengths == [1] { 1 } else { length };
                        let item = Item { rows, length, class: ShapeClass(class), deadline, level };
                        oracle.arrive(&mut batcher, item);
                    }
                    Event::Cancel(nth) => {
                        let mut ids: Vec<ItemId> = oracle.waiting.keys().copied().collect();
                        ids.sort_by_key(|id| id.slot());
                        if let Some(id) = ids.get(nth).copied() {
                            oracle.waiting.remove(&id);
                            prop_assert!(batcher.cancel(id));
                            prop_assert!(!batcher.cancel(id));
                        }
                    }
                    Event::Pass(n) => oracle.now = oracle.now + Duration::from_nanos(n),
                    Event::ExecutorFree(group) => oracle.poll(&mut batcher, group, &mut batch),
                    Event::Completed(group, rows, took) => {
                        let took = Duration::from_nanos(took * (1 + group as u64));
                        batcher.completed(oracle.now, group, Load::of(rows), took);
                    }
                    Event::Alive(executors) => batcher.set_alive(0, executors),
                }
                prop_assert_eq!(batcher.len(), oracle.waiting.len());
                batcher.check();
            }
            oracle.now = oracle.now + Duration::from_secs(100);
            while !oracle.waiting.is_empty() {
                oracle.poll(&mut batcher, 0, &mut batch);
            }
            prop_assert!(batcher.is_empty());
        }
    }
}
