//! A JSON value cut into its elements, without a look at what they mean.

use fast_float2::FastFloat;

/// What Python's json writes for numbers that JSON has no word for; Protobuf's JSON has them as text.
const NOT_FINITE: [&str; 3] = ["NaN", "-Infinity", "Infinity"];

/// The words of a JSON value that is sound: numbers, strings with their quotes, truth values and null,
/// in whatever lists they stand.
#[derive(Clone)]
pub(super) struct Words<'a> {
    rest: &'a str,
}

impl<'a> Words<'a> {
    pub(super) fn new(json: &'a str) -> Self {
        Self { rest: json }
    }

    /// The next word: a number, or what is there in its place. Most documents are long lists of numbers,
    /// and so the end of each is found by reading it.
    pub(super) fn next_number<T: FastFloat>(&mut self) -> Option<Result<T, &'a str>> {
        self.pass_over_what_is_between();
        let (number, length) = match fast_float2::parse_partial(self.rest) {
            Ok(read) => read,
            Err(_) => return self.next().map(Err),
        };
        let (word, rest) = self.rest.split_at_checked(length)?;
        // "inf" and "nan" are numbers to who reads them, and no words of JSON.
        let ends = rest.bytes().next().is_none_or(is_between);
        let begins = word.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if !ends || !begins {
            return self.next().map(Err);
        }
        self.rest = rest;
        Some(Ok(number))
    }

    fn pass_over_what_is_between(&mut self) {
        let begins = self.rest.bytes().position(|byte| !is_between(byte));
        let begins = begins.unwrap_or(self.rest.len());
        self.rest = self.rest.get(begins..).unwrap_or_default();
    }
}

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.pass_over_what_is_between();
        let bytes = self.rest.as_bytes();
        let length = match bytes {
            [] => return None,
            [b'"', ..] => string_length(bytes),
            _ => bytes.iter().position(|byte| is_between(*byte)),
        };
        let length = length.unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(word)
    }
}

/// Whether a byte stands between elements.
fn is_between(byte: u8) -> bool {
    matches!(byte, b',' | b'[' | b']' | b' ' | b'\n' | b'\r' | b'\t')
}

/// How long the string at the front is, its quotes among it; none if it does not end.
fn string_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let closing = text.iter().skip(1).position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    });
    Some(closing? + 2)
}

/// The same document with bare `NaN`, `Infinity` and `-Infinity` in quotes; none if it has no such.
pub(super) fn quoted(json: &[u8]) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut rest = json;
    let mut found = false;
    while let Some((first, tail)) = rest.split_first() {
        let bare = |word: &&&str| rest.starts_with(word.as_bytes());
        let length = match (first, NOT_FINITE.iter().find(bare)) {
            (_, Some(word)) => {
                found = true;
                all.extend([b"\"", word.as_bytes(), b"\""].concat());
                rest = rest.get(word.len()..)?;
                continue;
            }
            (b'"', None) => string_length(rest)?,
            _ => 1 + tail.iter().take_while(|byte| is_plain(**byte)).count(),
        };
        let (same, after) = rest.split_at_checked(length)?;
        all.extend_from_slice(same);
        rest = after;
    }
    found.then_some(all)
}

/// Whether neither a string nor a bare word begins with this byte.
fn is_plain(byte: u8) -> bool {
    !matches!(byte, b'"' | b'N' | b'I' | b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(json: &str) -> Vec<&str> {
        Words::new(json).collect()
    }

    #[test]
    fn lists_fall_apart_into_words() {
        assert_eq!(
            words("[1,-2.5e3,[true, null]]"),
            ["1", "-2.5e3", "true", "null"]
        );
        assert_eq!(
            words(r#" ["a,[", "\"\\", "é"] "#),
            [r#""a,[""#, r#""\"\\""#, r#""é""#]
        );
        assert_eq!(words("7"), ["7"]);
        assert_eq!(words("[[],[ ]]"), [""; 0]);
        assert_eq!(words("\"open"), ["\"open"]);
    }

    #[test]
    fn numbers_are_read_and_other_words_are_told() {
        let mut words = Words::new(r#"[1.5, -2e2,"NaN",[nan,-0] ,true, 1x]"#);
        let read: Vec<_> = std::iter::from_fn(|| words.next_number::<f32>()).collect();
        let told = [
            Ok(1.5),
            Ok(-200.0),
            Err("\"NaN\""),
            Err("nan"),
            Ok(-0.0),
            Err("true"),
            Err("1x"),
        ];
        assert_eq!(read, told);
    }

    #[test]
    fn bare_words_get_quotes_outside_of_strings() {
        let json = r#"{"NaN\"":[NaN,-Infinity,Infinity,-1,"Infinity"]}"#;
        let told = r#"{"NaN\"":["NaN","-Infinity","Infinity",-1,"Infinity"]}"#;
        assert_eq!(quoted(json.as_bytes()).as_deref(), Some(told.as_bytes()));
        assert_eq!(quoted(br#"{"a":[1,-2,"NaN"]}"#), None);
        assert_eq!(quoted(br#"{"NaN"#), None);
    }
}
