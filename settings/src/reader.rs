//! Reads a TOML document key by key, and notes every mistake with its line.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Error};

use crate::report::{Problem, Problems, Report};
use crate::rule::{Rule, found};
use crate::spelling::closest;
use crate::written::Written;

/// Bytes of a key that messages show. What is longer is nobody's slip, and could be most of the file.
const MOST_SHOWN: usize = 64;

type Entry<'d> = &'d Spanned<DeValue<'d>>;

/// Reads `source`, the text of `file`, with `read`.
///
/// What `read` returns is handed on only if nothing was wrong, so it may put any value where it
/// noted a problem. A text that is not TOML is read as an empty one once its mistakes are noted:
/// what comes from elsewhere is still checked.
pub fn read_document<T>(
    file: &Path,
    source: &str,
    read: impl FnOnce(&mut Table<'_, '_>) -> T,
) -> Result<T, Report> {
    let (document, errors) = DeTable::parse_recoverable(source);
    let mut log = Log::new(file, source);
    if errors.is_empty() {
        let value = log.read(document.get_ref(), read);
        return Report::unless(value, log.problems);
    }
    log.unreadable = true;
    for error in &errors {
        log.syntax(error);
    }
    let value = log.read(&DeTable::new(), read);
    Report::unless(value, log.problems)
}

/// Notes that `file` cannot be read for this `reason`, and reads an empty document in its place.
pub fn read_without<T>(
    file: &Path,
    reason: &std::io::Error,
    read: impl FnOnce(&mut Table<'_, '_>) -> T,
) -> Result<T, Report> {
    let mut log = Log::new(file, "");
    log.unreadable = true;
    log.problems.note(|| Problem {
        file: Some(file.to_owned()),
        ..Problem::loose("", format!("cannot be read: {reason}"))
    });
    let value = log.read(&DeTable::new(), read);
    Report::unless(value, log.problems)
}

/// What was wrong with a document so far.
struct Log {
    file: PathBuf,
    source: String,
    /// Where each line but the first begins.
    lines: Vec<usize>,
    unreadable: bool,
    problems: Problems,
}

impl Log {
    fn new(file: &Path, source: &str) -> Self {
        Self {
            file: file.to_owned(),
            source: source.to_owned(),
            lines: source.match_indices('\n').map(|(at, _)| at + 1).collect(),
            unreadable: false,
            problems: Problems::default(),
        }
    }

    fn read<T>(&mut self, document: &DeTable<'_>, read: impl FnOnce(&mut Table<'_, '_>) -> T) -> T {
        Table::root(document, self).visit(read)
    }

    /// Notes what is wrong at an offset: the key, and what to say.
    fn note(&mut self, offset: usize, told: impl FnOnce() -> (String, String)) {
        let Self { file, lines, .. } = self;
        self.problems.note(|| {
            let (key, message) = told();
            Problem {
                file: Some(file.clone()),
                line: Some(before(lines, offset) + 1),
                ..Problem::loose(&key, message)
            }
        });
    }

    fn syntax(&mut self, error: &Error) {
        let offset = error.span().map_or(0, |span| span.start);
        let Self {
            file,
            source,
            lines,
            ..
        } = self;
        self.problems.note(|| {
            let line = before(lines, offset);
            let start = line.checked_sub(1).and_then(|line| lines.get(line));
            let before = source.get(start.copied().unwrap_or(0)..offset);
            Problem {
                file: Some(file.clone()),
                line: Some(line + 1),
                column: Some(before.map_or(0, |before| before.chars().count()) + 1),
                ..Problem::loose("", error.message().to_owned())
            }
        });
    }
}

/// How many lines end before an offset.
fn before(lines: &[usize], offset: usize) -> usize {
    lines.partition_point(|start| *start <= offset)
}

/// A table of a document that is being read. A key that is never asked for is unknown.
pub struct Table<'d, 'l> {
    entries: &'d DeTable<'d>,
    path: String,
    offset: usize,
    /// The keys that were asked for, in the order in which messages name them.
    asked: Vec<&'d str>,
    /// The same.
    known: HashSet<&'d str>,
    log: &'l mut Log,
}

impl<'d, 'l> Table<'d, 'l> {
    fn root(entries: &'d DeTable<'d>, log: &'l mut Log) -> Self {
        Self {
            entries,
            path: String::new(),
            offset: 0,
            asked: Vec::new(),
            known: HashSet::new(),
            log,
        }
    }

    /// The setting's value; none if it is absent or was noted as a problem.
    pub fn value<R: Rule>(&mut self, key: &'d str, rule: R) -> Option<R::Output> {
        let entry = self.ask(key)?;
        let path = self.path_of(key);
        self.check(entry, || path, &rule)
    }

