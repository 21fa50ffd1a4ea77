//! The batcher by example; `invariants` has its laws.

use std::time::Duration;

use super::*;

fn item(rows: usize, class: u64) -> Item {
    Item {
        rows,
        length: 1,
        class: ShapeClass(class),
        deadline: None,
        level: 0,
    }
}

fn due(rows: usize, milliseconds: u64) -> Item {
    Item {
        deadline: Some(at(milliseconds)),
        ..item(rows, 0)
    }
}

fn at(milliseconds: u64) -> Moment {
    Moment::ORIGIN + Duration::from_millis(milliseconds)
}

fn batcher(max_batch_size: usize, delay_ms: u64) -> Batcher {
    let policy = Policy {
        max_batch_size,
        max_queue_delay: Duration::from_millis(delay_ms),
        ..Policy::default()
    };
    Batcher::new(policy, &[1])
}

#[test]
fn leaves_at_once_with_what_is_there_up_to_the_cap() {
    let mut batcher = batcher(4, 0);
    let mut batch = Batch::default();
    let ids: Vec<_> = [1, 2, 3, 1]
        .iter()
        .map(|rows| batcher.admit(at(0), item(*rows, 0)).unwrap().id)
        .collect();
    assert_eq!(batcher.poll(at(0), 0, &mut batch), Step::Dispatch);
    assert_eq!((batch.members.as_slice(), batch.load.rows), (&ids[..2], 3));
    assert_eq!(batcher.poll(at(0), 0, &mut batch), Step::Dispatch);
    assert_eq!((batch.members.as_slice(), batch.load.rows), (&ids[2..], 4));
    assert_eq!(batcher.poll(at(0), 0, &mut batch), Step::Idle);
}

#[test]
fn shapes_do_not_break_each_others_batches() {
    let mut batcher = batcher(8, 0);
    let mut batch = Batch::default();
    for class in [1, 2, 1, 2, 1] {
        batcher.admit(at(0), item(1, class)).unwrap();
    }
    assert_eq!(batcher.poll(at(0), 0, &mut batch), Step::Dispatch);
    assert_eq!(batch.load.rows, 3);
    assert_eq!(batcher.poll(at(0), 0, &mut batch), Step::Dispatch);
    assert_eq!(batch.load.rows, 2);
}

#[test]
fn the_urgent_overtake_and_the_late_never_leave() {
    let mut batcher = batcher(1, 0);
    let mut batch = Batch::default();
    let relaxed = batcher.admit(at(0), due(1, 50)).unwrap().id;
    let late = batcher.admit(at(0), due(1, 5)).unwrap().id;
    let urgent = batcher.admit(at(0), due(1, 20)).unwrap().id;
    assert_eq!(batcher.poll(at(10), 0, &mut batch), Step::Dispatch);
    let expected = Duration::ZERO;
    assert_eq!(batch.late, [Late { id: late, expected }]);
    assert_eq!(batch.members, [urgent]);
    assert_eq!(batcher.poll(at(10), 0, &mut batch), Step::Dispatch);
    assert_eq!(batch.members, [relaxed]);
}

#[test]
fn an_explicit_delay_waits_until_full_or_over() {
    let mut batcher = batcher(2, 10);
    let mut batch = Batch::default();
    batcher.admit(at(0), item(1, 0)).unwrap();
    assert_eq!(batcher.poll(at(1), 0, &mut batch), Step::WaitUntil(at(10)));
    assert_eq!(batcher.poll(at(10), 0, &mut batch), Step::Dispatch);
    batcher.admit(at(20), item(1, 0)).unwrap();
    batcher.admit(at(21), item(1, 0)).unwrap();
    assert_eq!(batcher.poll(at(21), 0, &mut batch), Step::Dispatch);
    assert_eq!(batch.load.rows, 2);
}

#[test]
fn a_deadline_shortens_an_explicit_delay() {
    let mut batcher = batcher(2, 10);
    let mut batch = Batch::default();
    batcher.admit(at(0), due(1, 8)).unwrap();
    assert_eq!(batcher.poll(at(0), 0, &mut batch), Step::WaitUntil(at(4)));
    assert_eq!(batcher.poll(at(4), 0, &mut batch), Step::Dispatch);
}

#[test]
fn rows_longer_than_floats_can_count_are_reckoned_with_in_bounded_time() {
    let policy = Policy {
        max_batch_size: 64,
        // Between this and the float before it lies none, and half-way is rounded to that one.
        max_batch_tokens: (1 << 60) + (1 << 8),
        ..Policy::default()
    };
    let mut batcher = Batcher::new(policy, &[1]);
    let long = Item {
        length: 1 << 60,
        ..item(1, 0)
    };
    let load = Load {
        length: long.length,
        ..Load::of(1)
    };
    batcher.completed(at(1), 0, load, Duration::from_secs(1));
    // More than the executor can ever do, so that the largest batch is looked for.
    batcher.admit(at(2), long).unwrap();
    let mut batch = Batch::default();
    assert_eq!(batcher.poll(at(2), 0, &mut batch), Step::Dispatch);
    assert_eq!(batch.load.length, long.length);
}

#[test]
fn bounds_are_kept() {
    let policy = Policy {
        max_batch_size: 2,
        max_queue_size: 1,
        ..Policy::default()
    };
    let mut batcher = Batcher::new(policy, &[1]);
    assert_eq!(batcher.admit(at(0), item(3, 0)), Err(Rejected::Rows));
    assert_eq!(batcher.admit(at(0), item(0, 0)), Err(Rejected::Rows));
    assert_eq!(
        batcher.admit(at(5), due(1, 5)),
        Err(Rejected::Late(Duration::ZERO))
    );
    let id = batcher.admit(at(0), item(1, 0)).unwrap().id;
    assert_eq!(batcher.admit(at(0), item(1, 0)), Err(Rejected::Full));
    assert!(batcher.cancel(id));
    let again = batcher.admit(at(0), item(1, 0)).unwrap().id;
    assert_ne!(id, again);
    assert!(!batcher.cancel(id));
}
