//! Looks over a text before it is parsed: notes the line of each field, and writes out what
//! Triton's reader takes and a strict one does not (`input [`, a comma before a bracket).

use std::collections::HashMap;
use std::ops::Range;

use super::places::{MOST_PATH, Places};

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
    let mut scanner = Scanner::new();
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
#[derive(Debug)]
struct Frame {
    /// None if it is too long to be kept, as are those of all that is in it.
    path: Option<String>,
    line: usize,
    /// Of a list: how many elements were before it and in it.
    elements: Option<usize>,
    /// How often each field has been there.
    counts: HashMap<String, usize>,
}

impl Frame {
    fn open(path: Option<String>, line: usize, elements: Option<usize>) -> Self {
        Self {
            path,
            line,
            elements,
            counts: HashMap::new(),
        }
    }
}

#[derive(Debug)]
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
    fn new() -> Self {
        Self {
            text: String::new(),
            line: 0,
            fields: Vec::new(),
            start: None,
            places: Places::default(),
            outer: Frame::open(Some(String::new()), 0, None),
            frames: Vec::new(),
            expects: Expects::default(),
            field: (String::new(), 0),
            comma: None,
        }
    }

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
        self.put(path.as_deref());
        self.expects = Expects::Separator;
    }

    fn value(&mut self, value: &str) {
        if self.expects != Expects::Value {
            // One more part of a text, or a mistake.
            return;
        }
        if self.frame().elements.is_some() {
            let element = self.element();
            self.put(element.as_deref());
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
        let Some((base, _)) = frame.path.as_deref().and_then(|path| path.rsplit_once('[')) else {
            return;
        };
        let called = short(base, "[", key, "]");
        frame.path.clone_from(&called);
        let line = frame.line;
        if let Some(called) = called {
            self.places.put(&called, line);
        }
    }

    /// The field at this path is on this line.
    fn put(&mut self, path: Option<&str>) {
        if let Some(path) = path {
            self.places.put(path, self.line + 1);
        }
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
        let path = match self.frame().elements {
            Some(_) => self.element(),
            None => self.path(),
        };
        self.put(path.as_deref());
        self.expects = Expects::Name;
        self.open(path, None)
    }

    fn open_list(&mut self) -> Result<(), TooDeep> {
        let before = self.field.1;
        let mut path = self.path();
        if let Some(path) = &mut path {
            path.truncate(path.rfind('[').unwrap_or(path.len()));
        }
        self.expects = Expects::Value;
        self.open(path, Some(before))
    }

    fn open(&mut self, path: Option<String>, elements: Option<usize>) -> Result<(), TooDeep> {
        if self.frames.len() >= MOST_DEPTH {
            return Err(TooDeep(self.line + 1));
        }
        let frame = Frame::open(path, self.line + 1, elements);
        self.frames.push(frame);
        Ok(())
    }

    fn close(&mut self) {
        let Some(closed) = self.frames.pop() else {
            return;
        };
        if let (Some(count), Some(path)) = (closed.elements, &closed.path)
            && let Some(name) = path.rsplit('.').next()
        {
            let counts = &mut self.frame().counts;
            counts.insert(name.to_owned(), count);
        }
        self.expects = match self.frame().elements {
            Some(_) => Expects::Value,
            None => Expects::Name,
        };
    }

    /// The path of the next element of the list that is open, unless it is too long.
    fn element(&mut self) -> Option<String> {
        let frame = self.frame();
        let number = frame.elements?;
        frame.elements = Some(number + 1);
        Some(format!("{}[{number}]", frame.path.as_deref()?))
    }

    /// The path of the field whose value comes next, unless it is too long.
    fn path(&self) -> Option<String> {
        let around = self.frames.last().unwrap_or(&self.outer);
        let around = around.path.as_deref()?;
        let (name, number) = &self.field;
        let dot = if around.is_empty() { "" } else { "." };
        short(around, dot, name, &format!("[{number}]"))
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

/// The parts of a path put together, unless they are too long for any field that there is. They are as
/// much as the whole text, and it may be asked for them at each of its signs.
fn short(around: &str, before: &str, name: &str, after: &str) -> Option<String> {
    let length = around.len() + before.len() + name.len() + after.len();
    (length <= MOST_PATH).then(|| [around, before, name, after].concat())
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
    fn a_text_takes_no_more_memory_than_it_should() {
        let long = "n".repeat(10_000);
        for source in [
            format!("a [1]\n{long} [{}]\nb: 1", "1,".repeat(20_000)),
            format!("a [1]\n{long} {{ {} }}\nb: 1", "{}".repeat(20_000)),
            format!(
                "a [1]\nm {{ key: \"{long}\" v [{}] }}\nb: 1",
                "1,".repeat(20_000)
            ),
            format!(
                "a [1]\n{}{}\nb: 1",
                "nested {".repeat(31),
                "x: 1 ".repeat(150_000)
            ),
        ] {
            let places = scan(&source).unwrap().places;
            assert!(places.size() < 32 << 20, "{}", places.size());
            assert_eq!(places.line("a[0]"), Some(1));
            // What is not kept is where that is which is around it.
            assert_eq!(places.line(&format!("m[{long}].v[7]")), places.line("m"));
        }
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