    /// The setting's list of values; none if it is absent or no list.
    pub fn list<R: Rule>(&mut self, key: &'d str, rule: R) -> Option<Vec<R::Output>> {
        let array = self.array(key, "a list")?;
        let path = self.path_of(key);
        let mut values = Vec::new();
        for (index, entry) in array.iter().enumerate() {
            values.extend(self.check(entry, || format!("{path}[{index}]"), &rule));
        }
        Some(values)
    }

    /// What `read` makes of the table `key`; none if it is absent or no table.
    pub fn section<T>(
        &mut self,
        key: &'d str,
        read: impl FnOnce(&mut Table<'d, '_>) -> T,
    ) -> Option<T> {
        let entry = self.ask(key)?;
        let path = self.path_of(key);
        self.enter(entry, path, read)
    }

    /// What `read` makes of each table in the list `key`; none if it is absent or no list.
    pub fn sections<T>(
        &mut self,
        key: &'d str,
        mut read: impl FnMut(&mut Table<'d, '_>) -> T,
    ) -> Option<Vec<T>> {
        let array = self.array(key, "a list of tables")?;
        let path = self.path_of(key);
        let mut values = Vec::new();
        for (index, entry) in array.iter().enumerate() {
            values.extend(self.enter(entry, format!("{path}[{index}]"), &mut read));
        }
        Some(values)
    }

    /// `value`, or the note that `key` is missing, and `why` it is needed.
    pub fn required<T>(&mut self, key: &str, value: Option<T>, why: &str) -> Option<T> {
        if value.is_none() && self.lacks(key) {
            let path = self.path_of(key);
            self.log
                .note(self.offset, || (path, format!("missing; {why}")));
        }
        value
    }

    /// Notes that `key` is wrong in a way that no rule for it alone can say.
    pub fn contradict(&mut self, key: &str, message: String) {
        let offset = self.entries.get(key).map(|entry| entry.span().start);
        let path = self.path_of(key);
        let offset = offset.unwrap_or(self.offset);
        self.log.note(offset, || (path, message));
    }

    /// Notes what is wrong outside the document.
    pub fn note(&mut self, problem: Problem) {
        self.log.problems.note(|| problem);
    }

    /// Whether nothing is wrong so far.
    pub fn is_sound(&self) -> bool {
        self.log.problems.is_empty()
    }

    /// Whether the document lacks `key`. One that could not be read may have had it.
    pub fn lacks(&self, key: &str) -> bool {
        !self.log.unreadable && !self.entries.contains_key(key)
    }

    /// The value of `key` as it was written, to see what kind it is.
    pub fn written(&self, key: &str) -> Option<&'d DeValue<'d>> {
        self.entries.get(key).map(Spanned::get_ref)
    }

