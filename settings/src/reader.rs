//! Reads a TOML document key by key, and notes every mistake with its line.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue, Error};

use crate::report::{Problem, Report};
use crate::rule::{Rule, found};
use crate::spelling::closest;
use crate::written::Written;

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
    log.problems.push(Problem {
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
    unreadable: bool,
    problems: Vec<Problem>,
}

impl Log {
    fn new(file: &Path, source: &str) -> Self {
        Self {
            file: file.to_owned(),
            source: source.to_owned(),
            unreadable: false,
            problems: Vec::new(),
        }
    }

    fn read<T>(&mut self, document: &DeTable<'_>, read: impl FnOnce(&mut Table<'_, '_>) -> T) -> T {
        Table::root(document, self).visit(read)
    }

    fn note(&mut self, offset: usize, key: &str, message: String) {
        let before = self.before(offset);
        self.problems.push(Problem {
            file: Some(self.file.clone()),
            line: Some(before.matches('\n').count() + 1),
            ..Problem::loose(key, message)
        });
    }

    fn syntax(&mut self, error: &Error) {
        let offset = error.span().map_or(0, |span| span.start);
        let line = self.before(offset).rsplit('\n').next();
        let column = line.map_or(0, |line| line.chars().count()) + 1;
        self.note(offset, "", error.message().to_owned());
        if let Some(problem) = self.problems.last_mut() {
            problem.column = Some(column);
        }
    }

    fn before(&self, offset: usize) -> &str {
        self.source.get(..offset).unwrap_or(&self.source)
    }
}

/// A table of a document that is being read. A key that is never asked for is unknown.
pub struct Table<'d, 'l> {
    entries: &'d DeTable<'d>,
    path: String,
    offset: usize,
    asked: Vec<&'d str>,
    log: &'l mut Log,
}

impl<'d, 'l> Table<'d, 'l> {
    fn root(entries: &'d DeTable<'d>, log: &'l mut Log) -> Self {
        Self {
            entries,
            path: String::new(),
            offset: 0,
            asked: Vec::new(),
            log,
        }
    }

    /// The setting's value; none if it is absent or was noted as a problem.
    pub fn value<R: Rule>(&mut self, key: &'d str, rule: R) -> Option<R::Output> {
        let entry = self.ask(key)?;
        let path = self.path_of(key);
        self.check(entry, &path, &rule)
    }

    /// The setting's list of values; none if it is absent or no list.
    pub fn list<R: Rule>(&mut self, key: &'d str, rule: R) -> Option<Vec<R::Output>> {
        let array = self.array(key, "a list")?;
        let path = self.path_of(key);
        let mut values = Vec::new();
        for (index, entry) in array.iter().enumerate() {
            values.extend(self.check(entry, &format!("{path}[{index}]"), &rule));
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
            self.log.note(self.offset, &path, format!("missing; {why}"));
        }
        value
    }

    /// Notes that `key` is wrong in a way that no rule for it alone can say.
    pub fn contradict(&mut self, key: &str, message: String) {
        let offset = self.entries.get(key).map(|entry| entry.span().start);
        let path = self.path_of(key);
        self.log.note(offset.unwrap_or(self.offset), &path, message);
    }

    /// Notes what is wrong outside the document.
    pub fn note(&mut self, problem: Problem) {
        self.log.problems.push(problem);
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
        if !self.asked.contains(&key) {
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

    fn check<R: Rule>(&mut self, entry: Entry<'d>, path: &str, rule: &R) -> Option<R::Output> {
        rule.check(Written::Toml(entry.get_ref()))
            .map_err(|message| self.log.note(entry.span().start, path, message))
            .ok()
    }

    fn refuse<T>(&mut self, entry: Entry<'d>, path: &str, allowed: &str) -> Option<T> {
        let message = found(Written::Toml(entry.get_ref()), allowed);
        self.log.note(entry.span().start, path, message);
        None
    }

    fn note_unknown(&mut self) {
        let entries = self.entries;
        for key in entries.keys() {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                let message = unknown(name, &self.asked);
                let path = self.path_of(name);
                self.log.note(key.span().start, &path, message);
            }
        }
    }

    fn path_of(&self, key: &str) -> String {
        let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        let dot = if self.path.is_empty() { "" } else { "." };
        if !key.is_empty() && key.bytes().all(bare) {
            format!("{}{dot}{key}", self.path)
        } else {
            format!("{}{dot}{key:?}", self.path)
        }
    }
}

fn unknown(name: &str, known: &[&str]) -> String {
    let allowed = known.join(", ");
    match closest(name, known) {
        Some(close) => format!("unknown key; did you mean {close}? allowed here: {allowed}"),
        None => format!("unknown key; allowed here: {allowed}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
