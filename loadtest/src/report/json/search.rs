//! What a search found, as JSON.

// What is missing in a JSON value is null, not a panic.
#![allow(clippy::indexing_slicing)]

use serde_json::{Value, json};

use crate::search::Found;

pub(super) fn search(found: Found) -> Value {
    let (holds, does_not_hold) = match found {
        Found::Between(held, failed) => (Some(held), Some(failed)),
        Found::Nothing(failed) => (None, Some(failed)),
        Found::Everything(held) => (Some(held), None),
    };
    json!({ "holds": holds, "does_not_hold": does_not_hold })
}

/// None where nothing was searched.
pub(super) fn read_search(value: &Value) -> Option<Found> {
    match (value["holds"].as_f64(), value["does_not_hold"].as_f64()) {
        (Some(held), Some(failed)) => Some(Found::Between(held, failed)),
        (None, Some(failed)) => Some(Found::Nothing(failed)),
        (Some(held), None) => Some(Found::Everything(held)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_read() {
        let found = [
            Found::Between(10.0, 11.0),
            Found::Nothing(3.0),
            Found::Everything(9.0),
        ];
        for found in found {
            assert_eq!(read_search(&search(found)), Some(found));
        }
        assert_eq!(read_search(&Value::Null), None);
    }
}
