//! The file that says who may ask for what.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jitney_settings::rule::{Parsed, Text, seconds};
use jitney_settings::{Report, Table, read_document};

use crate::model::{Access, Certificate, Digest, JwtPolicy, Role, Roles, Subject, Token};

/// Entries of a list: each is looked at for each request.
const MOST: usize = 1_000;

const ROLE: Parsed<Role> = Parsed {
    parse: Role::named,
    allowed: "\"infer\", \"observe\", \"operate\"",
};

const DIGEST: Parsed<Digest> = Parsed {
    parse: digest,
    allowed: "64 hexadecimal digits, as `jitney token` prints them",
};

/// Reads the text of such a file.
pub fn read_access(file: &Path, source: &str) -> Result<Access, Report> {
    read_document(file, source, |table| {
        let access = Access {
            tokens: table.sections("tokens", token).unwrap_or_default(),
            certificates: table
                .sections("certificates", certificate)
                .unwrap_or_default(),
            jwt: table.section("jwt", |table| jwt(file, table)),
        };
        few(table, "tokens", access.tokens.len());
        few(table, "certificates", access.certificates.len());
        twice(table, &access.tokens);
        access
    })
}

fn few(table: &mut Table<'_, '_>, key: &str, count: usize) {
    if count > MOST {
        let message = format!("found {count}; allowed: at most {MOST}");
        table.contradict(key, message);
    }
}

/// One secret cannot stand for two callers.
fn twice(table: &mut Table<'_, '_>, tokens: &[Token]) {
    let mut digests: Vec<&Digest> = tokens.iter().map(|token| &token.digest).collect();
    digests.sort();
    if digests.windows(2).any(|pair| pair.first() == pair.last()) && table.is_sound() {
        table.contradict("tokens", "two of them have the same sha256".to_owned());
    }
}

fn token(table: &mut Table<'_, '_>) -> Token {
    let name = name(table);
    let roles = roles(table);
    let digest = table.value("sha256", DIGEST);
    let digest = table.required("sha256", digest, "`jitney token` prints it");
    Token {
        name,
        roles,
        digest: digest.unwrap_or_default(),
    }
}

fn certificate(table: &mut Table<'_, '_>) -> Certificate {
    let alternative = table.value("san", Text);
    let common = table.value("common_name", Text);
    if alternative.is_some() == common.is_some() && table.is_sound() {
        let message = "say either san or common_name, by which the certificate is known";
        table.contradict("san", message.to_owned());
    }
    let common = common.map(Subject::CommonName);
    let subject = alternative.map(Subject::Alternative).or(common);
    Certificate {
        name: name(table),
        roles: roles(table),
        subject: subject.unwrap_or(Subject::CommonName(String::new())),
    }
}

fn jwt(file: &Path, table: &mut Table<'_, '_>) -> JwtPolicy {
    let minute = Duration::from_secs(60);
    let mut text = |key, why| {
        let value = table.value(key, Text);
        table.required(key, value, why).unwrap_or_default()
    };
    let issuer = text("issuer", "say what iss has to be");
    let audience = text("audience", "say what aud has to be");
    let keys = text("keys", "name the file of the issuer's keys, a JWK set");
    JwtPolicy {
        issuer,
        audience,
        keys: beside(file, keys),
        roles_claim: table
            .value("roles_claim", Text)
            .unwrap_or_else(|| "roles".to_owned()),
        leeway: table
            .value("leeway_s", seconds(0.0..=600.0))
            .unwrap_or(minute),
    }
}

fn beside(file: &Path, named: String) -> PathBuf {
    match file.parent() {
        Some(folder) => folder.join(named),
        None => PathBuf::from(named),
    }
}

fn name(table: &mut Table<'_, '_>) -> String {
    let name = table.value("name", Text);
    let name = table.required("name", name, "say who it is");
    name.unwrap_or_default()
}

fn roles(table: &mut Table<'_, '_>) -> Roles {
    let roles = table.list("roles", ROLE);
    let roles = table.required("roles", roles, "say what the caller may do");
    roles.into_iter().flatten().collect()
}

fn digest(text: &str) -> Option<Digest> {
    let mut bytes = Digest::default();
    let is_hex = text.len() == 2 * bytes.len() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex {
        return None;
    }
    for (index, byte) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * index..2 * index + 2)?;
        *byte = u8::from_str_radix(pair, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<Access, String> {
        read_access(Path::new("/etc/identity.toml"), source).map_err(|report| report.to_string())
    }

    #[test]
    fn everybody_is_read() {
        let source = format!(
            r#"
[[tokens]]
name = "ci"
roles = ["infer", "observe"]
sha256 = "{}"

[[certificates]]
name = "billing"
san = "spiffe://cluster/ns/billing"
roles = ["infer"]

[[certificates]]
name = "admin"
common_name = "admin"
roles = ["operate"]

[jwt]
issuer = "https://issuer"
audience = "jitney"
keys = "keys.json"
"#,
            "0aFF".repeat(16)
        );
        let access = read(&source).unwrap();
        assert_eq!(access.tokens[0].digest[..4], [0x0a, 0xff, 0x0a, 0xff]);
        let roles = access.tokens[0].roles;
        assert!(roles.has(Role::Infer) && roles.has(Role::Observe) && !roles.has(Role::Operate));
        let san = Subject::Alternative("spiffe://cluster/ns/billing".to_owned());
        assert_eq!(access.certificates[0].subject, san);
        let common = Subject::CommonName("admin".to_owned());
        assert_eq!(access.certificates[1].subject, common);
        let jwt = access.jwt.unwrap();
        assert_eq!(jwt.keys, Path::new("/etc/keys.json"));
        assert_eq!(
            (jwt.roles_claim.as_str(), jwt.leeway.as_secs()),
            ("roles", 60)
        );
    }

    #[test]
    fn every_mistake_has_its_line() {
        for (source, told) in [
            (
                "[[tokens]]\nname = \"a\"\nroles = [\"root\"]",
                "3: tokens[0].roles[0]: found \"root\"; allowed: \"infer\", \"observe\", \"operate\"",
            ),
            (
                "[[tokens]]\nname = \"a\"\nroles = []\nsha256 = \"0g\"",
                "4: tokens[0].sha256: found \"0g\"; allowed: 64",
            ),
            (
                "[[tokens]]\nroles = []",
                "1: tokens[0].name: missing; say who it is",
            ),
            ("[[tokens]]\nname = \"a\"", "1: tokens[0].roles: missing"),
            (
                "[[certificates]]\nname = \"a\"\nroles = []",
                "1: certificates[0].san: say either",
            ),
            (
                "[jwt]\nissuer = \"a\"\nkeys = \"k\"",
                "1: jwt.audience: missing",
            ),
            ("[[token]]", "1: token: unknown key; did you mean tokens?"),
        ] {
            let report = read(source).unwrap_err();
            assert!(report.contains(told), "{report}");
        }
        let twice = format!(
            "[[tokens]]\nname = \"a\"\nroles = []\nsha256 = \"{}\"\n",
            "00".repeat(32)
        );
        let report = read(&twice.repeat(2)).unwrap_err();
        assert!(
            report.contains("two of them have the same sha256"),
            "{report}"
        );
    }
}
