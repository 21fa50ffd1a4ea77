//! Executors that go down, hang, die and come back: what becomes of what they had, and who is told.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::Lane;
use super::core::Core;
use crate::backend::Death;
use crate::clock::Moment;
use crate::serving::instance::{Broken, Instance, NotMended};
use crate::serving::watchdog::Hung;
use crate::status::Status;

impl Lane {
    /// Makes an executor again that broke by a panic: that is ours, and its device is well. What it
    /// had is queued again, each to run alone; false if that cannot be.
    pub(in crate::serving) fn mend_at_once(
        &self,
        instance: &mut Instance,
        broken: &Broken,
    ) -> bool {
        let mended = broken.panicked && instance.mend(broken).is_ok();
        if mended {
            self.lock().queue_again(&mut instance.jobs, true);
        }
        mended
    }

    /// An executor cannot run. What it had is queued again, for another to run, or for itself if its
    /// worker is about to be there again. When nobody is left to wait for, whoever waits is told so at
    /// once.
    pub(in crate::serving) fn executor_down(&self, instance: &mut Instance, broken: &Broken) {
        if instance.end(self.clock.now(), false) {
            instance.berth.turn.wake_others();
        }
        drop(instance.permit.take());
        // Who lent it something sees that it does not come back.
        drop(instance.give_back());
        let group = instance.berth.group;
        if let Some(death) = &broken.death {
            self.died(instance, death);
        }
        let mut core = self.lock();
        core.count_alive(group, |alive| alive.saturating_sub(1));
        if broken.death.is_some() {
            core.count_returning(group, |returning| returning + 1);
        }
        // Another that waits with it asks again: it is woken below.
        core.rest_broken(instance);
        core.down.clone_from(&broken.status.message);
        core.take_out(self.breaker.taken_out());
        // Those that had the same worker are not to run what it died of.
        self.set_dead_aside(&mut core);
        if core.has_prospects() {
            core.queue_again(&mut instance.jobs, broken.is_suspect());
        }
        self.tell_down(core);
        let mut failed = std::mem::take(&mut instance.jobs);
        // Another server may run them.
        let status = Status::unavailable(broken.status.message.clone());
        instance.fail(&mut failed, &status);
    }

    /// An executor whose worker died is not there again, for this reason: nobody waits for it any more.
    pub(in crate::serving) fn not_back(
        &self,
        instance: &Instance,
        broken: &Broken,
        failed: &NotMended,
    ) {
        if let Some(death) = &failed.death {
            self.died(instance, death);
        }
        let mut core = self.lock();
        if broken.death.is_some() {
            core.count_returning(instance.berth.group, |_| 0);
        }
        core.down.clone_from(&failed.reason);
        core.take_out(self.breaker.taken_out());
        // Another may have been back before the rest was over.
        self.end_rest(&mut core);
        self.tell_down(core);
    }

    /// An executor that is down is not made again, because the lane is closed. Whoever was queued
    /// meanwhile is told so, if it was the last that was waited for.
    pub(in crate::serving) fn executor_given_up(&self, group: usize, awaited: bool) {
        let mut core = self.lock();
        if awaited {
            core.count_returning(group, |returning| returning.saturating_sub(1));
        }
        self.tell_down(core);
    }

    /// A worker died; the version may be left alone for that.
    fn died(&self, instance: &Instance, death: &Death) {
        let taken_out = self
            .breaker
            .died(self.clock.now(), instance.device(), death);
        if let Some(reason) = taken_out {
            tracing::error!(executor = instance.name(), reason, "version taken out");
        }
    }

    /// A version that was left alone for long enough serves again, if an executor can.
    fn end_rest(&self, core: &mut Core) {
        if core.has_executor() && self.breaker.returned(self.clock.now()) {
            core.taken_out = false;
        }
    }

