//! `jitney token`: makes a secret, and what the server has to know of it.

use anyhow::anyhow;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

use crate::model::Role;

/// Makes a token; prints it once, to stderr, and to stdout the lines for the file that --identity names.
///
/// The file has a SHA-256 of the token, of which nobody can make the token again.
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    /// Who it is for, as logs and limits tell callers apart.
    #[arg(long, value_name = "NAME")]
    name: String,

    /// What may be done with it: infer, observe or operate; may be repeated.
    #[arg(
        long = "role",
        value_name = "ROLE",
        required = true,
        value_delimiter = ',',
        value_parser = role
    )]
    roles: Vec<Role>,
}

fn role(text: &str) -> Result<Role, String> {
    Role::named(text).ok_or_else(|| "allowed: infer, observe, operate".to_owned())
}

impl Token {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let mut bytes = [0; 32];
        let filled = SystemRandom::new().fill(&mut bytes);
        filled.map_err(|_| anyhow!("the system has no random numbers"))?;
        let token = format!("jitney_{}", URL_SAFE_NO_PAD.encode(bytes));
        // Not where the lines go: `>>` is to put nothing secret into the file.
        eprintln!("the token, which is told only now: {token}");
        super::say!("{}", self.entry(&token));
        Ok(())
    }

    /// The lines for the file.
    fn entry(&self, token: &str) -> String {
        let digest = digest(&SHA256, token.as_bytes());
        let digest: String = digest
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let roles: Vec<String> = self
            .roles
            .iter()
            .map(|role| format!("{:?}", role.name()))
            .collect();
        let (name, roles) = (toml::Value::from(self.name.as_str()), roles.join(", "));
        format!("[[tokens]]\nname = {name}\nroles = [{roles}]\nsha256 = \"{digest}\"")
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read_access;

    #[test]
    fn what_is_printed_can_be_read() {
        let token = Token {
            name: "the \"ci\"\n".to_owned(),
            roles: vec![Role::Infer, Role::Observe],
        };
        let access = read_access(Path::new("f"), &token.entry("secret")).unwrap();
        let [known] = access.tokens.as_slice() else {
            panic!("one token is expected");
        };
        assert_eq!(known.name, token.name);
        assert_eq!(known.digest, digest(&SHA256, b"secret").as_ref());
        assert!(known.roles.has(Role::Observe) && !known.roles.has(Role::Operate));
    }
}
