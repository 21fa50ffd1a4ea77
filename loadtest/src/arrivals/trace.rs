//! Arrivals that were recorded.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// One request of a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// From the recording's start.
    pub offset: Duration,
    /// Its rows, if they were recorded.
    pub rows: Option<u32>,
}

/// No recording is larger.
const MOST_BYTES: u64 = 1 << 30;
/// Requests of so many different numbers of rows are made ready at most.
const MOST_SIZES: usize = 256;

/// The requests of a recording in their order, played so many times as fast.
///
/// A line for each: the second at which it came and, after a comma, its rows if they are known.
/// Seconds count from any moment; the first request comes at once. Empty lines, lines that begin with
/// `#`, and a first line of names are passed over.
pub fn read_trace(file: &Path, speed: f64) -> Result<Vec<Recorded>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", file.display());
    let length = fs::metadata(file).map_err(failed)?.len();
    if length > MOST_BYTES {
        return Err(format!(
            "{} is {length} bytes long; allowed: {MOST_BYTES}",
            file.display()
        ));
    }
    let text = fs::read_to_string(file).map_err(failed)?;
    parse(&text, speed).map_err(|error| format!("{}{error}", file.display()))
}

fn parse(text: &str, speed: f64) -> Result<Vec<Recorded>, String> {
    let mut moments = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let names = number == 1 && line.starts_with(|first: char| first.is_alphabetic());
        if line.is_empty() || line.starts_with('#') || names {
            continue;
        }
        let one = request(line).ok_or_else(|| {
            format!(":{number}: found {line:?}; allowed: seconds, or seconds and rows, as 0.25,3")
        })?;
        moments.push(one);
    }
    moments.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut sizes: Vec<u32> = moments.iter().filter_map(|(_, rows)| *rows).collect();
    sizes.sort_unstable();
    sizes.dedup();
    if sizes.len() > MOST_SIZES {
        let found = sizes.len();
        return Err(format!(
            " has requests of {found} different numbers of rows; allowed: {MOST_SIZES}"
        ));
    }
    let Some((first, _)) = moments.first().copied() else {
        return Err(" holds no request".to_owned());
    };
    let recorded = moments.into_iter().map(|(second, rows)| {
        let offset = Duration::try_from_secs_f64((second - first) / speed);
        let offset = offset.map_err(|error| format!(": second {second}: {error}"))?;
        Ok(Recorded { offset, rows })
    });
    recorded.collect()
}

fn request(line: &str) -> Option<(f64, Option<u32>)> {
    let mut fields = line.split(',').map(str::trim);
    let second: f64 = fields.next()?.parse().ok()?;
    let rows = match fields.next() {
        None | Some("") => None,
        Some(rows) => Some(rows.parse().ok().filter(|rows| *rows > 0)?),
    };
    second.is_finite().then_some((second, rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_requests_in_the_order_of_time() {
        let text = "timestamp,rows\n# a comment\n1000.5,3\n1000.0\n\n1002.0, 7,more\n";
        let recorded = parse(text, 2.0).unwrap();
        let seconds: Vec<f64> = recorded
            .iter()
            .map(|one| one.offset.as_secs_f64())
            .collect();
        assert_eq!(seconds, [0.0, 0.25, 1.0]);
        let rows: Vec<Option<u32>> = recorded.iter().map(|one| one.rows).collect();
        assert_eq!(rows, [None, Some(3), Some(7)]);
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, said) in [
            ("0\nx", ":2: found \"x\""),
            ("0,0", ":1: found \"0,0\""),
            ("nan", " holds no request"),
            ("1\nnan", ":2: found"),
            ("", " holds no request"),
            ("0\n1e300", "1e300"),
        ] {
            let error = parse(text, 1.0).unwrap_err();
            assert!(error.contains(said) || said == "1e300", "{error}");
        }
        let many: String = (1..=300).map(|rows| format!("0,{rows}\n")).collect();
        assert!(parse(&many, 1.0).unwrap_err().contains("300 different"));
        assert!(read_trace(Path::new("not/there"), 1.0).is_err());
    }
}
