//! What a certificate says of whoever has it.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::model::Subject;

/// The names in a certificate: alternative ones, then the common one. None if it cannot be read.
pub(super) fn of(certificate: &[u8]) -> Vec<Subject> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let alternative = alternative.iter().flat_map(|names| {
        let names = names.value.general_names.iter();
        names.filter_map(named)
    });
    let common = certificate.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    let common = common.map(|name| Subject::CommonName(name.to_owned()));
    alternative.chain(common).collect()
}

fn named(name: &GeneralName<'_>) -> Option<Subject> {
    match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) | GeneralName::RFC822Name(name) => {
            Some(Subject::Alternative((*name).to_owned()))
        }
        _ => None,
    }
}

/// The hosts and IP addresses that a certificate names.
pub(super) fn hosts(certificate: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    let alternative = certificate.subject_alternative_name().ok().flatten();
    let names = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    names.filter_map(host).collect()
}

fn host(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes)
                .ok()
                .map(|ip| IpAddr::from(ip).to_string()),
            _ => <[u8; 16]>::try_from(*bytes)
                .ok()
                .map(|ip| IpAddr::from(ip).to_string()),
        },
        _ => None,
    }
}

/// Until when a certificate is good, in seconds since the Unix epoch.
pub(super) fn not_after(certificate: &[u8]) -> Option<u64> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    u64::try_from(certificate.validity().not_after.timestamp()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_told_and_the_end() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = ["a.example".to_owned()];
        let mut parameters = rcgen::CertificateParams::new(names).unwrap();
        let ip = rcgen::SanType::IpAddress([10, 0, 0, 1].into());
        parameters.subject_alt_names.push(ip);
        let spiffe = "spiffe://cluster/ns/a".try_into().unwrap();
        parameters
            .subject_alt_names
            .push(rcgen::SanType::URI(spiffe));
        let name = &mut parameters.distinguished_name;
        name.push(rcgen::DnType::CommonName, "a common name");
        parameters.not_after = rcgen::date_time_ymd(2040, 1, 2);
        let certificate = parameters.self_signed(&key).unwrap();
        let expected = [
            Subject::Alternative("a.example".to_owned()),
            Subject::Alternative("spiffe://cluster/ns/a".to_owned()),
            Subject::CommonName("a common name".to_owned()),
        ];
        assert_eq!(of(certificate.der()), expected);
        assert_eq!(hosts(certificate.der()), ["a.example", "10.0.0.1"]);
        assert_eq!(not_after(certificate.der()), Some(2_209_075_200));
        assert_eq!(of(b"\x30\x03"), []);
        assert_eq!(not_after(b""), None);
    }
}