    /// Every key of the table, for a table whose keys the user chooses.
    pub fn keys(&self) -> Vec<&'d str> {
        let entries = self.entries;
        entries.keys().map(|key| key.get_ref().as_ref()).collect()
    }

    fn ask(&mut self, key: &'d str) -> Option<Entry<'d>> {
        if self.known.insert(key) {
            self.asked.push(key);
        }
        self.entries.get(key)
    }

    fn array(&mut self, key: &'d str, allowed: &str) -> Option<&'d DeArray<'d>> {
        let entry = self.ask(key)?;
        let path = self.path_of(key);
        match entry.get_ref() {
            DeValue::Array(array) => Some(array),
            _ => self.refuse(entry, &path, allowed),
        }
    }

    fn enter<T>(
        &mut self,
        entry: Entry<'d>,
        path: String,
        read: impl FnOnce(&mut Table<'d, '_>) -> T,
    ) -> Option<T> {
        let DeValue::Table(entries) = entry.get_ref() else {
            return self.refuse(entry, &path, "a table");
        };
        let mut inner = Table::root(entries, self.log);
        inner.path = path;
        inner.offset = entry.span().start;
        Some(inner.visit(read))
    }

    fn visit<T>(&mut self, read: impl FnOnce(&mut Self) -> T) -> T {
        let value = read(self);
        self.note_unknown();
        value
    }

    fn check<R: Rule>(
        &mut self,
        entry: Entry<'d>,
        path: impl FnOnce() -> String,
        rule: &R,
    ) -> Option<R::Output> {
        rule.check(Written::Toml(entry.get_ref()))
            .map_err(|message| self.log.note(entry.span().start, || (path(), message)))
            .ok()
    }

    fn refuse<T>(&mut self, entry: Entry<'d>, path: &str, allowed: &str) -> Option<T> {
        let told = || {
            let message = found(Written::Toml(entry.get_ref()), allowed);
            (path.to_owned(), message)
        };
        self.log.note(entry.span().start, told);
        None
    }

    fn note_unknown(&mut self) {
        let entries = self.entries;
        for key in entries.keys() {
            let name: &str = key.get_ref();
            if !self.known.contains(name) {
                let (around, asked) = (&self.path, &self.asked);
                let told = || (path_of(around, name), unknown(name, asked));
                self.log.note(key.span().start, told);
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        path_of(&self.path, key)
    }
}

/// The path of a key in the table at `around`.
fn path_of(around: &str, key: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let dot = if around.is_empty() { "" } else { "." };
    let shown = key.get(..key.floor_char_boundary(MOST_SHOWN));
    let shown = shown.unwrap_or(key);
    let more = if shown.len() < key.len() { "..." } else { "" };
    if !shown.is_empty() && shown.bytes().all(bare) {
        format!("{around}{dot}{shown}{more}")
    } else {
        format!("{around}{dot}{shown:?}{more}")
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let allowed = known.join(", ");
    // A longer one is no slip, and comparing takes time with its length.
    let likely = (name.len() <= MOST_SHOWN).then(|| closest(name, known));
    match likely.flatten() {
        Some(close) => format!("unknown key; did you mean {close}? allowed here: {allowed}"),
        None => format!("unknown key; allowed here: {allowed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::Text;

    #[test]
    fn text_that_is_not_toml_is_placed_by_line_and_column() {
        let report = read_document(Path::new("m.toml"), "a = 1\nb = = 2\n", |_| ()).unwrap_err();
        let first = report.problems().first().unwrap();
        assert_eq!((first.line, first.key.as_str()), (Some(2), ""));
        assert!(first.to_string().starts_with("m.toml:2:5: "), "{first}");
    }

    #[test]
    fn a_key_given_twice_is_a_problem() {
        let report = read_document(Path::new("m.toml"), "a = 1\na = 2\n", |_| ()).unwrap_err();
        assert_eq!(report.to_string(), "m.toml:2:1: duplicate key");
    }

    #[test]
    fn odd_keys_are_quoted() {
        let source = "[x]\n\"a.b\" = 1\n";
        let report = read_document(Path::new("m.toml"), source, |table| {
            table.section("x", |_| ())
        });
        let expected = "m.toml:2: x.\"a.b\": unknown key; allowed here: ";
        assert_eq!(report.unwrap_err().to_string(), expected);
    }

    /// What is wrong with a large file takes as long as the file is, and not as its square: minutes.
    #[test]
    fn of_many_mistakes_some_are_told_and_the_others_counted() {
        let lines = |line: &dyn Fn(usize) -> String| -> String { (0..20_000).map(line).collect() };
        let long = "k".repeat(500_000);
        for (source, more) in [
            (lines(&|number| format!("u{number} = 1\n")), 19_900),
            (lines(&|number| format!("l{number} = = 1\n")), 39_900),
            (format!("x = [{}]", "1, ".repeat(20_000)), 19_900),
            (
                format!("[t.{long}]\nx = [{}]", "1, ".repeat(20_000)),
                19_900,
            ),
            (
                format!(
                    "[t]\n{}{long} = 1",
                    lines(&|number| format!("k{number} = \"1\"\n"))
                ),
                0,
            ),
        ] {
            let report = read_document(Path::new("m.toml"), &source, |table| {
                table.list("x", Text);
                table.section("t", |table| {
                    for name in table.keys() {
                        if name.starts_with(&long) {
                            table.section(name, |table| table.list("x", Text));
                        } else {
                            table.value(name, Text);
                        }
                    }
                });
            });
            let told = report.unwrap_err();
            let lines = told.to_string();
            assert!(lines.len() < 50_000, "{} bytes", lines.len());
            match more {
                0 => assert_eq!(told.problems().len(), 1, "{lines}"),
                more => {
                    assert_eq!(told.problems().len(), Problems::MOST, "{lines}");
                    assert!(lines.ends_with(&format!("\nand {more} more")), "{lines}");
                }
            }
        }
    }

    #[test]
    fn a_line_is_that_of_the_key() {
        let source = "\na = 1\n\n  \"é\" = 2\nb = 3";
        let report = read_document(Path::new("m.toml"), source, |_| ()).unwrap_err();
        let lines: Vec<_> = report
            .problems()
            .iter()
            .map(|problem| problem.line)
            .collect();
        assert_eq!(lines, [Some(2), Some(4), Some(5)]);
    }

    #[test]
    fn no_text_makes_it_panic() {
        for source in [
            "", "\u{feff}", "=", "[", "[[a", "a=[[[", "\"", "a.b.c=", "é=ü", "\0",
        ] {
            let _ = read_document(Path::new("m.toml"), source, |table| {
                table.section("a", |table| table.keys().len())
            });
        }
    }
}
