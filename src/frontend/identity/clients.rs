//! How much each client asks: how often, by the generic cell rate algorithm (ITU-T I.371), and how much at
//! once. The table of clients is bounded, and whoever does not fit shares one place with others.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Caller;
use crate::clock::Moment;
use crate::model::ClientLimits;
use crate::status::Status;
use crate::telemetry::{DoorCounts, Refused};

/// What a client is told to wait that asks too much at once: nobody knows when its own calls end.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// Between two looks for clients who have gone, where there is no place.
const SWEEP: Duration = Duration::from_millis(100);

/// Who is one client.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::frontend) enum Who {
    /// Somebody who is known.
    Named(Arc<str>),
    /// Whoever asks from there: of IPv6, a network that one customer has.
    From(IpAddr),
    /// All for whom there is no place.
    Others,
}

impl Who {
    pub(super) fn of(caller: Option<&Caller>, address: Option<IpAddr>) -> Self {
        match (caller, address) {
            (Some(caller), _) => Self::Named(Arc::clone(&caller.name)),
            (None, Some(IpAddr::V6(address))) => Self::From(network(address)),
            (None, Some(address)) => Self::From(address),
            (None, None) => Self::Others,
        }
    }
}

fn network(address: Ipv6Addr) -> IpAddr {
    if let Some(address) = address.to_ipv4_mapped() {
        return IpAddr::V4(address);
    }
    let prefix = address.to_bits() & !u128::from(u64::MAX);
    IpAddr::V6(Ipv6Addr::from_bits(prefix))
}

/// What one client has asked.
#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// When its requests so far would have come, had they come evenly.
    paid_until: Moment,
    in_flight: usize,
}

#[derive(Debug, Default)]
struct Table {
    accounts: HashMap<Who, Account>,
    swept: Option<Moment>,
}

/// Every client's account.
#[derive(Debug)]
pub(in crate::frontend) struct Clients {
    limits: ClientLimits,
    /// Between two requests that come evenly.
    interval: Duration,
    /// How much earlier than evenly one may come.
    tolerance: Duration,
    table: Mutex<Table>,
    counts: Arc<DoorCounts>,
}

/// A request that one client may not send.
type Exceeded = (Status, Refused);

impl Clients {
    /// None if nothing is limited.
    pub(in crate::frontend) fn new(
        limits: ClientLimits,
        counts: Arc<DoorCounts>,
    ) -> Option<Arc<Self>> {
        let interval = limits.rate.map_or(0.0, f64::recip);
        let tolerance = interval * (limits.burst - 1.0).max(0.0);
        limits.is_any().then(|| {
            Arc::new(Self {
                limits,
                interval: Duration::from_secs_f64(interval),
                tolerance: Duration::from_secs_f64(tolerance),
                table: Mutex::default(),
                counts,
            })
        })
    }

    /// Counts a call, and gives it a place among the client's if these are bounded.
    pub(super) fn enter(self: &Arc<Self>, who: Who, now: Moment) -> Result<Share, Exceeded> {
        let mut table = self.table();
        let who = table.admit(who, self.limits.max_clients, now);
        let account = table.accounts.entry(who.clone()).or_default();
        let most = self.limits.concurrency;
        if most.is_some_and(|most| account.in_flight >= most) {
            let told = format!(
                "{} requests of this client are in progress (client_concurrency)",
                account.in_flight
            );
            let status = Status::exhausted(told, RETRY_AFTER);
            return Err((status, Refused::ClientConcurrency));
        }
        self.pay(account, now)?;
        account.in_flight += 1;
        Ok(Share {
            clients: Arc::clone(self),
            who,
        })
    }

