//! Who may have which resources: Triton's rate limiter.
//!
//! A resource is a name and a number of copies that the operator chose, on each device or once for all
//! of them. An instance runs a batch only while it holds the copies that its group asks for. It takes
//! all of them at once or none, and holds none while it waits, so that nobody waits in a circle. Of
//! those who wait for the same, whoever has spent least goes first; a batch costs as much as the
//! group's priority, so that with 2 it has half the chances of one with 1. One that waits first in
//! line is not overtaken by others who need less of what it waits for.
//!
//! The lock here is taken with a lane's lock held, and never the other way round.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::lane::Lane;
use crate::device::DeviceId;
use crate::model::{DeviceChoice, InstanceGroup, OfferedResource};

/// More of a resource is asked for than there is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an instance asks for {asked} of resource {name:?}, of which there are {offered} on {place}; \
     give it less (instances.resources), or offer more (--rate-limit-resource)"
)]
pub(super) struct TooMany {
    name: String,
    place: String,
    asked: u64,
    offered: u64,
}

/// The resources of this server, and who has them.
#[derive(Debug)]
pub struct Limiter {
    offered: Vec<OfferedResource>,
    book: Mutex<Book>,
}

/// A resource, where it is counted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Resource {
    name: String,
    /// None for one that all devices share.
    device: Option<DeviceId>,
}

#[derive(Clone, Debug)]
struct Need {
    resource: Resource,
    count: u64,
    /// How many there are, if the operator said so; else as many as whoever asks for most.
    offered: Option<u64>,
}

#[derive(Debug, Default)]
struct Book {
    members: Vec<Member>,
    /// Numbers members, and orders those who wait.
    next: u64,
}

#[derive(Debug)]
struct Member {
    id: u64,
    needs: Vec<Need>,
    priority: u64,
    /// Batches times priority.
    spent: u64,
    /// Batches that run.
    running: u64,
    /// Since when it waits, if it does.
    waits: Option<u64>,
    lane: Weak<Lane>,
}

/// What the instances of one group on one device need to run a batch.
#[derive(Debug)]
pub(super) struct Stake {
    limiter: Arc<Limiter>,
    id: u64,
}

/// What is needed is there, and nobody else takes it while this is held.
pub(super) struct Claim<'s> {
    stake: &'s Arc<Stake>,
    book: MutexGuard<'s, Book>,
}

/// What a batch that runs has taken; it is given back when this is dropped, which is not done with a
/// lane's lock held.
#[derive(Debug)]
pub(super) struct Permit(Arc<Stake>);

impl Limiter {
    /// A limiter over what is offered; of what is not there is as much as one instance needs at most.
    pub fn new(offered: Vec<OfferedResource>) -> Arc<Self> {
        Arc::new(Self {
            offered,
            book: Mutex::default(),
        })
    }

    /// Takes in instances of this group on this device; none if they need nothing.
    pub(super) fn join(
        self: &Arc<Self>,
        device: DeviceId,
        group: &InstanceGroup,
    ) -> Result<Option<Arc<Stake>>, TooMany> {
        let needs = self.needs(device, group);
        if needs.is_empty() {
            return Ok(None);
        }
        needs.iter().try_for_each(Need::check)?;
        let id = self.book().open(needs, group.priority);
        // There may be more now of what nobody offers.
        self.wake();
        Ok(Some(Arc::new(Stake {
            limiter: Arc::clone(self),
            id,
        })))
    }

    fn needs(&self, device: DeviceId, group: &InstanceGroup) -> Vec<Need> {
        let mut needs: Vec<Need> = Vec::new();
        for one in &group.resources {
            let resource = Resource {
                name: one.name.clone(),
                device: (!one.global).then_some(device),
            };
            let count = u64::from(one.count);
            match needs.iter_mut().find(|need| need.resource == resource) {
                Some(need) => need.count += count,
                None => needs.push(Need {
                    offered: self.offer(&resource),
                    resource,
                    count,
                }),
            }
        }
        needs
    }

    /// What the operator said there is: for this device, before what he said for every one.
    fn offer(&self, resource: &Resource) -> Option<u64> {
        let named = self.offered.iter().filter(|one| one.name == resource.name);
        let fitting = named.filter(|one| match (&one.device, resource.device) {
            (Some(choice), Some(device)) => names(choice, device),
            _ => true,
        });
        let best = fitting.max_by_key(|one| one.device.is_some() && resource.device.is_some());
        best.map(|one| u64::from(one.count))
    }

