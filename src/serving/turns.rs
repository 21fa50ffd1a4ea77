//! Whose turn it is on a device that several models share.
//!
//! Each version has an account of the device's time that it has had, over its weight: of the time in
//! which several batches run, each has its part, as a device has it that slices its time. While others
//! use the device too, a version that is well ahead of the one that has had least waits, so that a
//! model with many instances or large batches cannot take the device from the rest. A version that
//! comes back from idleness starts level with the others: what it did not use is not saved up
//! (start-time fair queueing, Goyal, Vin and Cheng, SIGCOMM 1996). The device is never left idle for
//! fairness: where nothing runs, whoever has something may run it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::lane::Lane;
use crate::clock::Moment;

/// How far ahead of the others a version may be before it waits; and how soon it looks again.
pub(super) const AHEAD: Duration = Duration::from_millis(20);

/// The accounts of one device.
#[derive(Default)]
pub(super) struct Turns {
    /// With one account there is nothing to decide.
    members: AtomicUsize,
    /// Batches that run, of whatever version.
    running: AtomicUsize,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    list: Vec<Account>,
    next: u64,
    /// Up to when time has been charged.
    charged: Moment,
}

struct Account {
    id: u64,
    weight: f64,
    /// Seconds of the device's time, over the weight.
    used: f64,
    /// Batches that run.
    running: u32,
    /// Whether a batch is about to follow the one that has just ended.
    following: bool,
    /// Whether it waits for its turn.
    held: bool,
    lane: Weak<Lane>,
}

/// One version's account on one device, shared by its instances there.
pub(super) struct Turn {
    turns: Arc<Turns>,
    id: u64,
}

impl Turns {
    /// A new account.
    pub(super) fn join(self: &Arc<Self>, weight: u32) -> Arc<Turn> {
        let id = self.accounts().open(weight);
        self.members.fetch_add(1, Ordering::Relaxed);
        Arc::new(Turn {
            turns: Arc::clone(self),
            id,
        })
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn are_shared(&self) -> bool {
        self.members.load(Ordering::Relaxed) > 1
    }

    /// Has those who wait look again. The caller holds no lane's lock.
    fn wake(&self) {
        let held: Vec<Weak<Lane>> = self.accounts().held().collect();
        for lane in held {
            if let Some(lane) = lane.upgrade() {
                lane.nudge();
            }
        }
    }
}

impl Turn {
    /// Whom to wake when it may be its turn.
    pub(super) fn wakes(&self, lane: &Arc<Lane>) {
        if let Some(account) = self.turns.accounts().get(self.id) {
            account.lane = Arc::downgrade(lane);
        }
    }

    /// Whether a batch may leave for the device now.
    pub(super) fn may_go(&self, now: Moment) -> bool {
        !self.turns.are_shared() || self.turns.accounts().may_go(self.id, now)
    }

