//! Labels that a model's metrics have besides those that all have.

/// The most that a model has.
pub const MOST_TAGS: usize = 8;
/// The most bytes of a name, and of a value.
const MOST_BYTES: usize = 128;

/// Labels that metrics have already, of one or another.
pub const TAKEN_LABELS: [&str; 13] = [
    "model",
    "version",
    "device",
    "code",
    "stage",
    "phase",
    "state",
    "reason",
    "server_version",
    "gpu_uuid",
    "outcome",
    "le",
    "quantile",
];

/// What is wrong with a tag, if anything.
pub fn wrong_tag(name: &str, value: &str) -> Option<String> {
    let letters = |one: char| one.is_ascii_alphanumeric() || one == '_';
    let starts = name.starts_with(|one: char| one.is_ascii_alphabetic() || one == '_');
    if !starts || !name.chars().all(letters) || name.starts_with("__") {
        return Some(format!(
            "{name:?} is no name of a label; allowed: letters, digits and '_', not starting with a digit or \"__\""
        ));
    }
    if TAKEN_LABELS.contains(&name) {
        return Some(format!(
            "{name:?} is a label that metrics have already; choose another"
        ));
    }
    let longest = name.len().max(value.len());
    (longest > MOST_BYTES)
        .then(|| format!("{name:?} or its value is longer than {MOST_BYTES} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_labels_and_not_ours() {
        for name in ["team", "_a1", "A"] {
            assert_eq!(wrong_tag(name, "any value"), None, "{name}");
        }
        for name in ["", "1a", "a-b", "a b", "__a", "ä", "model", "le"] {
            assert!(wrong_tag(name, "").is_some(), "{name}");
        }
        assert!(wrong_tag("a", &"v".repeat(129)).is_some());
        assert!(wrong_tag(&"a".repeat(129), "").is_some());
    }
}
