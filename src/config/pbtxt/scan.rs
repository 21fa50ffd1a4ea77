//! Looks over a text before it is parsed: notes the line of each field, and writes out what
//! Triton's reader takes and a strict one does not (`input [`, a comma before a bracket).

use std::collections::HashMap;
use std::ops::Range;

use super::places::Places;

/// Nothing in a ModelConfig is nearly as deep; the parser takes a level of the stack for each.
const MOST_DEPTH: usize = 32;

/// A text as a strict parser takes it. It has the same lines.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) text: String,
    /// Where each field of the outermost level is, with what follows it up to the next.
    pub(super) fields: Vec<Range<usize>>,
    pub(super) places: Places,
}

/// A text that is nested too deep, on this line.
#[derive(Debug)]
pub(super) struct TooDeep(pub(super) usize);

/// Looks over `source`. A text that no parser takes comes out as wrong as it was.
pub(super) fn scan(source: &str) -> Result<Scanned, TooDeep> {
    let mut scanner = Scanner::default();
    let mut rest = source;
    while let Some(token) = Token::first(rest) {
        scanner.take(&token)?;
        rest = rest.get(token.text().len()..).unwrap_or("");
    }
    scanner.drop_comma();
    scanner.end_field();
    Ok(Scanned {
        text: scanner.text,
        fields: scanner.fields,
        places: scanner.places,
    })
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'s> {
    Space(&'s str),
    Name(&'s str),
    /// A text in quotes or a number.
    Value(&'s str),
    Mark(&'s str),
}

impl<'s> Token<'s> {
    fn first(rest: &'s str) -> Option<Self> {
        let first = rest.chars().next()?;
        let run = |is_part: fn(char) -> bool| {
            let end = rest.find(|letter| !is_part(letter));
            rest.get(..end.unwrap_or(rest.len())).unwrap_or(rest)
        };
        Some(match first {
            '#' => Self::Space(run(|letter| letter != '\n')),
            '"' | '\'' => Self::Value(quoted(rest, first)),
            _ if first.is_whitespace() => Self::Space(run(char::is_whitespace)),
            _ if first.is_ascii_alphabetic() || first == '_' => Self::Name(run(|letter| {
                letter.is_ascii_alphanumeric() || letter == '_'
            })),
            _ if first.is_ascii_digit() => Self::Value(run(|letter| {
                letter.is_ascii_alphanumeric() || "._+".contains(letter)
            })),
            _ => Self::Mark(rest.get(..first.len_utf8()).unwrap_or(rest)),
        })
    }

    fn text(&self) -> &'s str {
        match self {
            Self::Space(text) | Self::Name(text) | Self::Value(text) | Self::Mark(text) => text,
        }
    }
}

/// A text in quotes, or as much as there is of it on its line.
fn quoted(rest: &str, quote: char) -> &str {
    let mut letters = rest.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '\n' => return rest.get(..at).unwrap_or(rest),
            _ if letter == quote => return rest.get(..=at).unwrap_or(rest),
            _ => {}
        }
    }
    rest
}

/// What may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Expects {
    #[default]
    Name,
    /// What separates a name from its value, or a message's bracket.
    Separator,
    Value,
}

/// A message or a list that has been opened.
#[derive(Debug, Default)]
struct Frame {
    path: String,
    line: usize,
    /// Of a list: how many elements were before it and in it.
    elements: Option<usize>,
    /// How often each field has been there.
    counts: HashMap<String, usize>,
}

#[derive(Debug, Default)]
struct Scanner {
    text: String,
    line: usize,
    fields: Vec<Range<usize>>,
    start: Option<usize>,
    places: Places,
    outer: Frame,
    frames: Vec<Frame>,
    expects: Expects,
    /// The name of the field whose value comes next, and its number.
    field: (String, usize),
    /// Where a comma is that nothing has followed yet.
    comma: Option<usize>,
}

impl Scanner {
    fn take(&mut self, token: &Token<'_>) -> Result<(), TooDeep> {
        match *token {
            Token::Space(_) => {}
            Token::Name(name) if self.expects != Expects::Value => self.name(name),
            Token::Name(value) | Token::Value(value) => self.value(value),
            Token::Mark(mark) => self.mark(mark)?,
        }
        if !matches!(token, Token::Space(_) | Token::Mark("," | ";")) {
            self.comma = None;
        }
        self.text.push_str(token.text());
        self.line += token.text().matches('\n').count();
        Ok(())
    }

    fn name(&mut self, name: &str) {
        if self.frames.is_empty() {
            self.end_field();
            self.start = Some(self.text.len());
        }
        let counts = &mut self.frame().counts;
        let count = counts.entry(name.to_owned()).or_default();
        let number = *count;
        *count += 1;
        self.field = (name.to_owned(), number);
        let path = self.path();
        self.places.put(&path, self.line + 1);
        self.expects = Expects::Separator;
    }

    fn value(&mut self, value: &str) {
        if self.expects != Expects::Value {
            // One more part of a text, or a mistake.
            return;
        }
        let line = self.line;
        if let Some(element) = self.element() {
            self.places.put(&element, line + 1);
            return;
        }
        if self.field.0 == "key" {
            self.call(value.trim_matches(['"', '\'']));
        }
        self.expects = Expects::Name;
    }

    /// The entry of a map is called by its key from here on.
    fn call(&mut self, key: &str) {
        let frame = self.frame();
        let Some(base) = frame.path.rfind('[').and_then(|end| frame.path.get(..end)) else {
            return;
        };
        frame.path = format!("{base}[{key}]");
        let (path, line) = (frame.path.clone(), frame.line);
        self.places.put(&path, line);
    }

