use std::time::Duration;

use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::json;

use super::*;

const NOW: u64 = 1_000_000;

fn packed(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// What an issuer has.
struct Issuer {
    edwards: Ed25519KeyPair,
    elliptic: EcdsaKeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let edwards = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let elliptic = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            edwards: Ed25519KeyPair::from_pkcs8(edwards.as_ref()).unwrap(),
            elliptic: EcdsaKeyPair::from_pkcs8(algorithm, elliptic.as_ref(), &random).unwrap(),
            random,
        }
    }

    fn jwks(&self) -> Value {
        let point = self.elliptic.public_key().as_ref();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "e", "x": packed(self.edwards.public_key()) },
            { "kty": "EC", "crv": "P-256", "kid": "p", "x": packed(&point[1..33]), "y": packed(&point[33..]) },
            { "kty": "oct", "kid": "h", "k": packed("secret") },
        ]})
    }

    fn jwt(&self) -> Jwt {
        let policy = JwtPolicy {
            issuer: "us".to_owned(),
            audience: "jitney".to_owned(),
            keys: "keys.json".into(),
            roles_claim: "roles".to_owned(),
            leeway: Duration::from_secs(60),
        };
        Jwt::new(policy, self.jwks().to_string().as_bytes()).unwrap()
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            packed(header.to_string()),
            packed(claims.to_string())
        );
        let signature = match header["alg"].as_str().unwrap() {
            "EdDSA" => self.edwards.sign(text.as_bytes()).as_ref().to_vec(),
            "ES256" => {
                let signed = self.elliptic.sign(&self.random, text.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
            // A server that takes the public key for a secret would believe this.
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.edwards.public_key().as_ref());
                hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{text}.{}", packed(signature))
    }
}

fn claims() -> Value {
    json!({ "iss": "us", "aud": "jitney", "sub": "somebody", "exp": NOW + 1,
            "roles": ["infer", "author"] })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

#[test]
fn every_algorithm_with_a_public_key_is_taken() {
    let issuer = Issuer::new();
    for header in [
        json!({ "alg": "EdDSA", "kid": "e" }),
        json!({ "alg": "EdDSA" }),
        json!({ "alg": "ES256", "kid": "p" }),
    ] {
        let token = issuer.signed(&header, &claims());
        let caller = issuer.jwt().caller(&token, NOW).unwrap();
        assert_eq!(&*caller.name, "somebody");
        assert!(caller.roles.has(Role::Infer) && !caller.roles.has(Role::Operate));
    }
}

#[test]
fn no_other_algorithm_is_and_no_other_key() {
    let issuer = Issuer::new();
    for header in [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "HS256", "kid": "e" }),
        json!({ "alg": "HS256", "kid": "h" }),
        // The right key of a wrong name.
        json!({ "alg": "EdDSA", "kid": "p" }),
        json!({ "alg": "EdDSA", "crit": ["exp"] }),
    ] {
        let token = issuer.signed(&header, &claims());
        assert!(issuer.jwt().caller(&token, NOW).is_err(), "{header}");
    }
    let token = Issuer::new().signed(&json!({ "alg": "EdDSA", "kid": "e" }), &claims());
    assert!(
        issuer
            .jwt()
            .caller(&token, NOW)
            .unwrap_err()
            .contains("no key")
    );
    // One bit of the claims, and the signature that was left out.
    let token = issuer.signed(&json!({ "alg": "EdDSA" }), &claims());
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, _) = signed.split_once('.').unwrap();
    let other = packed(with("roles", json!(["operate"])).to_string());
    for token in [
        format!("{header}.{other}.{signature}"),
        format!("{signed}."),
        signed.to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
    ] {
        assert!(issuer.jwt().caller(&token, NOW).is_err(), "{token}");
    }
}

#[test]
fn what_a_token_says_has_to_be_right() {
    let issuer = Issuer::new();
    let ask = |claims: &Value, now| {
        let token = issuer.signed(&json!({ "alg": "EdDSA" }), claims);
        let caller = issuer.jwt().caller(&token, now);
        caller.map(|caller| caller.roles)
    };
    let infer = Ok([Role::Infer].into_iter().collect());
    assert_eq!(ask(&claims(), NOW + 60), infer);
    assert!(ask(&claims(), NOW + 61).unwrap_err().contains("expired"));
    assert_eq!(ask(&with("nbf", json!(NOW + 60)), NOW), infer);
    assert_eq!(ask(&with("aud", json!(["a", "jitney"])), NOW), infer);
    assert_eq!(ask(&with("roles", json!("infer other")), NOW), infer);
    for (name, value, told) in [
        ("nbf", json!(NOW + 61), "nbf"),
        ("nbf", json!("soon"), "nbf is no number"),
        ("exp", Value::Null, "exp is no number"),
        ("iss", json!("them"), "issuer \"us\""),
        ("aud", json!("others"), "\"jitney\" (aud)"),
        ("aud", json!([]), "\"jitney\" (aud)"),
        ("sub", json!(1), "whose it is"),
        ("sub", json!("a".repeat(257)), "whose it is"),
    ] {
        let error = ask(&with(name, value), NOW).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    assert!(ask(&endless, NOW).unwrap_err().contains("when it ends"));
    assert_eq!(
        ask(&with("roles", json!(3)), NOW),
        Ok([].into_iter().collect())
    );
}

#[test]
fn a_token_that_was_believed_ends_all_the_same() {
    let issuer = Issuer::new();
    let jwt = issuer.jwt();
    let token = issuer.signed(&json!({ "alg": "ES256" }), &claims());
    assert!(jwt.caller(&token, NOW).is_ok());
    assert_eq!(jwt.seen().len(), 1);
    assert!(
        jwt.caller(&token, NOW + 61)
            .unwrap_err()
            .contains("expired")
    );
}

#[test]
fn roles_are_found_below_other_claims() {
    let claims = json!({ "realm": { "roles": ["observe"] }, "https://x.y/roles": "operate" });
    assert_eq!(roles(&claims, "realm.roles"), [Role::Observe]);
    assert_eq!(roles(&claims, "https://x.y/roles"), [Role::Operate]);
    assert_eq!(roles(&claims, "realm.none"), []);
}

#[test]
fn a_set_without_a_key_of_use_is_refused() {
    let told = |set: &str| {
        let policy = Issuer::new().jwt().policy;
        Jwt::new(policy, set.as_bytes()).unwrap_err()
    };
    assert!(told("{}").contains("no JWK set"));
    assert!(told("{\"keys\": [{\"kty\": \"oct\", \"k\": \"AA\"}]}").contains("no public key"));
    let encryption = "{\"kty\": \"RSA\", \"n\": \"AA\", \"e\": \"AQAB\", \"use\": \"enc\"}";
    assert!(told(&format!("{{\"keys\": [{encryption}]}}")).contains("no public key"));
    let key = "{\"kty\": \"RSA\", \"n\": \"AA\", \"e\": \"AQAB\"}";
    let many = format!("{{\"keys\": [{}]}}", [key; 65].join(","));
    assert!(told(&many).contains("found 65 keys"));
}
