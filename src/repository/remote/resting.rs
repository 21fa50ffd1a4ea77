//! Tells a version that rests from one that is still being uploaded.
//!
//! A store shows objects one by one as they arrive, and nothing says which is the last. What was the
//! same in two looks, far enough apart, is taken for whole; until then what rested before counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::object::{Object, Unit};
use crate::clock::Moment;

/// What a store's clock may be ahead of this machine's.
const SKEW: Duration = Duration::from_secs(60);

/// When a look was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// By the clock that decides.
    pub(super) now: Moment,
    /// By the wall: nanoseconds since the Unix epoch, to compare with the store's.
    pub(super) wall: u64,
    /// How long objects have to stay the same.
    pub(super) rest: Duration,
}

/// One unit of a model: what was seen last, and what rested.
#[derive(Debug)]
struct Seen {
    objects: Vec<Object>,
    since: Moment,
    resting: Option<Vec<Object>>,
}

/// The units of a model over many looks.
#[derive(Debug, Default)]
pub(super) struct Units(BTreeMap<Unit, Seen>);

impl Units {
    /// Units that were taken before this process began.
    pub(super) fn remembered(objects: &[Object], now: Moment) -> Self {
        let mut units: BTreeMap<Unit, Vec<Object>> = BTreeMap::new();
        for object in objects {
            units.entry(object.unit()).or_default().push(object.clone());
        }
        let seen = |objects: Vec<Object>| Seen {
            since: now,
            resting: Some(objects.clone()),
            objects,
        };
        let units = units.into_iter();
        Self(units.map(|(unit, objects)| (unit, seen(objects))).collect())
    }

    /// Takes in what a look found.
    pub(super) fn look(&mut self, look: Look, mut found: BTreeMap<Unit, Vec<Object>>) {
        let known: BTreeSet<Unit> = self.0.keys().chain(found.keys()).copied().collect();
        for unit in known {
            let objects = found.remove(&unit).unwrap_or_default();
            match self.0.get_mut(&unit) {
                None => drop(self.0.insert(unit, first_seen(look, objects))),
                Some(seen) if seen.objects != objects => {
                    seen.objects = objects;
                    seen.since = look.now;
                }
                Some(seen) if look.now - seen.since >= look.rest => {
                    seen.resting = Some(objects);
                }
                Some(_) => {}
            }
        }
        // What has gone, and was gone for long enough, leaves no trace.
        self.0
            .retain(|_, seen| seen.resting.as_ref().is_none_or(|rest| !rest.is_empty()));
    }

    /// What may be taken: everything that rests, if a version and what is beside the versions do.
    pub(super) fn resting(&self) -> Option<Vec<Object>> {
        let root_rests = self
            .0
            .get(&Unit::Root)
            .is_none_or(|root| root.resting.is_some());
        let mut versions = self.0.iter().filter(|(unit, _)| **unit != Unit::Root);
        let any = versions.any(|(_, seen)| seen.resting.is_some());
        (root_rests && any).then(|| {
            let resting = self.0.values().filter_map(|seen| seen.resting.as_deref());
            resting.flatten().cloned().collect()
        })
    }

    /// Whether nothing is on its way.
    pub(super) fn all_rest(&self) -> bool {
        self.0
            .values()
            .all(|seen| seen.resting.as_ref() == Some(&seen.objects))
    }

    /// Whether nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_empty()
    }
}

