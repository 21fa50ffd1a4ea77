//! What a client has to bring to be let in, as people type it.

use std::net::IpAddr;
use std::path::PathBuf;

use super::example::{quoted, text};

/// How clients are let in. What only they have is in variables of their shell: `TOKEN`, and `CERT` and `KEY`
/// with the paths of both.
#[derive(Clone, Debug, Default)]
pub struct Entry {
    /// TLS, if it is spoken.
    pub tls: Option<TlsEntry>,
    /// Whether clients have to have a token.
    pub wants_token: bool,
}

/// How clients of TLS are let in.
#[derive(Clone, Debug)]
pub struct TlsEntry {
    /// The server's certificate, which is enough to know the server by.
    pub certificate: PathBuf,
    /// Whom it names: hosts, of which one may begin with `*.`, and IP addresses.
    pub names: Vec<String>,
    /// Whether clients have to have a certificate.
    pub wants_certificate: bool,
}

impl TlsEntry {
    fn file(&self) -> String {
        self.certificate.display().to_string()
    }

    /// Whom the certificate names instead, where it does not name the host of this address.
    fn other_name(&self, address: &str) -> Option<&str> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let is_it = |name: &String| match name.strip_prefix('*') {
            Some(domain) => host
                .split_once('.')
                .is_some_and(|(_, rest)| domain.strip_prefix('.') == Some(rest)),
            None => name.eq_ignore_ascii_case(host),
        };
        let is_host = |name: &&String| !name.starts_with('*') && name.parse::<IpAddr>().is_err();
        match self.names.iter().any(is_it) {
            true => None,
            false => self.names.iter().find(is_host).map(String::as_str),
        }
    }
}

impl Entry {
    /// grpcurl, up to what it is to ask.
    pub(super) fn grpcurl(&self, address: &str) -> String {
        let mut line = "grpcurl".to_owned();
        match &self.tls {
            None => line.push_str(" -plaintext"),
            Some(tls) => {
                line.push_str(&format!(" -cacert {}", quoted(&tls.file())));
                if let Some(name) = tls.other_name(address) {
                    line.push_str(&format!(" -authority {}", quoted(name)));
                }
                if tls.wants_certificate {
                    line.push_str(" -cert \"$CERT\" -key \"$KEY\"");
                }
            }
        }
        line + self.header()
    }

    /// curl, up to the path that it is to ask.
    pub(super) fn curl(&self, address: &str) -> String {
        let Some(tls) = &self.tls else {
            return format!("curl -s{} http://{address}", self.header());
        };
        let mut line = format!("curl -s --cacert {}", quoted(&tls.file()));
        if tls.wants_certificate {
            line.push_str(" --cert \"$CERT\" --key \"$KEY\"");
        }
        line.push_str(self.header());
        match tls.other_name(address) {
            Some(name) => {
                line + &format!(
                    " --connect-to ::{address} {}",
                    quoted(&format!("https://{name}"))
                )
            }
            None => line + &format!(" https://{address}"),
        }
    }

    /// The arguments of tritonclient's client beside the address.
    pub(super) fn python(&self, address: &str) -> String {
        let Some(tls) = &self.tls else {
            return String::new();
        };
        let mut arguments = format!(", ssl=True, root_certificates={}", text(&tls.file()));
        if tls.wants_certificate {
            arguments.push_str(
                ", certificate_chain=os.environ[\"CERT\"], private_key=os.environ[\"KEY\"]",
            );
        }
        if let Some(name) = tls.other_name(address) {
            let name = text(name);
            arguments.push_str(&format!(
                ", channel_args=[(\"grpc.ssl_target_name_override\", {name})]"
            ));
        }
        arguments
    }

    /// What tritonclient's `infer` is told.
    pub(super) fn python_call(&self) -> &'static str {
        match self.wants_token {
            true => ", headers={\"authorization\": \"Bearer \" + os.environ[\"TOKEN\"]}",
            false => "",
        }
    }

    fn header(&self) -> &'static str {
        match self.wants_token {
            true => " -H \"authorization: Bearer $TOKEN\"",
            false => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(names: &[&str], wants_certificate: bool) -> Entry {
        Entry {
            tls: Some(TlsEntry {
                certificate: PathBuf::from("/etc/it's.crt"),
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                wants_certificate,
            }),
            wants_token: false,
        }
    }

    #[test]
    fn a_certificate_that_names_another_is_checked_for_that() {
        let tls = entry(&["10.0.0.1", "*.a.example", "b.example", "::1"], false);
        for named in [
            "10.0.0.1:8001",
            "x.a.example:1",
            "B.example:1",
            "b.example",
            "[::1]:8001",
        ] {
            assert_eq!(
                tls.grpcurl(named),
                r"grpcurl -cacert '/etc/it'\''s.crt'",
                "{named}"
            );
            assert_eq!(
                tls.curl(named),
                format!(r"curl -s --cacert '/etc/it'\''s.crt' https://{named}")
            );
            assert_eq!(
                tls.python(named),
                r#", ssl=True, root_certificates="/etc/it's.crt""#
            );
        }
        for other in ["127.0.0.1:1", "a.example:1", "x.y.a.example:1"] {
            assert!(
                tls.grpcurl(other).ends_with(" -authority 'b.example'"),
                "{other}"
            );
            let curl = format!(" --connect-to ::{other} 'https://b.example'");
            assert!(tls.curl(other).ends_with(&curl), "{other}");
            assert!(
                tls.python(other)
                    .ends_with(r#"("grpc.ssl_target_name_override", "b.example")]"#)
            );
        }
        // There is none to check it for.
        let nobody = entry(&["10.0.0.1", "*.a.example"], false);
        assert!(!nobody.grpcurl("127.0.0.1:1").contains("-authority"));
    }
}
