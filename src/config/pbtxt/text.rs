//! Reads a ModelConfig from text or JSON.

use prost_reflect::{DeserializeOptions, DynamicMessage};

use super::draft::Draft;
use super::scan::{Scanned, TooDeep, scan};

/// More than any configuration takes.
const MOST_BYTES: usize = 1 << 20;
/// Mistakes of the text itself that are told at once; each takes the parser another time.
const MOST_MISTAKES: usize = 20;

/// The message that `source` is; without the outermost fields that cannot be read, which are noted.
pub(super) fn read(source: &str, draft: &mut Draft) -> DynamicMessage {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    if source.len() > MOST_BYTES {
        draft.note("", format!("is longer than {MOST_BYTES} bytes"));
        return DynamicMessage::new(super::descriptor());
    }
    match scan(source) {
        Ok(scanned) => parse(scanned, draft),
        Err(TooDeep(line)) => {
            draft.note_at(Some(line), "", "is nested deeper than any ModelConfig");
            DynamicMessage::new(super::descriptor())
        }
    }
}

fn parse(scanned: Scanned, draft: &mut Draft) -> DynamicMessage {
    let Scanned {
        mut text,
        fields,
        places,
    } = scanned;
    draft.places = places;
    for _ in 0..MOST_MISTAKES {
        let error = match DynamicMessage::parse_text_format(super::descriptor(), &text) {
            Ok(message) => return message,
            Err(error) => error,
        };
        let at = offset(&format!("{error:?}")).unwrap_or(text.len());
        let before = text.get(..at).unwrap_or(&text);
        let line = before.matches('\n').count() + 1;
        draft.note_at(Some(line), "", error.to_string());
        let mut around = fields.iter().rev();
        let Some(field) = around.find(|field| field.start <= at) else {
            break;
        };
        let Some(wrong) = text.get(field.clone()) else {
            break;
        };
        let blank: String = wrong.bytes().map(blank).collect();
        text.replace_range(field.clone(), &blank);
    }
    DynamicMessage::new(super::descriptor())
}

/// What takes the place of what is wrong: as long, and with the same lines.
fn blank(byte: u8) -> char {
    if byte == b'\n' { '\n' } else { ' ' }
}

/// Where an error is. It says so nowhere else than in its debug form.
fn offset(error: &str) -> Option<usize> {
    let (_, span) = error.split_once("span: ")?;
    let (start, _) = span.split_once("..")?;
    start.parse().ok()
}

/// The message that a JSON text is.
pub(super) fn read_json(json: &str, draft: &mut Draft) -> DynamicMessage {
    note_keys(json, draft);
    let mut source = serde_json::Deserializer::from_str(json);
    let options = DeserializeOptions::new();
    let read = DynamicMessage::deserialize_with_options(super::descriptor(), &mut source, &options);
    let read = read.and_then(|message| source.end().map(|()| message));
    read.unwrap_or_else(|error| {
        draft.note("config", format!("is not a ModelConfig in JSON: {error}"));
        DynamicMessage::new(super::descriptor())
    })
}

/// Which outermost fields are written, even if with their default.
fn note_keys(json: &str, draft: &mut Draft) {
    let Ok(serde_json::Value::Object(fields)) = serde_json::from_str(json) else {
        return;
    };
    let names = super::descriptor();
    for key in fields.keys() {
        let field = names.get_field_by_name(key);
        if let Some(field) = field.or_else(|| names.get_field_by_json_name(key)) {
            draft.places.put_written(field.name());
        }
    }
}
