use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::tensor::{Dtype, Shape};

const IDLE: Duration = Duration::from_secs(1);

fn table(sequences: usize, waiting: usize) -> Table {
    Table::new(Bounds {
        sequences,
        waiting,
        idle: IDLE,
    })
}

fn at(milliseconds: u64) -> Moment {
    Moment::ORIGIN + Duration::from_millis(milliseconds)
}

fn id(number: u64) -> CorrelationId {
    CorrelationId::Number(number)
}

/// A state of one number.
fn state(number: u64) -> Vec<Tensor> {
    vec![Tensor {
        dtype: Dtype::Uint64,
        shape: Shape::new(&[1]),
        data: Bytes::copy_from_slice(&number.to_le_bytes()),
    }]
}

fn number(states: &[Tensor]) -> u64 {
    u64::from_le_bytes(states[0].data[..].try_into().unwrap())
}

/// One request that succeeds at once and adds one to what was kept. Gives the sum.
fn count(table: &mut Table, now: Moment, id: &CorrelationId, start: bool, end: bool) -> u64 {
    let Entered { number: own, wait } = table.enter(now, id, start).unwrap();
    let Wait::Over(states) = wait else {
        panic!("{id} has to wait");
    };
    let sum = states.map_or(0, |states| number(&states)) + 1;
    table.finish(now, id, own, (!end).then(|| state(sum)));
    sum
}

fn waits(
    table: &mut Table,
    now: Moment,
    number: u64,
    start: bool,
) -> (u64, oneshot::Receiver<Granted>) {
    let Entered { number, wait } = table.enter(now, &id(number), start).unwrap();
    match wait {
        Wait::For(granted) => (number, granted),
        Wait::Over(_) => panic!("it is its turn at once"),
    }
}

fn is_empty(table: &Table) -> bool {
    table.records.is_empty()
        && table.idle.is_empty()
        && table.backlog.is_empty()
        && (table.placed, table.waiting) == (0, 0)
}

#[test]
fn a_million_requests_of_a_thousand_sequences_leave_nothing_behind() {
    let mut table = table(1000, 0);
    for request in 0..1_000_000_u64 {
        let (round, own) = (request / 1000, request % 1000);
        // Each tenth of the sequences never ends, but falls silent.
        let silent = own % 10 == 0;
        let now = Moment::from_nanos(request * 1000);
        let length = round % 8;
        let (start, end) = (length == 0, length == 7 && !silent);
        let sum = count(&mut table, now, &id(own + 1), start, end);
        assert_eq!(sum, length + 1);
        assert!(table.live() <= 1000 && table.records.len() <= 1000 && table.idle.len() <= 1000);
    }
    assert_eq!(table.live(), 100);
    table.expire(at(1000) + IDLE);
    assert!(is_empty(&table));
}

#[test]
fn one_request_of_a_sequence_is_under_way_in_the_order_of_arrival() {
    let mut table = table(2, 8);
    let first = table.enter(at(0), &id(1), true).unwrap();
    let (second, mut second_turn) = waits(&mut table, at(0), 1, false);
    let (third, mut third_turn) = waits(&mut table, at(0), 1, false);
    table.finish(at(1), &id(1), first.number, Some(state(5)));
    assert!(third_turn.try_recv().is_err());
    let granted = second_turn.try_recv().unwrap().unwrap().unwrap();
    assert_eq!(number(&granted), 5);
    // Fails, and leaves the state as it was.
    table.leave(at(2), &id(1), second);
    let granted = third_turn.try_recv().unwrap().unwrap().unwrap();
    assert_eq!(number(&granted), 5);
    table.finish(at(3), &id(1), third, None);
    assert!(is_empty(&table));
    assert_eq!(
        table.enter(at(4), &id(1), false).unwrap_err(),
        Refused::NotStarted
    );
}

#[test]
fn a_client_that_goes_away_holds_nobody_up() {
    let mut table = table(1, 8);
    let first = table.enter(at(0), &id(1), true).unwrap();
    let (second, second_turn) = waits(&mut table, at(0), 1, false);
    let (_, mut third_turn) = waits(&mut table, at(0), 1, false);
    let (fourth, fourth_turn) = waits(&mut table, at(0), 2, true);
    let (_, mut fifth_turn) = waits(&mut table, at(0), 3, true);
    // The second leaves after it has gone, the fourth before.
    drop(second_turn);
    drop(fourth_turn);
    table.leave(at(0), &id(2), fourth);
    table.finish(at(1), &id(1), first.number, Some(state(1)));
    table.leave(at(1), &id(1), second);
    assert!(third_turn.try_recv().unwrap().unwrap().is_some());
    assert!(fifth_turn.try_recv().is_err());
    assert_eq!(table.waiting, 1);
}

#[test]
fn a_sequence_that_did_not_begin_has_no_second_request() {
    let mut table = table(1, 8);
    let first = table.enter(at(0), &id(1), true).unwrap();
    let (_, mut second) = waits(&mut table, at(0), 1, false);
    let (_, mut again) = waits(&mut table, at(0), 1, true);
    table.leave(at(1), &id(1), first.number);
    assert_eq!(second.try_recv().unwrap().unwrap_err(), Refused::NotStarted);
    assert_eq!(again.try_recv().unwrap().unwrap(), None);
}

#[test]
fn to_start_is_to_start_anew() {
    let mut table = table(1, 0);
    assert_eq!(count(&mut table, at(0), &id(1), true, false), 1);
    assert_eq!(count(&mut table, at(0), &id(1), false, false), 2);
    assert_eq!(count(&mut table, at(0), &id(1), true, false), 1);
    // One that fails to has changed nothing.
    let entered = table.enter(at(0), &id(1), true).unwrap();
    table.leave(at(0), &id(1), entered.number);
    assert_eq!(count(&mut table, at(0), &id(1), false, true), 2);
    assert!(is_empty(&table));
}

