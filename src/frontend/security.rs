//! What stands between the server and those who connect: TLS, who they are, and how much each may ask.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::identity::clients::Clients;
use super::identity::{Guard, GuardLayer, Identity, ReadAccess, Rules};
use super::origins::Origins;
use super::patience::Patience;
use super::tls::Tls;
use crate::clock::Clock;
use crate::model::{ClientLimits, TlsFiles};
use crate::telemetry::DoorCounts;
use crate::wire::Entry;

/// Between two looks at the files.
const LOOKS: Duration = Duration::from_secs(1);

/// What is asked of those who connect.
#[derive(Clone, Debug)]
pub struct Policy {
    /// TLS, if it is spoken.
    pub tls: Option<TlsFiles>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// Handshakes in progress.
    pub max_handshakes: usize,
    /// The file that says who may ask for what; none if everybody may.
    pub identity: Option<PathBuf>,
    /// Who reads that file's text.
    pub read_access: ReadAccess,
    /// Whether everybody may change what the server does, wherever from.
    pub open_control: bool,
    /// What one client may ask.
    pub clients: ClientLimits,
}

/// Why the server cannot be made safe as it was told to.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Certificates or keys.
    #[error("tls_cert, tls_key, tls_client_ca: {0}")]
    Tls(String),
    /// Who is known.
    #[error("identity: {0}")]
    Identity(String),
    /// Certificates say who asks, and nobody is asked for one.
    #[error("identity: {0}: knows certificates, which only tls_client_ca asks clients for")]
    NoCertificates(PathBuf),
}

/// What stands before every port.
#[derive(Clone)]
pub struct Security {
    pub(super) tls: Option<Arc<Tls>>,
    identity: Option<Arc<Identity>>,
    clients: Option<Arc<Clients>>,
    watches: Option<Arc<Clients>>,
    open_control: bool,
    counts: Arc<DoorCounts>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Security {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Security").finish_non_exhaustive()
    }
}

impl Security {
    /// Reads the files that the policy names.
    pub fn open(
        policy: Policy,
        clock: Arc<dyn Clock>,
        counts: Arc<DoorCounts>,
    ) -> Result<Self, SecurityError> {
        let patience = Patience::new(Arc::clone(&clock), policy.handshake_timeout);
        let most = policy.max_handshakes;
        let tls = policy.tls.as_ref().map(|files| {
            let tls = Tls::open(files, most, patience, Arc::clone(&counts));
            tls.map(Arc::new).map_err(SecurityError::Tls)
        });
        let identity = policy.identity.as_ref().map(|file| {
            let identity = Identity::open(file, policy.read_access);
            let identity = identity.map_err(SecurityError::Identity)?;
            let asks = policy
                .tls
                .as_ref()
                .is_some_and(|tls| tls.client_ca.is_some());
            match identity.needs_certificates() && !asks {
                true => Err(SecurityError::NoCertificates(file.clone())),
                false => Ok(Arc::new(identity)),
            }
        });
        // Apart from its other calls: whoever has a connection for each of those watches on each.
        let watches = ClientLimits {
            rate: None,
            ..policy.clients
        };
        Ok(Self {
            tls: tls.transpose()?,
            identity: identity.transpose()?,
            clients: Clients::new(policy.clients, Arc::clone(&counts)),
            watches: Clients::new(watches, Arc::clone(&counts)),
            open_control: policy.open_control,
            counts,
            clock,
        })
    }

    /// Looks at the files once a second, for ever, if there are any.
    pub async fn follow(self) {
        if self.tls.is_none() && self.identity.is_none() {
            return;
        }
        loop {
            self.clock.sleep_until(self.clock.now() + LOOKS).await;
            let (tls, identity) = (self.tls.clone(), self.identity.clone());
            // A disk that hangs is not to hold up those who serve.
            let look = tokio::task::spawn_blocking(move || {
                if let Some(tls) = tls {
                    tls.look();
                }
                if let Some(identity) = identity {
                    identity.look();
                }
            });
            let _ = look.await;
        }
    }

    /// What a client has to bring to be let in.
    pub fn entry(&self) -> Entry {
        let tls = self.tls.as_ref().map(|tls| tls.entry());
        // Who is asked for a certificate need say no more, if certificates are known.
        let wants_certificate = tls.as_ref().is_some_and(|tls| tls.wants_certificate);
        let identity = self.identity.as_ref();
        Entry {
            wants_token: identity
                .is_some_and(|identity| !(wants_certificate && identity.needs_certificates())),
            tls,
        }
    }

    /// What a port lacks that listens beyond the machine; nothing if it is safe.
    pub fn lacks(&self) -> Option<&'static str> {
        match (&self.tls, &self.identity) {
            (None, None) => Some("without TLS, and anybody may ask"),
            (None, Some(_)) => {
                Some("without TLS, so that tokens and tensors can be read on the way")
            }
            (Some(_), None) => Some("and anybody may ask (no --identity)"),
            (Some(_), Some(_)) => None,
        }
    }

    /// What is counted of those who connect.
    pub(super) fn counts(&self) -> Arc<DoorCounts> {
        Arc::clone(&self.counts)
    }

    /// Whether connections are encrypted.
    pub fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether who asks has to be known, for all but health.
    pub(super) fn knows_callers(&self) -> bool {
        self.identity.is_some()
    }

    /// Whether requests are to tell who is at the other end.
    pub(super) fn wants_peers(&self) -> bool {
        self.identity.is_some() || self.clients.is_some()
    }

    /// What stands before the services of a port.
    pub(super) fn guard(&self, origins: Origins, is_loopback: bool) -> GuardLayer {
        let rules = Rules {
            identity: self.identity.clone(),
            closed: self.identity.is_none() && !is_loopback && !self.open_control,
            clients: self.clients.clone(),
            watches: self.watches.clone(),
            clock: Arc::clone(&self.clock),
        };
        GuardLayer(Arc::new(Guard {
            rules: (!rules.is_empty()).then_some(rules),
            origins,
            counts: Arc::clone(&self.counts),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::MonotonicClock;

    fn security(change: impl FnOnce(&mut Policy)) -> Security {
        let mut policy = Policy {
            tls: None,
            handshake_timeout: Duration::ZERO,
            max_handshakes: 1,
            identity: None,
            read_access: |_, _| Ok(crate::model::Access::default()),
            open_control: false,
            clients: ClientLimits {
                rate: None,
                burst: 1.0,
                concurrency: None,
                max_clients: 1,
            },
        };
        change(&mut policy);
        Security::open(policy, Arc::new(MonotonicClock::start()), Arc::default()).unwrap()
    }

    #[test]
    fn a_call_is_asked_nothing_where_nothing_is_to_be_asked() {
        let has_rules = |security: &Security, is_loopback| {
            let guard = security.guard(Origins::default(), is_loopback);
            guard.0.rules.is_some()
        };
        let plain = security(|_| {});
        assert!(!has_rules(&plain, true) && !plain.wants_peers());
        assert!(has_rules(&plain, false) && !plain.wants_peers());
        let open = security(|policy| policy.open_control = true);
        assert!(!has_rules(&open, false));
        let limited = security(|policy| policy.clients.rate = Some(1.0));
        assert!(has_rules(&limited, true) && limited.wants_peers());
    }
}
