//! JSON Web Tokens (RFC 7519), after the best practices of RFC 8725: the key decides the algorithm, and only
//! those with public keys are there: RS256, ES256 and EdDSA (RFC 7518, RFC 8037).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::Value;

use super::Caller;
use crate::model::{JwtPolicy, Role};

/// Keys of an issuer that are looked at.
const MOST_KEYS: usize = 64;
/// Bytes of a caller's name, which is kept for as long as it is limited.
const MOST_NAME: usize = 256;
/// Tokens whose signature need not be checked again; then it begins anew.
const MOST_SEEN: usize = 4_096;

/// Whose tokens are believed.
pub(super) struct Jwt {
    policy: JwtPolicy,
    keys: Vec<Key>,
    /// By SHA-256 of tokens whose signature was good.
    seen: Mutex<HashMap<[u8; 32], Claimed>>,
}

impl fmt::Debug for Jwt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.policy.fmt(formatter)
    }
}

/// What a token says, once it is believed, in seconds since the Unix epoch.
#[derive(Clone, Debug)]
struct Claimed {
    caller: Arc<Caller>,
    expires: f64,
    begins: f64,
}

impl Claimed {
    fn caller(&self, now: u64, policy: &JwtPolicy) -> Result<Arc<Caller>, String> {
        let (now, leeway) = (now as f64, policy.leeway.as_secs_f64());
        if now >= self.expires + leeway {
            return Err(format!("the token expired {} s ago", now - self.expires));
        }
        if now + leeway < self.begins {
            return Err("the token is not to be used yet (nbf)".to_owned());
        }
        Ok(Arc::clone(&self.caller))
    }
}

impl Jwt {
    /// Takes the keys that can be used of a JWK set.
    pub(super) fn new(policy: JwtPolicy, keys: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(keys).map_err(|error| format!("is no JWK set: {error}"))?;
        let keys: Vec<Key> = set.keys.iter().filter_map(Key::read).collect();
        match keys.len() {
            0 => Err("has no public key for RS256, ES256 or EdDSA".to_owned()),
            1..=MOST_KEYS => Ok(Self {
                policy,
                keys,
                seen: Mutex::default(),
            }),
            found => Err(format!("found {found} keys; allowed: at most {MOST_KEYS}")),
        }
    }

    /// Who has this token, at `now` in seconds since the Unix epoch, or why it is not believed.
    pub(super) fn caller(&self, token: &str, now: u64) -> Result<Arc<Caller>, String> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let seen = self.seen();
        if let Some(claimed) = seen.get(&hash) {
            return claimed.caller(now, &self.policy);
        }
        drop(seen);
        let claimed = self.believe(token)?;
        let caller = claimed.caller(now, &self.policy)?;
        let mut seen = self.seen();
        if seen.len() >= MOST_SEEN {
            seen.clear();
        }
        seen.insert(hash, claimed);
        Ok(caller)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Claimed>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn believe(&self, token: &str) -> Result<Claimed, String> {
        let malformed = || "the token is no signed JWT".to_owned();
        let (signed, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let header: Header = decoded(header).ok_or_else(malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?;
        if header.crit.is_some() {
            return Err("the token has extensions that have to be understood (crit)".to_owned());
        }
        let mut keys = self.keys.iter().filter(|key| header.may_be_of(key));
        if !keys.any(|key| key.verifies(signed.as_bytes(), &signature)) {
            let told = "no key of the issuer verifies the token (RS256, ES256 and EdDSA are taken)";
            return Err(told.to_owned());
        }
        self.claimed(&decoded(claims).ok_or_else(malformed)?)
    }

    fn claimed(&self, claims: &Value) -> Result<Claimed, String> {
        let policy = &self.policy;
        if text(claims, "iss") != Some(&policy.issuer) {
            return Err(format!(
                "the token is not of the issuer {:?}",
                policy.issuer
            ));
        }
        let audience = |value: &Value| value.as_str() == Some(&policy.audience);
        let is_ours = claims.get("aud").is_some_and(|value| match value {
            Value::Array(values) => values.iter().any(audience),
            one => audience(one),
        });
        if !is_ours {
            return Err(format!("the token is not for {:?} (aud)", policy.audience));
        }
        let expires = number(claims, "exp")?.ok_or("the token does not say when it ends (exp)")?;
        let name = text(claims, "sub").filter(|name| name.len() <= MOST_NAME);
        let name = name.ok_or("the token does not say in a few words whose it is (sub)")?;
        Ok(Claimed {
            caller: Arc::new(Caller {
                name: Arc::from(name),
                roles: roles(claims, &policy.roles_claim).into_iter().collect(),
            }),
            expires,
            begins: number(claims, "nbf")?.unwrap_or(f64::MIN),
        })
    }
}

fn text<'a>(claims: &'a Value, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str()
}

fn number(claims: &Value, name: &str) -> Result<Option<f64>, String> {
    let found = claims.get(name).map(Value::as_f64);
    match found {
        Some(None) => Err(format!("the token's {name} is no number")),
        found => Ok(found.flatten()),
    }
}

/// Roles in a claim, a list or a text with spaces between them; others' roles are none of ours. Some issuers
/// have whole URLs as names of claims, so that a name as it stands goes before its parts.
fn roles(claims: &Value, named: &str) -> Vec<Role> {
    let parts = || {
        named
            .split('.')
            .try_fold(claims, |value, part| value.get(part))
    };
    match claims.get(named).or_else(parts) {
        Some(Value::String(text)) => text.split(' ').filter_map(Role::named).collect(),
        Some(Value::Array(values)) => {
            let names = values.iter().filter_map(Value::as_str);
            names.filter_map(Role::named).collect()
        }
        _ => Vec::new(),
    }
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&json).ok()
}

/// The head of a token (RFC 7515).
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl Header {
    fn may_be_of(&self, key: &Key) -> bool {
        let named = self.kid.is_none() || key.id.is_none() || self.kid == key.id;
        named && self.alg == key.public.algorithm()
    }
}

/// A public key of the issuer (RFC 7517).
struct Key {
    id: Option<String>,
    public: Public,
}

enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Public {
    /// The one algorithm that the key is used with.
    const fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::P256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }
}

impl Key {
    /// None for one that is not for signatures, or of another kind.
    fn read(jwk: &Value) -> Option<Self> {
        let bytes = |name| URL_SAFE_NO_PAD.decode(text(jwk, name)?).ok();
        let coordinate = |name| bytes(name).filter(|bytes| bytes.len() == 32);
        let public = match (text(jwk, "kty")?, text(jwk, "crv")) {
            ("RSA", _) => Public::Rsa {
                n: bytes("n")?,
                e: bytes("e")?,
            },
            ("EC", Some("P-256")) => {
                Public::P256([vec![4], coordinate("x")?, coordinate("y")?].concat())
            }
            ("OKP", Some("Ed25519")) => Public::Ed25519(coordinate("x")?),
            _ => return None,
        };
        let says = |name, wanted| text(jwk, name).is_none_or(|found| found == wanted);
        let ours = says("use", "sig") && says("alg", public.algorithm());
        ours.then(|| Self {
            id: text(jwk, "kid").map(str::to_owned),
            public,
        })
    }

    fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        let verified = match &self.public {
            Public::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                signed,
                signature,
            ),
            Public::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            Public::Ed25519(point) => {
                UnparsedPublicKey::new(&ED25519, point).verify(signed, signature)
            }
        };
        verified.is_ok()
    }
}

#[cfg(test)]
mod tests;