#[test]
fn who_finds_no_place_waits_for_an_end_or_for_silence() {
    let mut table = table(1, 2);
    count(&mut table, at(0), &id(1), true, false);
    let (second, mut second_turn) = waits(&mut table, at(500), 2, true);
    assert_eq!(table.look_again(at(500)), Some(at(1000)));
    let (_, mut third_turn) = waits(&mut table, at(500), 3, true);
    assert_eq!(
        table.enter(at(500), &id(4), true).unwrap_err(),
        Refused::Full
    );
    table.expire(at(999));
    assert!(second_turn.try_recv().is_err());
    table.expire(at(1000));
    assert_eq!(second_turn.try_recv().unwrap(), Ok(None));
    // Nobody is idle: none can be for too long before this.
    assert_eq!(table.look_again(at(1100)), Some(at(2100)));
    table.finish(at(1200), &id(2), second, None);
    assert_eq!(third_turn.try_recv().unwrap(), Ok(None));
}

#[test]
fn an_id_that_is_used_again_waits_like_another() {
    let mut table = table(1, 4);
    let first = table.enter(at(0), &id(1), true).unwrap();
    let (_, mut again) = waits(&mut table, at(0), 1, true);
    let (other, mut other_turn) = waits(&mut table, at(0), 2, true);
    table.finish(at(1), &id(1), first.number, None);
    assert_eq!(other_turn.try_recv().unwrap(), Ok(None));
    assert!(again.try_recv().is_err());
    table.finish(at(2), &id(2), other, None);
    assert_eq!(again.try_recv().unwrap(), Ok(None));
}

#[test]
fn closing_tells_everyone() {
    let mut table = table(1, 4);
    let first = table.enter(at(0), &id(1), true).unwrap();
    let (second, mut second_turn) = waits(&mut table, at(0), 1, false);
    table.close();
    assert_eq!(
        second_turn.try_recv(),
        Err(oneshot::error::TryRecvError::Closed)
    );
    table.leave(at(1), &id(1), second);
    table.finish(at(1), &id(1), first.number, Some(state(1)));
    assert!(is_empty(&table));
    assert_eq!(
        table.enter(at(1), &id(1), true).unwrap_err(),
        Refused::Closed
    );
}

/// What a client of the property test does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Enter { id: u64, start: bool },
    Finish { which: usize, end: bool },
    Leave { which: usize },
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1..6_u64, any::<bool>()).prop_map(|(id, start)| Act::Enter { id, start }),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(which, end)| Act::Finish { which, end }),
        1 => any::<usize>().prop_map(|which| Act::Leave { which }),
        1 => (0..1500_u64).prop_map(Act::Pass),
    ]
}

proptest! {
    #[test]
    fn places_and_turns_add_up(acts in prop::collection::vec(act(), 0..200)) {
        let mut table = table(2, 5);
        let mut now = 0;
        let mut inside: Vec<(u64, u64, Option<oneshot::Receiver<Granted>>)> = Vec::new();
        for act in acts {
            match act {
                Act::Enter { id: own, start } => {
                    if let Ok(entered) = table.enter(at(now), &id(own), start) {
                        let receiver = match entered.wait {
                            Wait::Over(_) => None,
                            Wait::For(receiver) => Some(receiver),
                        };
                        inside.push((own, entered.number, receiver));
                    }
                }
                Act::Finish { which, end } => {
                    let turns = inside.iter().enumerate().filter(|(_, one)| one.2.is_none());
                    let turns: Vec<usize> = turns.map(|(index, _)| index).collect();
                    if let Some(index) = turns.get(which % turns.len().max(1)) {
                        let (own, number, _) = inside.remove(*index);
                        table.finish(at(now), &id(own), number, (!end).then(|| state(1)));
                    }
                }
                Act::Leave { which } => {
                    if !inside.is_empty() {
                        let (own, number, receiver) = inside.remove(which % inside.len());
                        drop(receiver);
                        table.leave(at(now), &id(own), number);
                    }
                }
                Act::Pass(milliseconds) => {
                    now += milliseconds;
                    table.expire(at(now));
                }
            }
            inside.retain_mut(|(_, _, receiver)| {
                let Some(waits) = receiver else { return true };
                match waits.try_recv() {
                    Err(_) => true,
                    Ok(granted) => {
                        *receiver = None;
                        granted.is_ok()
                    }
                }
            });
            let records = table.records.values();
            prop_assert_eq!(table.placed, records.clone().filter(|record| record.placed).count());
            prop_assert!(table.placed <= 2 && (table.backlog.is_empty() || table.placed == 2));
            let waiting: usize = records.clone().map(|record| record.queue.len()).sum();
            prop_assert_eq!(table.waiting, waiting);
            prop_assert_eq!(waiting, inside.iter().filter(|one| one.2.is_some()).count());
            for own in 1..6 {
                let turns = inside.iter().filter(|one| one.0 == own && one.2.is_none());
                let holder = table.records.get(&id(own)).and_then(|record| record.holder);
                prop_assert_eq!(turns.map(|one| one.1).collect::<Vec<_>>(), Vec::from_iter(holder));
            }
        }
        for (own, number, _) in inside {
            table.leave(at(now), &id(own), number);
        }
        table.expire(at(now) + IDLE);
        prop_assert!(is_empty(&table));
    }
}