    /// Has others look what is left to be done, and tells whoever waits if nobody can do it.
    fn tell_down(&self, mut core: MutexGuard<'_, Core>) {
        let stranded = match core.has_prospects() {
            true => Vec::new(),
            false => core.strand(),
        };
        let reason = core.down.clone();
        let wake = core.claim_thread();
        let others = core.others.take();
        drop(core);
        if wake {
            self.work.notify_one();
        }
        if let Some(limiter) = others {
            limiter.wake();
        }
        self.changes.note();
        for job in stranded {
            job.ticket.answer(Err(Status::unavailable(format!(
                "no executor is alive: {reason}"
            ))));
        }
    }

    /// An executor that was down for this reason can run again.
    pub(in crate::serving) fn executor_up(&self, group: usize, broken: &Broken) {
        let mut core = self.lock();
        core.count_alive(group, |alive| alive + 1);
        if broken.death.is_some() {
            core.count_returning(group, |returning| returning.saturating_sub(1));
        }
        self.end_rest(&mut core);
        drop(core);
        self.changes.note();
    }

    /// An executor that had been given up has come back by itself, if it has.
    pub(in crate::serving) fn welcome(&self, instance: &mut Instance) {
        if std::mem::take(&mut instance.is_back) {
            tracing::info!(executor = instance.name(), "a run that hung has ended");
            let group = instance.berth.group;
            if let Some(watch) = &instance.watch {
                watch.count_in();
            }
            self.lock().count_alive(group, |alive| alive + 1);
            self.changes.note();
        }
    }

    /// Gives up executors that have hung, and answers whom they have.
    pub(in crate::serving) fn look_for_hangs(&self, now: Moment) {
        for (group, device, watch) in &self.watches {
            let Some(Hung { tickets, counted }) = watch.hung(now) else {
                continue;
            };
            let longest = watch.longest().as_millis();
            let reason = format!(
                "an executor on {device} hangs: its run takes longer than {longest} ms \
                 (executor_timeout_ms)"
            );
            tracing::error!(reason, requests = tickets.len(), "executor hangs");
            self.breaker.hung(device);
            let mut core = self.lock();
            core.count_alive(*group, |alive| alive.saturating_sub(counted.into()));
            core.down.clone_from(&reason);
            self.tell_down(core);
            for ticket in tickets {
                ticket.answer(Err(Status::internal(reason.clone())));
            }
        }
    }

    /// Has executors mended whose workers have ended while they had nothing to do.
    pub(in crate::serving) fn look_for_deaths(&self) {
        let mut core = self.lock();
        if !core.closed {
            self.set_dead_aside(&mut core);
        }
    }

    fn set_dead_aside(&self, core: &mut Core) {
        for _ in 0..core.set_dead_aside() {
            if core.claim_parked() {
                self.work.notify_one();
            }
        }
    }

    /// Why no executor can run a batch, if none can.
    pub(in crate::serving) fn down(&self) -> Option<String> {
        let core = self.lock();
        (core.alive() == 0).then(|| core.down.clone())
    }

    /// Blocks for as long as workers of this version are not to be started; true if the lane is closed,
    /// and has nothing left for them to do.
    pub(in crate::serving) fn closed_while_resting(&self) -> bool {
        let pause = self.breaker.pause(self.clock.now());
        !pause.is_zero() && self.ends_within(pause, |core| core.batcher.is_empty())
    }

    /// Blocks for this long; true at once when the lane is closed.
    pub(in crate::serving) fn closed_within(&self, pause: Duration) -> bool {
        self.ends_within(pause, |_| true)
    }

    /// Blocks for this long; true at once when the lane is closed and that holds.
    fn ends_within(&self, pause: Duration, holds: impl Fn(&Core) -> bool) -> bool {
        let until = self.clock.now() + pause;
        let mut core = self.lock();
        loop {
            let left = until.since(self.clock.now());
            let ends = core.closed && holds(&core);
            if ends || left.is_zero() {
                return ends;
            }
            core = self
                .closing
                .wait_timeout(core, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