    fn pay(&self, account: &mut Account, now: Moment) -> Result<(), Exceeded> {
        // Of two calls at once the one that is counted last may have looked at the clock first: without a
        // rate it would be too early.
        let Some(rate) = self.limits.rate else {
            return Ok(());
        };
        let early = account.paid_until.since(now);
        if early > self.tolerance {
            let told =
                format!("this client sends more than {rate} requests a second (client_rate)");
            let status = Status::exhausted(told, early - self.tolerance);
            return Err((status, Refused::ClientRate));
        }
        account.paid_until = account.paid_until.max(now) + self.interval;
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// The client, if there is a place for it, which those make who could as well be new.
    fn admit(&mut self, who: Who, most: usize, now: Moment) -> Who {
        let has_place = |table: &Self| table.accounts.len() < most;
        if has_place(self) || self.accounts.contains_key(&who) {
            return who;
        }
        if self.swept.is_none_or(|swept| now.since(swept) >= SWEEP) {
            self.swept = Some(now);
            let stays = |account: &Account| account.in_flight > 0 || account.paid_until > now;
            self.accounts.retain(|_, account| stays(account));
        }
        match has_place(self) {
            true => who,
            false => Who::Others,
        }
    }
}

/// A call's part of what its client may ask, given back when it is dropped.
#[derive(Debug)]
pub(in crate::frontend) struct Share {
    clients: Arc<Clients>,
    who: Who,
}

impl Share {
    /// Counts one more request of the same call.
    pub(in crate::frontend) fn count(&self, now: Moment) -> Result<(), Status> {
        let mut table = self.clients.table();
        let account = table.accounts.get_mut(&self.who);
        let paid = account.map_or(Ok(()), |account| self.clients.pay(account, now));
        paid.map_err(|(status, why)| {
            self.clients.counts.refused(why);
            status
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(account) = self.clients.table().accounts.get_mut(&self.who) {
            account.in_flight = account.in_flight.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(
        rate: Option<f64>,
        burst: f64,
        concurrency: Option<usize>,
        most: usize,
    ) -> Arc<Clients> {
        let limits = ClientLimits {
            rate,
            burst,
            concurrency,
            max_clients: most,
        };
        Clients::new(limits, Arc::default()).unwrap()
    }

    fn at(milliseconds: u64) -> Moment {
        Moment::ORIGIN + Duration::from_millis(milliseconds)
    }

    fn from(number: u8) -> Who {
        Who::From(IpAddr::from([10, 0, 0, number]))
    }

    #[test]
    fn of_a_flood_the_burst_and_the_rate_come_through() {
        // In t seconds from a pause on, burst + floor(rate * t) requests.
        let clients = clients(Some(20.0), 5.0, None, 10);
        for (milliseconds, expected) in [(0, 5), (49, 5), (50, 6), (1_000, 25), (10_000, 205)] {
            let flood = Who::Named(Arc::from(milliseconds.to_string()));
            let times = (0..=milliseconds).chain(std::iter::repeat_n(milliseconds, 5));
            // The first burst is there at once.
            let begin = std::iter::repeat_n(0, 5);
            let taken = begin
                .chain(times)
                .filter(|time| clients.enter(flood.clone(), at(*time)).is_ok());
            assert_eq!(taken.count(), expected, "{milliseconds} ms");
        }
    }

    #[test]
    fn who_waits_as_long_as_told_is_answered_and_no_sooner() {
        let clients = clients(Some(4.0), 1.0, None, 10);
        assert!(clients.enter(from(1), at(1_000)).is_ok());
        let (status, why) = clients.enter(from(1), at(1_100)).unwrap_err();
        assert_eq!(why, Refused::ClientRate);
        let wait = status.retry_after.unwrap();
        assert_eq!(wait, Duration::from_millis(150));
        assert!(clients.enter(from(1), at(1_249)).is_err());
        assert!(clients.enter(from(2), at(1_249)).is_ok());
        let share = clients.enter(from(1), at(1_250)).unwrap();
        assert!(share.count(at(1_499)).is_err());
        assert_eq!(clients.counts.refusals(Refused::ClientRate), 1);
        assert!(share.count(at(1_500)).is_ok());
    }

    #[test]
    fn a_place_is_given_back() {
        let clients = clients(None, 1.0, Some(2), 10);
        let first = clients.enter(from(1), at(0)).unwrap();
        let _second = clients.enter(from(1), at(0)).unwrap();
        let (status, why) = clients.enter(from(1), at(0)).unwrap_err();
        assert_eq!(why, Refused::ClientConcurrency);
        assert_eq!(status.retry_after, Some(RETRY_AFTER));
        assert!(clients.enter(from(2), at(0)).is_ok());
        drop(first);
        assert!(clients.enter(from(1), at(0)).is_ok());
    }

    #[test]
    fn without_a_rate_nobody_is_too_early() {
        let clients = clients(None, 1.0, Some(3), 10);
        let share = clients.enter(from(1), at(20)).unwrap();
        let earlier = clients.enter(from(1), at(10));
        assert!(earlier.is_ok(), "{earlier:?}");
        assert!(share.count(at(15)).is_ok());
    }

    #[test]
    fn a_flood_of_clients_takes_no_more_memory_and_no_ones_place() {
        let clients = clients(Some(1.0), 1.0, Some(8), 3);
        let busy = clients.enter(from(1), at(0)).unwrap();
        assert!(clients.enter(from(2), at(0)).is_ok());
        assert!(clients.enter(from(3), at(0)).is_ok());
        // Nobody has been quiet for long enough: the others have one account.
        assert!(clients.enter(from(4), at(50)).is_ok());
        assert!(clients.enter(from(5), at(50)).is_err());
        assert_eq!(clients.table().accounts.len(), 4);
        // A second later all but the busy one could as well be new.
        assert!(clients.enter(from(6), at(2_000)).is_ok());
        assert!(clients.table().accounts.contains_key(&from(6)));
        assert!(clients.table().accounts.contains_key(&from(1)));
        assert_eq!(clients.table().accounts.len(), 2);
        drop(busy);
        assert_eq!(clients.table().accounts[&from(1)].in_flight, 0);
    }

    #[test]
    fn a_client_is_a_name_or_a_network() {
        let caller = Caller {
            name: Arc::from("ci"),
            roles: [].into_iter().collect(),
        };
        let address = |text: &str| Some(text.parse::<IpAddr>().unwrap());
        let named = Who::Named(Arc::from("ci"));
        assert_eq!(Who::of(Some(&caller), address("10.0.0.1")), named);
        let network = Who::of(None, address("2001:db8:1:2:3:4:5:6"));
        assert_eq!(network, Who::of(None, address("2001:db8:1:2::9")));
        assert_ne!(network, Who::of(None, address("2001:db8:1:3::9")));
        let mapped = Who::of(None, address("::ffff:10.0.0.1"));
        assert_eq!(mapped, from(1));
    }
}
