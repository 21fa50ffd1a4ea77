//! What an ONNX file names outside itself, read without loading it: ONNX Runtime is not to be asked to
//! open what is not the model's.
//!
//! Only the messages on the way to tensors are looked into; the data of tensors is passed over. Numbers of
//! fields are those of <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};

/// Messages in each other, as many as protobuf's own reader takes.
const MOST_NESTED: usize = 100;
/// Bytes of a path, or of whatever else is said of where a tensor's data is.
const LONGEST: u64 = 4096;
/// What is said of where one tensor's data is.
const MOST_ENTRIES: usize = 16;
/// Files beside the model.
const MOST_FILES: usize = 4096;

/// Refuses a model that is too large, is no ONNX, or has data elsewhere than in files of its own folder.
pub(super) fn check(file: &Path, most_bytes: u64) -> Result<(), String> {
    let failed = |error: std::io::Error| error.to_string();
    // A pipe would wait for ever to be opened.
    if !std::fs::metadata(file).map_err(failed)?.is_file() {
        return Err("it is not a file".to_owned());
    }
    let opened = File::open(file).map_err(failed)?;
    let end = opened.metadata().map_err(failed)?.len();
    within(end, most_bytes)?;
    let folder = file.parent().unwrap_or(Path::new("."));
    let mut walk = Walk {
        reader: BufReader::new(opened),
        at: 0,
        outside: Outside::default(),
    };
    match walk.message(Kind::Model, end, 0) {
        Ok(()) => {}
        // ONNX Runtime's own format is not protobuf, and has all data in it.
        Err(Fault::Malformed { .. }) if file.extension().is_some_and(|end| end == "ort") => {}
        Err(fault) => return Err(fault.to_string()),
    }
    let beside = walk.outside.check(folder)?;
    within(end.saturating_add(beside), most_bytes)
}

fn within(bytes: u64, most: u64) -> Result<(), String> {
    if bytes <= most {
        return Ok(());
    }
    Err(format!(
        "the version has {bytes} bytes, and {most} are allowed (--max-model-bytes)"
    ))
}

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error("it is no ONNX model that can be read: at byte {at}, {what}")]
    Malformed { at: u64, what: String },
    #[error("{0}")]
    Refused(String),
}

/// Messages that have tensors in them, and the tensors.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

/// Fields of TensorProto.
const NAME: u64 = 8;
const EXTERNAL_DATA: u64 = 13;

impl Kind {
    /// What a field of it is, if tensors may be in that.
    fn field(self, number: u64) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => {
                Self::Tensor
            }
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            _ => return None,
        })
    }
}

/// Where a tensor's data is.
#[derive(Default)]
struct External {
    name: String,
    entries: Vec<(String, String)>,
}

impl External {
    fn said<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let of_key = self.entries.iter().filter(move |(said, _)| said == key);
        of_key.map(|(_, value)| value.as_str())
    }
}

/// A file on its way through [`Kind`]s.
struct Walk {
    reader: BufReader<File>,
    at: u64,
    outside: Outside,
}

impl Walk {
    fn message(&mut self, kind: Kind, end: u64, depth: usize) -> Result<(), Fault> {
        if depth > MOST_NESTED {
            return Err(self.malformed(format!("messages are nested more than {MOST_NESTED} deep")));
        }
        let mut external = External::default();
        while self.at < end {
            let Some((field, stop)) = self.field(end)? else {
                continue;
            };
            match (kind, field) {
                (Kind::Tensor, NAME) => external.name = self.text(stop)?,
                (Kind::Tensor, EXTERNAL_DATA) if external.entries.len() < MOST_ENTRIES => {
                    external.entries.push(self.entry(stop)?);
                }
                (Kind::Tensor, EXTERNAL_DATA) => {
                    let what = format!("a tensor says more than {MOST_ENTRIES} things of its data");
                    return Err(self.malformed(what));
                }
                _ => match kind.field(field) {
                    Some(inner) => self.message(inner, stop, depth + 1)?,
                    None => self.pass(stop)?,
                },
            }
        }
        self.outside.add(external).map_err(Fault::Refused)
    }

    /// A key and what it stands for.
    fn entry(&mut self, end: u64) -> Result<(String, String), Fault> {
        let mut entry = (String::new(), String::new());
        while self.at < end {
            match self.field(end)? {
                Some((1, stop)) => entry.0 = self.text(stop)?,
                Some((2, stop)) => entry.1 = self.text(stop)?,
                Some((_, stop)) => self.pass(stop)?,
                None => {}
            }
        }
        Ok(entry)
    }

