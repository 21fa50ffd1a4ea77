//! What somebody may have meant by a key that does not exist.

/// The one of `known` that `name` is most likely a slip for, if any is likely.
pub(crate) fn closest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // One slip in three letters is still a slip; more is another word.
    let limit = (name.len() / 3).max(1);
    known
        .iter()
        .map(|known| (distance(name, known), *known))
        .filter(|(distance, known)| *distance <= limit || is_part(name, known))
        .min()
        .map(|(_, known)| known)
}

// `max_batch` for `max_batch_size`, and the other way round.
fn is_part(name: &str, known: &str) -> bool {
    name.len().min(known.len()) >= 4 && (known.contains(name) || name.contains(known))
}

/// The fewest letters to insert, delete or replace to turn one into the other (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = index;
        let mut before = index + 1;
        for (cell, other) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = *cell;
            before = replaced.min(before + 1).min(*cell + 1);
            *cell = before;
        }
        if let Some(first) = row.first_mut() {
            *first = index + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_single_letters() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn suggests_what_is_close_and_nothing_else() {
        let known = ["max_batch_size", "max_queue_size", "instances"];
        assert_eq!(closest("max_batchsize", &known), Some("max_batch_size"));
        assert_eq!(closest("instance", &known), Some("instances"));
        assert_eq!(closest("batch_size", &known), Some("max_batch_size"));
        assert_eq!(closest("platform", &known), None);
        assert_eq!(closest("", &known), None);
    }
}
