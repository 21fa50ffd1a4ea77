//! Whom a call's headers and its connection name.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::Caller;
use super::jwt::Jwt;
use crate::model::{Access, Digest, Roles, Subject};

/// The header of those who cannot send `authorization`.
const API_KEY: &str = "x-api-key";
/// Longer than any token is; what is longer is not even hashed.
const MOST_BYTES: usize = 16 * 1024;

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(in crate::frontend) struct Peer {
    /// From where.
    pub(in crate::frontend) address: IpAddr,
    /// What the certificate says, if there is one.
    pub(in crate::frontend) subjects: Vec<Subject>,
}

/// Everybody who is known.
#[derive(Debug)]
pub(in crate::frontend) struct Known {
    tokens: Vec<(Digest, Arc<Caller>)>,
    subjects: HashMap<Subject, Arc<Caller>>,
    jwt: Option<Jwt>,
}

impl Known {
    pub(super) fn new(access: Access, jwt: Option<Jwt>) -> Self {
        let tokens = access.tokens.into_iter();
        let certificates = access.certificates.into_iter();
        Self {
            tokens: tokens
                .map(|token| (token.digest, caller(&token.name, token.roles)))
                .collect(),
            subjects: certificates
                .map(|known| (known.subject, caller(&known.name, known.roles)))
                .collect(),
            jwt,
        }
    }

    pub(super) fn needs_certificates(&self) -> bool {
        !self.subjects.is_empty()
    }

    /// Who asks, at `now` in seconds since the Unix epoch, or why nobody knows. A secret goes before a
    /// certificate, and one that is wrong is not made good by a certificate.
    pub(in crate::frontend) fn caller(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
        now: u64,
    ) -> Result<Arc<Caller>, String> {
        match secret(headers)? {
            Some(secret) => self.by_secret(&secret, now),
            None => self.by_certificate(peer),
        }
    }

    fn by_secret(&self, secret: &str, now: u64) -> Result<Arc<Caller>, String> {
        if secret.len() > MOST_BYTES {
            return Err(format!("the token is longer than {MOST_BYTES} bytes"));
        }
        match &self.jwt {
            Some(jwt) if secret.contains('.') => jwt.caller(secret, now),
            _ => self.by_token(secret),
        }
    }

    /// Every token is compared, each as a whole, so that the time tells nothing.
    fn by_token(&self, secret: &str) -> Result<Arc<Caller>, String> {
        let digest = digest(&SHA256, secret.as_bytes());
        let equals = |known: &Digest| bool::from(known.as_slice().ct_eq(digest.as_ref()));
        let found = self.tokens.iter().fold(
            None,
            |found, (known, caller)| {
                if equals(known) { Some(caller) } else { found }
            },
        );
        let found = found.map(Arc::clone);
        found.ok_or_else(|| "the token is nobody's who is known".to_owned())
    }

    fn by_certificate(&self, peer: Option<&Peer>) -> Result<Arc<Caller>, String> {
        let subjects = peer.map_or(&[][..], |peer| &peer.subjects);
        let mut callers = subjects.iter().filter_map(|name| self.subjects.get(name));
        let found = callers.next().map(Arc::clone);
        found.ok_or_else(|| match subjects.is_empty() {
            true => "say who you are: authorization: Bearer TOKEN, or x-api-key: TOKEN".to_owned(),
            false => "the certificate is nobody's who is known".to_owned(),
        })
    }
}

fn caller(name: &str, roles: Roles) -> Arc<Caller> {
    Arc::new(Caller {
        name: Arc::from(name),
        roles,
    })
}

/// What a call says to prove who it is from. Of a name and a password, as browsers ask people for them, it
/// is the password.
fn secret(headers: &HeaderMap) -> Result<Option<String>, String> {
    let text = |name: &str| {
        let value = headers.get(name)?;
        Some(value.to_str().map_err(|_| format!("{name}: is no text")))
    };
    let Some(said) = text(AUTHORIZATION.as_str()).transpose()? else {
        return Ok(text(API_KEY).transpose()?.map(str::to_owned));
    };
    let (scheme, rest) = said.split_once(' ').unwrap_or((said, ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(rest.to_owned()));
    }
    let password = || {
        let bytes = STANDARD.decode(rest).ok()?;
        let text = String::from_utf8(bytes).ok()?;
        Some(text.split_once(':')?.1.to_owned())
    };
    match scheme.eq_ignore_ascii_case("basic") {
        true => password()
            .map(Some)
            .ok_or_else(|| "authorization: Basic is NAME:TOKEN in base64".to_owned()),
        false => Err("authorization: found another scheme; allowed: Bearer TOKEN".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Certificate, Role, Token};

    fn known() -> Known {
        let mut sha = Digest::default();
        sha.copy_from_slice(digest(&SHA256, b"secret").as_ref());
        let roles: Roles = [Role::Infer].into_iter().collect();
        let access = Access {
            tokens: vec![Token {
                name: "token".to_owned(),
                roles,
                digest: sha,
            }],
            certificates: vec![Certificate {
                name: "certificate".to_owned(),
                roles,
                subject: Subject::Alternative("a.example".to_owned()),
            }],
            jwt: None,
        };
        Known::new(access, None)
    }

    fn ask(headers: &[(&'static str, &str)], subjects: &[Subject]) -> Result<String, String> {
        let peer = Peer {
            address: IpAddr::from([127, 0, 0, 1]),
            subjects: subjects.to_vec(),
        };
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        let caller = known().caller(&headers, Some(&peer), 0)?;
        Ok(caller.name.to_string())
    }

    #[test]
    fn a_secret_is_heard_in_every_form() {
        for header in [
            ("authorization", "Bearer secret"),
            ("authorization", "bearer  secret"),
            ("authorization", "Basic YW55Ym9keTpzZWNyZXQ="),
            ("x-api-key", "secret"),
        ] {
            assert_eq!(ask(&[header], &[]).unwrap(), "token", "{header:?}");
        }
        for header in [
            ("authorization", "Bearer secre"),
            ("authorization", "Bearer secret2"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer a.b.c"),
            ("authorization", "secret"),
            ("authorization", "Digest secret"),
            ("authorization", "Basic !"),
            ("authorization", "Basic c2VjcmV0"),
            ("x-api-key", ""),
        ] {
            assert!(ask(&[header], &[]).is_err(), "{header:?}");
        }
        let long = "a".repeat(MOST_BYTES + 1);
        let told = ask(&[("x-api-key", &long)], &[]).unwrap_err();
        assert!(told.contains("longer"), "{told}");
    }

    #[test]
    fn a_certificate_speaks_where_nothing_else_does() {
        let ours = Subject::Alternative("a.example".to_owned());
        let other = Subject::CommonName("a.example".to_owned());
        assert_eq!(
            ask(&[], &[other.clone(), ours.clone()]).unwrap(),
            "certificate"
        );
        assert!(ask(&[], &[other]).unwrap_err().contains("certificate"));
        let key = ("x-api-key", "secret");
        assert_eq!(ask(&[key], std::slice::from_ref(&ours)).unwrap(), "token");
        assert!(ask(&[("x-api-key", "wrong")], &[ours]).is_err());
        assert!(ask(&[], &[]).unwrap_err().contains("say who you are"));
    }
}