// What was there long before the first look rests already, whatever the two clocks think of each other.
fn first_seen(look: Look, objects: Vec<Object>) -> Seen {
    let newest = objects.iter().map(|object| object.modified).max();
    let newest = Duration::from_nanos(newest.map_or(0, i64::unsigned_abs));
    let old = newest + look.rest + SKEW <= Duration::from_nanos(look.wall);
    Seen {
        resting: old.then(|| objects.clone()),
        objects,
        since: look.now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const LATE: i64 = 1_000_000 * SECOND as i64;

    fn look(second: u64) -> Look {
        Look {
            now: Moment::from_nanos(second * SECOND),
            wall: LATE as u64 + second * SECOND,
            rest: Duration::from_secs(5),
        }
    }

    fn object(path: &str, e_tag: &str) -> Object {
        Object {
            path: path.to_owned(),
            size: 1,
            e_tag: Some(e_tag.to_owned()),
            modified: LATE,
        }
    }

    fn units(objects: &[Object]) -> BTreeMap<Unit, Vec<Object>> {
        let mut units: BTreeMap<Unit, Vec<Object>> = BTreeMap::new();
        for object in objects {
            units.entry(object.unit()).or_default().push(object.clone());
        }
        units
    }

    fn model() -> Object {
        object("1/model.onnx", "a")
    }

    #[test]
    fn what_stayed_the_same_for_long_enough_rests() {
        let mut seen = Units::default();
        for second in [0, 2, 4] {
            seen.look(look(second), units(&[model()]));
            assert_eq!(seen.resting(), None, "{second}");
        }
        seen.look(look(6), units(&[model()]));
        assert_eq!(seen.resting(), Some(vec![model()]));
    }

    #[test]
    fn a_version_that_grows_does_not_rest_and_its_neighbour_does() {
        let mut seen = Units::default();
        let mut there = vec![model()];
        for second in 0..10 {
            there.push(object(&format!("2/part{second}"), "p"));
            seen.look(look(second), units(&there));
        }
        assert_eq!(seen.resting(), Some(vec![model()]));
        assert!(!seen.all_rest());
        seen.look(look(14), units(&there));
        assert_eq!(seen.resting(), Some(there));
        assert!(seen.all_rest());
    }

    #[test]
    fn what_is_overwritten_counts_as_it_was_until_it_rests() {
        let mut seen = Units::default();
        seen.look(look(0), units(&[model()]));
        seen.look(look(5), units(&[model()]));
        let new = object("1/model.onnx", "b");
        seen.look(look(6), units(std::slice::from_ref(&new)));
        assert_eq!(seen.resting(), Some(vec![model()]));
        seen.look(look(11), units(std::slice::from_ref(&new)));
        assert_eq!(seen.resting(), Some(vec![new]));
    }

    #[test]
    fn a_configuration_on_its_way_holds_a_new_model_back() {
        let mut seen = Units::default();
        seen.look(look(0), units(&[model()]));
        let both = [model(), object("model.toml", "t")];
        seen.look(look(5), units(&both));
        assert_eq!(seen.resting(), None);
        seen.look(look(10), units(&both));
        assert_eq!(seen.resting().map(|objects| objects.len()), Some(2));
    }

    #[test]
    fn what_goes_is_gone_when_it_has_been_for_long_enough() {
        let mut seen = Units::default();
        seen.look(look(0), units(&[model()]));
        seen.look(look(5), units(&[model()]));
        seen.look(look(6), units(&[]));
        assert!(!seen.is_gone());
        assert_eq!(seen.resting(), Some(vec![model()]));
        seen.look(look(11), units(&[]));
        assert!(seen.is_gone());
    }

    #[test]
    fn what_is_old_at_the_first_look_rests_whatever_the_clocks_say() {
        let mut seen = Units::default();
        seen.look(look(64), units(&[model()]));
        assert_eq!(seen.resting(), None);
        let mut seen = Units::default();
        seen.look(look(65), units(&[model()]));
        assert_eq!(seen.resting(), Some(vec![model()]));
        // Not so later: a version that is being deleted is as old as what is left of it.
        let left = [model(), object("1/weights", "w")];
        let mut seen = Units::default();
        seen.look(look(65), units(&left));
        seen.look(look(66), units(&[model()]));
        assert_eq!(seen.resting(), Some(left.to_vec()));
    }

    #[test]
    fn what_is_remembered_rests_until_a_look_says_otherwise() {
        let mut seen = Units::remembered(&[model()], Moment::ORIGIN);
        assert_eq!(seen.resting(), Some(vec![model()]));
        seen.look(look(1), units(&[]));
        assert_eq!(seen.resting(), Some(vec![model()]));
        seen.look(look(6), units(&[]));
        assert!(seen.is_gone());
    }
}
