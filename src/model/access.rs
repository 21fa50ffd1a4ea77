//! Who may ask the server, for what, and how much.

use std::path::PathBuf;
use std::time::Duration;

/// What a caller may do. A role grants its own calls and no other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Ask models.
    Infer,
    /// See what the server does: metrics, statistics, the index, the console.
    Observe,
    /// Change what it does: models, settings, shared memory, profiles.
    Operate,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Infer, Self::Observe, Self::Operate];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Observe => "observe",
            Self::Operate => "operate",
        }
    }

    /// The role of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The roles of one caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// Whether this is one of them.
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |all, role| all | role.bit()))
    }
}

/// Bytes of SHA-256.
pub type Digest = [u8; 32];

/// A secret that stands for a caller; what is known of it is a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The caller's name.
    pub name: String,
    /// What the caller may do.
    pub roles: Roles,
    /// SHA-256 of the secret.
    pub digest: Digest,
}

/// What a certificate says of whoever has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A subject alternative name: of DNS, a URI (as SPIFFE's), or an e-mail address.
    Alternative(String),
    /// The common name, where nothing else is there.
    CommonName(String),
}

/// A caller who has a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The caller's name.
    pub name: String,
    /// What the caller may do.
    pub roles: Roles,
    /// By what the certificate is known.
    pub subject: Subject,
}

/// Whose JSON Web Tokens are believed (RFC 7519), and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtPolicy {
    /// Who issued them (`iss`).
    pub issuer: String,
    /// For whom they are (`aud`).
    pub audience: String,
    /// The file of the issuer's public keys (RFC 7517).
    pub keys: PathBuf,
    /// The claim that carries roles; a dot leads into an object.
    pub roles_claim: String,
    /// How far clocks may be apart.
    pub leeway: Duration,
}

/// Everybody who is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// By tokens.
    pub tokens: Vec<Token>,
    /// By certificates.
    pub certificates: Vec<Certificate>,
    /// By what an issuer says.
    pub jwt: Option<JwtPolicy>,
}

/// Where certificates are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Authorities of clients' certificates, which are then required.
    pub client_ca: Option<PathBuf>,
}

/// What one client may ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClientLimits {
    /// Requests a second, if they are counted.
    pub rate: Option<f64>,
    /// Requests that may come at once after a pause; at least 1.
    pub burst: f64,
    /// Requests in progress, if they are bounded.
    pub concurrency: Option<usize>,
    /// Clients that are told apart; further ones share one place.
    pub max_clients: usize,
}

impl ClientLimits {
    /// Whether anything is bounded.
    pub const fn is_any(&self) -> bool {
        self.rate.is_some() || self.concurrency.is_some()
    }
}
