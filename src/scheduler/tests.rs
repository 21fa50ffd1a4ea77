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
fn who_travels_has_time_to_spare_while_more_arrives_than_can_be_served() {
    let mut batcher = batcher(8, 0);
    let mut batch = Batch::default();
    let took = Duration::from_millis(160);
    batcher.seed(0, Load::of(8), took);
    let (mut served, mut refused) = (0, 0);
    for now in (2..=16_000).step_by(2) {
        batcher.admit(at(now), due(1, now + 500)).unwrap();
        if now % 160 != 0 {
            continue;
        }
        // Those who travel are as many as ever, whoever is refused for that.
        assert_eq!(batcher.poll(at(now), 0, &mut batch), Step::Dispatch);
        (served, refused) = (served + batch.members.len(), refused + batch.late.len());
        batcher.completed(at(now) + took, 0, batch.load, took);
    }
    assert_eq!(served, 8 * 100);
    // 80 arrive while 8 are served. They wait 276 ms: an eighth of 500 is left at the end of a batch that
    // takes a bit longer than is expected. Who is there at the end waits no longer.
    let waiting = batcher.len();
    assert_eq!(served + refused + waiting, 8_000);
    assert!((100..=139).contains(&waiting), "{waiting}");
}

#[test]
fn no_more_is_spared_than_a_way_can_take() {
    let mut batcher = batcher(8, 0);
    let mut batch = Batch::default();
    batcher.seed(0, Load::of(8), Duration::from_millis(160));
    for now in 0..200 {
        batcher.admit(at(now), due(1, now + 10_000)).unwrap();
    }
    // An eighth is 1250 ms, of which the first has 1000 at the end.
    batcher.traffic.arrived(at(8_840), &due(1_000, 20_000));
    assert_eq!(batcher.poll(at(8_840), 0, &mut batch), Step::Dispatch);
    assert_eq!((batch.members.len(), batch.late.len()), (8, 0));
}

#[test]
fn nobody_is_refused_for_time_to_spare_while_all_can_be_served() {
    let mut batcher = batcher(8, 0);
    let mut batch = Batch::default();
    batcher.seed(0, Load::of(8), Duration::from_millis(160));
    // Ten a second, and nothing ran for a while.
    for now in (0..4_000).step_by(100) {
        batcher.admit(at(now), due(1, now + 4_300)).unwrap();
    }
    assert_eq!(batcher.poll(at(4_040), 0, &mut batch), Step::Dispatch);
    assert_eq!((batch.members.len(), batch.late.len()), (8, 0));
}

#[test]
fn who_brought_little_time_and_hardly_waited_travels() {
    let mut batcher = batcher(8, 0);
    let mut batch = Batch::default();
    batcher.seed(0, Load::of(8), Duration::from_millis(160));
    for _ in 0..100 {
        batcher.admit(at(0), due(1, 2_000)).unwrap();
    }
    // An eighth is 21 ms, of which 10 are left.
    let urgent = batcher.admit(at(0), due(1, 172)).unwrap().id;
    assert_eq!(batcher.poll(at(2), 0, &mut batch), Step::Dispatch);
    assert_eq!(
        (batch.members.first(), batch.late.len()),
        (Some(&urgent), 0)
    );
}

#[test]
fn no_batch_is_smaller_for_time_to_spare() {
    let mut batcher = batcher(8, 0);
    let mut batch = Batch::default();
    batcher.seed(0, Load::of(8), Duration::from_millis(160));
    for now in 1..=8 {
        batcher.admit(at(now), due(1, now + 220)).unwrap();
    }
    assert_eq!(batcher.poll(at(45), 0, &mut batch), Step::Dispatch);
    assert_eq!((batch.members.len(), batch.late.len()), (8, 0));
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
