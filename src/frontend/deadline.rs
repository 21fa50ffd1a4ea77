//! When the client of a call wants its answer, which gRPC says in a header.

use std::time::Duration;

use http::{HeaderMap, HeaderName};

use crate::clock::Moment;

/// Made once: it is looked for in every call.
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The moment by which the client wants its answer, from `grpc-timeout`.
pub(super) fn deadline(arrived: Moment, headers: &HeaderMap) -> Option<Moment> {
    let text = headers.get(&TIMEOUT)?.to_str().ok()?;
    Some(arrived + timeout(text)?)
}

/// Reads `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, "Timeout").
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grpc_timeout() {
        assert_eq!(timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(timeout("1H"), Some(Duration::from_secs(3600)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for wrong in ["", "m", "+1m", "123456789m", "1x", "1 m", "µ"] {
            assert_eq!(timeout(wrong), None, "{wrong:?}");
        }
    }
}