    /// The next field: where it ends, if it has a length; else it is passed over.
    fn field(&mut self, end: u64) -> Result<Option<(u64, u64)>, Fault> {
        let key = self.number(end)?;
        let length = match key & 7 {
            0 => {
                self.number(end)?;
                return Ok(None);
            }
            1 => 8,
            2 => self.number(end)?,
            5 => 4,
            kind => return Err(self.malformed(format!("there is a field of kind {kind}"))),
        };
        let stop = self.at.checked_add(length).filter(|stop| *stop <= end);
        let Some(stop) = stop else {
            return Err(self.malformed(format!("a field of {length} bytes ends behind its end")));
        };
        if key & 7 != 2 {
            self.pass(stop)?;
            return Ok(None);
        }
        Ok(Some((key >> 3, stop)))
    }

    fn number(&mut self, end: u64) -> Result<u64, Fault> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let mut byte = [0];
            if self.at >= end {
                return Err(self.malformed("a number ends behind its end".to_owned()));
            }
            self.read(&mut byte)?;
            let [byte] = byte;
            number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed("a number has more than 10 bytes".to_owned()))
    }

    fn text(&mut self, stop: u64) -> Result<String, Fault> {
        let length = stop - self.at;
        if length > LONGEST {
            return Err(self.malformed(format!(
                "a name has {length} bytes; at most {LONGEST} are read"
            )));
        }
        let mut text = vec![0; length as usize];
        self.read(&mut text)?;
        String::from_utf8(text).map_err(|_| self.malformed("a name is not UTF-8".to_owned()))
    }

    fn pass(&mut self, stop: u64) -> Result<(), Fault> {
        let ahead = i64::try_from(stop - self.at).unwrap_or(i64::MAX);
        let passed = self.reader.seek_relative(ahead);
        passed.map_err(|error| self.malformed(error.to_string()))?;
        self.at = stop;
        Ok(())
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Fault> {
        let read = self.reader.read_exact(into);
        read.map_err(|error| self.malformed(error.to_string()))?;
        self.at += into.len() as u64;
        Ok(())
    }

    fn malformed(&self, what: String) -> Fault {
        Fault::Malformed { at: self.at, what }
    }
}

/// A file beside the model: what a tensor is called that is there, and where the last of them ends.
type Place = (String, u64);

/// Where the data of tensors is that is not in the model's file.
#[derive(Default)]
struct Outside {
    files: BTreeMap<String, Place>,
}

impl Outside {
    fn add(&mut self, external: External) -> Result<(), String> {
        let name = &external.name;
        let mut end = 0_u64;
        for key in ["offset", "length"] {
            for value in external.said(key) {
                let bytes: u64 = value.parse().map_err(|_| {
                    format!("tensor {name:?}: the {key} of its data is {value:?}, which is no number of bytes")
                })?;
                end = end.saturating_add(bytes);
            }
        }
        for location in external.said("location") {
            if self.files.len() >= MOST_FILES && !self.files.contains_key(location) {
                return Err(format!("its data is in more than {MOST_FILES} files"));
            }
            let place = self.files.entry(location.to_owned());
            let place = place.or_insert_with(|| (name.clone(), 0));
            place.1 = place.1.max(end);
        }
        Ok(())
    }

    /// Every file has to be in the folder; their bytes.
    fn check(&self, folder: &Path) -> Result<u64, String> {
        let mut bytes = 0_u64;
        for (location, (tensor, end)) in &self.files {
            let refused =
                |why: String| format!("the data of tensor {tensor:?} is in {location:?}: {why}");
            let file = confined(folder, Path::new(location)).map_err(refused)?;
            let about = std::fs::metadata(file).map_err(|error| refused(error.to_string()))?;
            if !about.is_file() {
                return Err(refused("it is not a file".to_owned()));
            }
            if about.len() < *end {
                let length = about.len();
                return Err(refused(format!(
                    "it has {length} bytes, and {end} are to be read"
                )));
            }
            bytes = bytes.saturating_add(about.len());
        }
        Ok(bytes)
    }
}

/// The file at `location` in `folder`, if it is there, wherever links lead.
fn confined(folder: &Path, location: &Path) -> Result<PathBuf, String> {
    // By this name ONNX Runtime means its own memory, and by the offset an address in it.
    if location.to_string_lossy().contains("_ORT_MEM_ADDR_") {
        return Err("that is no file".to_owned());
    }
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !location.components().all(inside) {
        return Err("it has to be named from the version's folder, without \"..\"".to_owned());
    }
    let failed = |error: std::io::Error| error.to_string();
    let folder = folder.canonicalize().map_err(failed)?;
    let file = folder.join(location).canonicalize().map_err(failed)?;
    match file.starts_with(&folder) {
        true => Ok(file),
        false => Err("a link leads out of the version's folder".to_owned()),
    }
}

#[cfg(test)]
mod tests;
