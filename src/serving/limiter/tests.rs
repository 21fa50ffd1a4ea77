use super::*;
use crate::model::NeededResource;

/// One device that all of these are on, and another.
const HERE: DeviceId = DeviceId::Simulated(0);
const THERE: DeviceId = DeviceId::Simulated(1);

impl Limiter {
    /// Nobody has what is not there.
    pub(in crate::serving) fn check(&self) {
        let book = self.book();
        for need in book.members.iter().flat_map(|member| &member.needs) {
            let most = need.offered.unwrap_or(book.most(&need.resource));
            let taken = book.taken(&need.resource);
            assert!(taken <= most, "{taken} of {most}: {:?}", need.resource);
        }
    }

    /// Nobody has anything, and nobody waits.
    pub(in crate::serving) fn check_idle(&self) {
        for member in &self.book().members {
            assert_eq!((member.running, member.waits), (0, None), "{member:?}");
        }
    }
}

fn offered(name: &str, count: u32, device: Option<DeviceChoice>) -> OfferedResource {
    let name = name.to_owned();
    OfferedResource {
        name,
        count,
        device,
    }
}

fn group(resources: &[(&str, u32)], priority: u32) -> InstanceGroup {
    let needed = |(name, count): &(&str, u32)| NeededResource {
        name: (*name).to_owned(),
        count: *count,
        global: false,
    };
    InstanceGroup {
        resources: resources.iter().map(needed).collect(),
        priority,
        ..InstanceGroup::default()
    }
}

fn join(limiter: &Arc<Limiter>, resources: &[(&str, u32)], priority: u32) -> Arc<Stake> {
    let stake = limiter.join(HERE, &group(resources, priority));
    stake.unwrap().unwrap()
}

fn take(stake: &Arc<Stake>) -> Option<Permit> {
    stake.claim().map(Claim::take)
}

#[test]
fn all_that_is_needed_or_nothing() {
    let limiter = Limiter::new(vec![offered("r", 2, None), offered("s", 1, None)]);
    let both = join(&limiter, &[("r", 1), ("s", 1)], 1);
    let only_r = join(&limiter, &[("r", 1)], 1);
    let first = take(&both).unwrap();
    assert!(take(&both).is_none(), "there is one s");
    both.rest();
    // Who could not have all of it has none.
    let second = take(&only_r).unwrap();
    assert!(take(&only_r).is_none());
    drop((first, second));
    only_r.rest();
    assert!(take(&both).is_some());
    limiter.check_idle();
}

#[test]
fn each_device_has_its_own_unless_it_is_global() {
    let limiter = Limiter::new(vec![offered("r", 1, None)]);
    let mut group = group(&[("r", 1)], 1);
    let join = |device, group: &InstanceGroup| limiter.join(device, group).unwrap().unwrap();
    let (here, there) = (join(HERE, &group), join(THERE, &group));
    let held = (take(&here), take(&there));
    assert!(held.0.is_some() && held.1.is_some());
    group.resources[0].global = true;
    let (here, there) = (join(HERE, &group), join(THERE, &group));
    let held = (take(&here), take(&there));
    assert!(held.0.is_some() && held.1.is_none());
}

#[test]
fn more_than_there_is_is_refused_with_the_numbers() {
    let here = DeviceChoice::Simulated(0);
    let limiter = Limiter::new(vec![offered("r", 4, None), offered("r", 2, Some(here))]);
    let refused = limiter.join(HERE, &group(&[("r", 3)], 1)).unwrap_err();
    let said = "an instance asks for 3 of resource \"r\", of which there are 2 on simulated:0; \
                give it less (instances.resources), or offer more (--rate-limit-resource)";
    assert_eq!(refused.to_string(), said);
    assert!(limiter.join(THERE, &group(&[("r", 3)], 1)).is_ok());
    // Named twice is needed twice.
    assert!(
        limiter
            .join(THERE, &group(&[("r", 3), ("r", 2)], 1))
            .is_err()
    );
    // Of what is not offered there is what the most demanding needs.
    let small = join(&limiter, &[("q", 2)], 1);
    let large = join(&limiter, &[("q", 4)], 1);
    let held = (take(&small), take(&small));
    assert!(held.0.is_some() && held.1.is_some());
    assert!(take(&large).is_none());
    drop(held);
    assert!(take(&large).is_some());
}

/// Who runs next when each of these always wants to: on one copy, by priority.
fn played(priorities: &[u32], batches: usize) -> Vec<usize> {
    let limiter = Limiter::new(Vec::new());
    let join = |priority: &u32| join(&limiter, &[("r", 1)], *priority);
    let stakes: Vec<Arc<Stake>> = priorities.iter().map(join).collect();
    let mut runs = vec![0; stakes.len()];
    let mut held: Option<Permit> = None;
    for _ in 0..batches {
        for stake in &stakes {
            assert!(held.is_none() || take(stake).is_none());
        }
        if let Some(permit) = held.take() {
            permit.is_followed();
        }
        let mut asked = stakes.iter().map(take);
        let next = asked.position(|permit| {
            held = permit;
            held.is_some()
        });
        runs[next.unwrap()] += 1;
        limiter.check();
    }
    runs
}

#[test]
fn with_twice_the_priority_half_the_chances() {
    let runs = played(&[1, 2], 300);
    assert!((199..=201).contains(&runs[0]), "{runs:?}");
    let runs = played(&[1, 1, 4], 900);
    assert!((399..=401).contains(&runs[0]), "{runs:?}");
    assert!((99..=101).contains(&runs[2]), "{runs:?}");
}

#[test]
fn one_that_needs_much_is_not_overtaken_for_ever() {
    let limiter = Limiter::new(vec![offered("r", 2, None), offered("s", 1, None)]);
    let small = join(&limiter, &[("r", 1)], 1);
    let large = join(&limiter, &[("r", 2)], 1);
    let aside = join(&limiter, &[("s", 1)], 1);
    let held = take(&small);
    assert!(take(&large).is_none());
    assert!(
        take(&small).is_none(),
        "one r is free, but another is before"
    );
    assert!(take(&aside).is_some(), "who needs something else goes on");
    drop(held);
    assert!(take(&small).is_none());
    assert!(take(&large).is_some());
}

#[test]
fn idleness_is_not_saved_up() {
    let limiter = Limiter::new(Vec::new());
    let (busy, late) = (
        join(&limiter, &[("r", 1)], 1),
        join(&limiter, &[("r", 1)], 1),
    );
    let mut held = None;
    for _ in 0..100 {
        drop(held.take());
        held = take(&busy);
    }
    assert!(take(&late).is_none());
    assert!(take(&busy).is_none());
    drop(held);
    drop(take(&late).unwrap());
    // It had not run for a hundred batches, and has to wait now that the other is due.
    assert!(take(&late).is_none());
    assert!(take(&busy).is_some());
}

#[test]
fn whoever_leaves_takes_his_place_in_the_line_along() {
    let limiter = Limiter::new(Vec::new());
    let (first, second) = (
        join(&limiter, &[("r", 1)], 1),
        join(&limiter, &[("r", 1)], 1),
    );
    let gone = join(&limiter, &[("r", 1)], 1);
    let held = take(&first);
    assert!(take(&gone).is_none() && take(&second).is_none());
    drop(held);
    assert!(take(&second).is_none());
    drop(gone);
    assert!(take(&second).is_some());
}