    /// Has those look again who wait and may go now. The caller holds no lane's lock.
    pub(super) fn wake(&self) {
        let ready = self.book().ready();
        for lane in ready {
            if let Some(lane) = lane.upgrade() {
                lane.nudge();
            }
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(choice: &DeviceChoice, device: DeviceId) -> bool {
    match (choice, device) {
        (DeviceChoice::Cpu, DeviceId::Cpu) => true,
        (DeviceChoice::Cuda(one), DeviceId::Cuda(other)) => *one == other,
        (DeviceChoice::Simulated(one), DeviceId::Simulated(other)) => *one == other,
        _ => false,
    }
}

impl Need {
    fn check(&self) -> Result<(), TooMany> {
        let offered = self.offered.filter(|offered| *offered < self.count);
        offered.map_or(Ok(()), |offered| {
            let device = self.resource.device;
            Err(TooMany {
                name: self.resource.name.clone(),
                place: device.map_or("all devices together".to_owned(), |one| one.to_string()),
                asked: self.count,
                offered,
            })
        })
    }
}

impl Stake {
    /// Whom to wake when what is waited for may be there.
    pub(super) fn wakes(&self, lane: &Arc<Lane>) {
        if let Some(member) = self.limiter.book().get_mut(self.id) {
            member.lane = Arc::downgrade(lane);
        }
    }

    /// Whether a batch may leave now; if not, it waits for that from here on.
    pub(super) fn may_go(&self) -> bool {
        self.limiter.book().ask(self.id)
    }

    /// What a batch needs to leave now; none if it has to wait.
    pub(super) fn claim(self: &Arc<Self>) -> Option<Claim<'_>> {
        let mut book = self.limiter.book();
        book.ask(self.id).then_some(Claim { stake: self, book })
    }

    /// It waits no longer. Whether others may have waited for that.
    pub(super) fn rest(&self) -> bool {
        self.limiter.book().rest(self.id)
    }

    pub(super) fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }
}

impl Drop for Stake {
    fn drop(&mut self) {
        self.limiter.book().close(self.id);
        self.limiter.wake();
    }
}

impl Claim<'_> {
    /// A batch leaves. Others may go now who were behind it.
    pub(super) fn take(mut self) -> Permit {
        self.book.begin(self.stake.id);
        Permit(Arc::clone(self.stake))
    }

    /// None leaves. Whether others may have waited for that.
    pub(super) fn leave(mut self) -> bool {
        self.book.rest(self.stake.id)
    }
}

impl Permit {
    /// Another batch is about to ask, and keeps its place among those who wait.
    pub(super) fn is_followed(&self) {
        self.0.limiter.book().wait(self.0.id);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.limiter.book().end(self.0.id);
        self.0.limiter.wake();
    }
}

impl Book {
    fn open(&mut self, needs: Vec<Need>, priority: u32) -> u64 {
        let id = self.number();
        self.members.push(Member {
            id,
            needs,
            priority: u64::from(priority.max(1)),
            spent: 0,
            running: 0,
            waits: None,
            lane: Weak::new(),
        });
        id
    }

    fn close(&mut self, id: u64) {
        self.members.retain(|member| member.id != id);
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn get(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    fn get_mut(&mut self, id: u64) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.id == id)
    }

    fn ask(&mut self, id: u64) -> bool {
        self.catch_up(id);
        let may_go = self.get(id).is_some_and(|member| self.may_go(member));
        if !may_go {
            self.wait(id);
        }
        may_go
    }

    /// One that comes back from idleness starts level with the others: what it did not use is not
    /// saved up.
    fn catch_up(&mut self, id: u64) {
        let Some(own) = self.get(id).filter(|own| !own.is_active()) else {
            return;
        };
        let others = self.members.iter().filter(|one| one.is_active());
        let rivals = others.filter(|one| one.overlaps(own));
        let least = rivals.map(|one| one.spent).min().unwrap_or_default();
        if let Some(own) = self.get_mut(id) {
            own.spent = own.spent.max(least);
        }
    }

    fn may_go(&self, own: &Member) -> bool {
        let there = |need: &Need| {
            let resource = &need.resource;
            self.taken(resource) + need.count <= need.offered.unwrap_or(self.most(resource))
        };
        let mut others = self.members.iter();
        own.needs.iter().all(there) && !others.any(|one| one.is_before(own) && one.overlaps(own))
    }

    fn taken(&self, resource: &Resource) -> u64 {
        let members = self.members.iter();
        members.map(|one| one.running * one.count(resource)).sum()
    }

    /// What one instance needs at most.
    fn most(&self, resource: &Resource) -> u64 {
        let counts = self.members.iter().map(|one| one.count(resource));
        counts.max().unwrap_or_default()
    }

    fn wait(&mut self, id: u64) {
        let number = self.number();
        if let Some(member) = self.get_mut(id) {
            member.waits.get_or_insert(number);
        }
    }

    fn rest(&mut self, id: u64) -> bool {
        let member = self.get_mut(id);
        member.is_some_and(|member| member.waits.take().is_some()) && self.somebody_waits()
    }

    fn begin(&mut self, id: u64) {
        if let Some(member) = self.get_mut(id) {
            member.waits = None;
            member.running += 1;
            member.spent += member.priority;
        }
    }

    fn end(&mut self, id: u64) {
        if let Some(member) = self.get_mut(id) {
            member.running = member.running.saturating_sub(1);
        }
    }

    fn somebody_waits(&self) -> bool {
        self.members.iter().any(|member| member.waits.is_some())
    }

    fn ready(&self) -> Vec<Weak<Lane>> {
        let waiting = self.members.iter().filter(|one| one.waits.is_some());
        let ready = waiting.filter(|one| self.may_go(one));
        ready.map(|one| Weak::clone(&one.lane)).collect()
    }
}

impl Member {
    fn is_active(&self) -> bool {
        self.running > 0 || self.waits.is_some()
    }

    fn count(&self, resource: &Resource) -> u64 {
        let mut needs = self.needs.iter();
        let need = needs.find(|need| need.resource == *resource);
        need.map_or(0, |need| need.count)
    }

    fn overlaps(&self, other: &Self) -> bool {
        let mut needs = self.needs.iter();
        needs.any(|need| other.count(&need.resource) > 0)
    }

    /// Whether it waits and goes first.
    fn is_before(&self, other: &Self) -> bool {
        let place = |one: &Self| (one.spent, one.waits.unwrap_or(u64::MAX), one.id);
        self.id != other.id && self.waits.is_some() && place(self) < place(other)
    }
}

#[cfg(test)]
mod tests;