    /// A batch begins to run; says how many do, this one among them.
    pub(super) fn enter(&self) -> usize {
        self.turns.running.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// How many batches run.
    pub(super) fn running(&self) -> usize {
        self.turns.running.load(Ordering::Relaxed)
    }

    /// A batch has run.
    pub(super) fn leave(&self) {
        self.turns.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// A batch leaves for the device. True if its end is to be told.
    pub(super) fn begin(&self, now: Moment) -> bool {
        let shared = self.turns.are_shared();
        if shared {
            self.turns.accounts().begin(self.id, now);
        }
        shared
    }

    /// A batch has ended whose beginning was told; whether another is to follow at once. The caller
    /// may hold its own lane's lock, and calls [`Turn::wake_others`] when it does not.
    pub(super) fn end(&self, now: Moment, follows: bool) {
        self.turns.accounts().end(self.id, now, follows);
    }

    /// Nothing leaves for the device now.
    pub(super) fn rest(&self) {
        if self.turns.are_shared() {
            self.turns.accounts().rest(self.id);
        }
    }

    pub(super) fn wake_others(&self) {
        if self.turns.are_shared() {
            self.turns.wake();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns
            .accounts()
            .list
            .retain(|account| account.id != self.id);
        self.turns.members.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Accounts {
    fn open(&mut self, weight: u32) -> u64 {
        let id = self.next;
        self.next += 1;
        self.list.push(Account {
            id,
            weight: f64::from(weight.max(1)),
            used: 0.0,
            running: 0,
            following: false,
            held: false,
            lane: Weak::new(),
        });
        id
    }

    fn get(&mut self, id: u64) -> Option<&mut Account> {
        self.list.iter_mut().find(|account| account.id == id)
    }

    fn held(&self) -> impl Iterator<Item = Weak<Lane>> {
        let held = self.list.iter().filter(|account| account.held);
        held.map(|account| Weak::clone(&account.lane))
    }

    /// Charges the time since it was last charged to those whose batches have run.
    fn charge(&mut self, now: Moment) {
        let passed = (now - self.charged).as_secs_f64();
        self.charged = self.charged.max(now);
        let running: u32 = self.list.iter().map(|account| account.running).sum();
        for account in self.list.iter_mut().filter(|account| account.running > 0) {
            let part = f64::from(account.running) / f64::from(running);
            account.used += passed * part / account.weight;
        }
    }

    fn may_go(&mut self, id: u64, now: Moment) -> bool {
        self.charge(now);
        let least = self.least_beside(id);
        let idle = self.list.iter().all(|account| account.running == 0);
        let Some(account) = self.get(id) else {
            return true;
        };
        if let Some(least) = least
            && !account.is_active()
        {
            account.used = account.used.max(least);
        }
        let ahead = least.map_or(0.0, |least| account.used - least);
        account.held = !idle && ahead > AHEAD.as_secs_f64();
        !account.held
    }

    /// What the one of the others has had that has had least, of those that use the device.
    fn least_beside(&self, id: u64) -> Option<f64> {
        let others = self.list.iter().filter(|other| other.id != id);
        let active = others.filter(|other| other.is_active());
        active.map(|other| other.used).min_by(f64::total_cmp)
    }

    fn begin(&mut self, id: u64, now: Moment) {
        self.charge(now);
        if let Some(account) = self.get(id) {
            account.running += 1;
            account.following = false;
            account.held = false;
        }
    }

    fn end(&mut self, id: u64, now: Moment, follows: bool) {
        self.charge(now);
        if let Some(account) = self.get(id) {
            account.running = account.running.saturating_sub(1);
            account.following = follows;
        }
    }

    fn rest(&mut self, id: u64) {
        if let Some(account) = self.get(id) {
            account.following = false;
            account.held = false;
        }
    }
}

impl Account {
    fn is_active(&self) -> bool {
        self.running > 0 || self.following || self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::default() + Duration::from_millis(milliseconds)
    }

    /// Plays versions of these weights and instances on a device that slices its time, 10 ms of which
    /// each batch needs; who has run one has another. Gives how many batches each has run.
    fn played(versions: &[(u32, usize)], milliseconds: u64) -> Vec<u64> {
        let mut accounts = Accounts::default();
        let ids: Vec<u64> = versions.iter().map(|one| accounts.open(one.0)).collect();
        let mut free: Vec<usize> = versions.iter().map(|one| one.1).collect();
        let mut runs = vec![0; versions.len()];
        // Whose batch, and what it still needs of the device, in milliseconds.
        let mut running: Vec<(usize, f64)> = Vec::new();
        for now in (0..milliseconds).map(at) {
            let slice = 1.0 / running.len() as f64;
            running.iter_mut().for_each(|(_, left)| *left -= slice);
            running.retain(|(who, left)| {
                let goes_on = *left > 1e-9;
                if !goes_on {
                    accounts.end(ids[*who], now, true);
                    runs[*who] += 1;
                    free[*who] += 1;
                }
                goes_on
            });
            for who in 0..versions.len() {
                while free[who] > 0 && accounts.may_go(ids[who], now) {
                    accounts.begin(ids[who], now);
                    free[who] -= 1;
                    running.push((who, 10.0));
                }
            }
        }
        runs
    }

    #[test]
    fn many_instances_get_no_more_than_one() {
        let runs = played(&[(1, 8), (1, 1)], 10_000);
        let share = runs[1] as f64 / (runs[0] + runs[1]) as f64;
        assert!((0.48..0.52).contains(&share), "{runs:?}");
        assert!(runs[0] + runs[1] >= 985, "the device was idle: {runs:?}");
    }

    #[test]
    fn weights_are_kept() {
        let runs = played(&[(1, 4), (3, 4)], 10_000);
        let share = runs[1] as f64 / (runs[0] + runs[1]) as f64;
        assert!((0.73..0.77).contains(&share), "{runs:?}");
    }

    #[test]
    fn one_alone_is_never_held() {
        assert!(played(&[(1, 2), (1, 0)], 1_000)[0] >= 98);
    }

    #[test]
    fn idleness_is_not_saved_up() {
        let mut accounts = Accounts::default();
        let (busy, late) = (accounts.open(1), accounts.open(1));
        accounts.begin(busy, at(0));
        accounts.end(busy, at(1000), true);
        accounts.begin(busy, at(1000));
        // The newcomer is let in, and not owed a second.
        assert!(accounts.may_go(late, at(1000)));
        accounts.begin(late, at(1000));
        assert!(accounts.may_go(busy, at(1000)));
    }

    #[test]
    fn a_batch_that_hangs_holds_nobody_up() {
        let mut accounts = Accounts::default();
        let (hangs, other) = (accounts.open(1), accounts.open(1));
        accounts.begin(hangs, at(0));
        for run in 0..100 {
            let now = at(run * 10);
            assert!(accounts.may_go(other, now), "{run}");
            accounts.begin(other, now);
            accounts.end(other, at(run * 10 + 10), true);
        }
    }
}
