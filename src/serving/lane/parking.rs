//! Threads that have nothing to do, until they are woken or it is time to look again.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::Lane;
use super::core::{Core, Decision};
use crate::allocator;
use crate::clock::Moment;
use crate::serving::turns::AHEAD;

/// How long an idle thread waits before it gives back what was freed, and before it does so again.
pub(super) const LEAST_PATIENCE: Duration = Duration::from_secs(1);
const MOST_PATIENCE: Duration = Duration::from_mins(1);

impl Lane {
    /// Parks a thread that has nothing to do.
    pub(super) fn pause<'a>(
        &self,
        core: MutexGuard<'a, Core>,
        decision: Decision,
        now: Moment,
    ) -> MutexGuard<'a, Core> {
        match decision {
            Decision::WaitUntil(moment) => self.park_until(core, now, moment),
            Decision::Hold => self.hold(core, now),
            Decision::Wait | Decision::Do(_) => self.park(core, None).0,
        }
    }

    /// Parks a thread for which nothing is queued. If nothing comes for a while it gives back what was freed, and
    /// then again, but ever more seldom, for others may hold answers for long.
    pub(super) fn rest<'a>(
        &'a self,
        core: MutexGuard<'a, Core>,
        patience: &mut Duration,
    ) -> MutexGuard<'a, Core> {
        let (core, in_vain) = self.park(core, Some(*patience));
        if !in_vain {
            return core;
        }
        drop(core);
        allocator::release();
        *patience = (*patience * 2).min(MOST_PATIENCE);
        // What came meanwhile has found nobody parked.
        self.lock()
    }

    /// Parks until other versions have had their turn on the devices.
    fn hold<'a>(&self, mut core: MutexGuard<'a, Core>, now: Moment) -> MutexGuard<'a, Core> {
        core.held = true;
        core = self.park_until(core, now, now + AHEAD);
        core.held = false;
        core
    }

    /// Parks until `moment`, unless another thread that waits looks again before.
    fn park_until<'a>(
        &self,
        mut core: MutexGuard<'a, Core>,
        now: Moment,
        moment: Moment,
    ) -> MutexGuard<'a, Core> {
        if core.alarm.is_some_and(|alarm| alarm <= moment) {
            return self.park(core, None).0;
        }
        core.alarm = Some(moment);
        core = self.park(core, Some(moment.since(now))).0;
        // Another may have set an earlier one meanwhile, and sees to that.
        core.alarm.take_if(|alarm| *alarm == moment);
        core
    }

    /// Parks a thread until it is woken, or in vain: whether nobody woke it.
    fn park<'a>(
        &self,
        mut core: MutexGuard<'a, Core>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'a, Core>, bool) {
        core.parked += 1;
        let Some(timeout) = timeout else {
            let core = self.work.wait(core);
            return (core.unwrap_or_else(PoisonError::into_inner), false);
        };
        let (mut core, ended) = self
            .work
            .wait_timeout(core, timeout)
            .unwrap_or_else(PoisonError::into_inner);
        if ended.timed_out() {
            // Nobody woke it, so it is still counted.
            core.parked = core.parked.saturating_sub(1);
        }
        (core, ended.timed_out())
    }
}