    fn mark(&mut self, mark: &str) -> Result<(), TooDeep> {
        match mark {
            ":" if self.expects == Expects::Separator => self.expects = Expects::Value,
            "{" | "<" => self.open_message()?,
            "[" if self.expects != Expects::Name => {
                if self.expects == Expects::Separator {
                    self.text.push(':');
                }
                self.open_list()?;
            }
            "}" | ">" | "]" => {
                self.drop_comma();
                self.close();
            }
            "," | ";" => self.comma = Some(self.text.len()),
            _ => {}
        }
        Ok(())
    }

    fn open_message(&mut self) -> Result<(), TooDeep> {
        let path = match self.element() {
            Some(element) => element,
            None => self.path(),
        };
        self.places.put(&path, self.line + 1);
        self.expects = Expects::Name;
        self.open(path, None)
    }

    fn open_list(&mut self) -> Result<(), TooDeep> {
        let before = self.field.1;
        let path = self.path();
        let base = path.get(..path.rfind('[').unwrap_or(path.len()));
        self.expects = Expects::Value;
        self.open(base.unwrap_or(&path).to_owned(), Some(before))
    }

    fn open(&mut self, path: String, elements: Option<usize>) -> Result<(), TooDeep> {
        if self.frames.len() >= MOST_DEPTH {
            return Err(TooDeep(self.line + 1));
        }
        self.frames.push(Frame {
            path,
            line: self.line + 1,
            elements,
            counts: HashMap::new(),
        });
        Ok(())
    }

    fn close(&mut self) {
        let Some(closed) = self.frames.pop() else {
            return;
        };
        if let (Some(count), Some(name)) = (closed.elements, closed.path.rsplit('.').next()) {
            let counts = &mut self.frame().counts;
            counts.insert(name.to_owned(), count);
        }
        self.expects = match self.frame().elements {
            Some(_) => Expects::Value,
            None => Expects::Name,
        };
    }

    /// The path of the next element, if a list is open.
    fn element(&mut self) -> Option<String> {
        let frame = self.frame();
        let number = frame.elements?;
        frame.elements = Some(number + 1);
        Some(format!("{}[{number}]", frame.path))
    }

    /// The path of the field whose value comes next.
    fn path(&mut self) -> String {
        let (name, number) = self.field.clone();
        let frame = self.frame();
        let dot = if frame.path.is_empty() { "" } else { "." };
        format!("{}{dot}{name}[{number}]", frame.path)
    }

    fn frame(&mut self) -> &mut Frame {
        self.frames.last_mut().unwrap_or(&mut self.outer)
    }

    /// A comma that nothing follows is left out.
    fn drop_comma(&mut self) {
        if let Some(comma) = self.comma.take() {
            self.text.replace_range(comma..=comma, " ");
        }
    }

    fn end_field(&mut self) {
        if let Some(start) = self.start.take() {
            self.fields.push(start..self.text.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(source: &str) -> String {
        scan(source).unwrap().text
    }

    #[test]
    fn what_a_strict_parser_refuses_is_written_out() {
        assert_eq!(text("input [ { a: 1, }, ]"), "input :[ { a: 1  }  ]");
        assert_eq!(text("dims: [1, 2, ],"), "dims: [1, 2  ] ");
        assert_eq!(
            text("a [1] # b [\nc: \"d [,]\""),
            "a :[1] # b [\nc: \"d [,]\""
        );
        assert_eq!(text("a: 1, b: 2; c: 3;"), "a: 1, b: 2; c: 3 ");
    }

    #[test]
    fn every_field_has_its_line() {
        let source = "a: 1\nb [\n{ c: 1 },\n{ c: 2\nd: [3,\n4] } ]\nb { c: 5 }\n\
            m { key: \"x\"\nvalue { v: 1\n} }\nm {\nkey: 'y' value { v: 2 } }";
        let places = scan(source).unwrap().places;
        for (path, line) in [
            ("a", 1),
            ("b", 2),
            ("b[0].c", 3),
            ("b[1]", 4),
            ("b[1].d[1]", 6),
            ("b[2].c", 7),
            ("m[x]", 8),
            ("m[x].value.v", 9),
            ("m[y].value", 12),
            ("b[1].nothing", 4),
        ] {
            assert_eq!(places.line(path), Some(line), "{path}");
        }
        assert!(places.is_written("b") && !places.is_written("c"));
        assert_eq!(places.line("z"), None);
    }

    #[test]
    fn the_outermost_fields_are_told_apart() {
        let source = "a: B b { c: 1 }\nd [ 1 ]";
        let scanned = scan(source).unwrap();
        let field = |range: &Range<usize>| scanned.text[range.clone()].trim().to_owned();
        let fields: Vec<String> = scanned.fields.iter().map(field).collect();
        assert_eq!(fields, ["a: B", "b { c: 1 }", "d :[ 1 ]"]);
    }

    #[test]
    fn depth_is_bounded_and_no_text_makes_it_panic() {
        assert!(scan(&"a {".repeat(MOST_DEPTH)).is_ok());
        assert!(matches!(
            scan(&"a {\n".repeat(MOST_DEPTH + 1)),
            Err(TooDeep(33))
        ));
        for source in [
            "", "}", "]]", ",", "a:,]", "'", "\"\\", "[", "é: ü", "a [,", "key: 1", "\0",
        ] {
            let _ = scan(source);
        }
    }
}
