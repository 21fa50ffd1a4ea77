//! The largest rate at which what is asked holds: bracketed by doubling, then halved on a logarithmic
//! scale. Pure: it is told how a rate turned out, and says which one to try next.

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    /// The largest rate that held.
    held: Option<f64>,
    /// The smallest rate that did not.
    failed: Option<f64>,
    next: f64,
    precision: f64,
    tries: usize,
}

/// What a search found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Found {
    /// This rate holds, and that one does not.
    Between(f64, f64),
    /// Not even this rate holds.
    Nothing(f64),
    /// Every rate up to this one holds.
    Everything(f64),
}

/// No search tries more rates.
const MOST_TRIES: usize = 40;

impl Search {
    /// A search that begins at a rate and ends when the one that holds and the one that does not are
    /// apart by less than this part of themselves.
    pub fn new(start: f64, precision: f64) -> Self {
        Self {
            held: None,
            failed: None,
            next: start,
            precision,
            tries: 0,
        }
    }

    /// The rate to try next.
    pub fn rate(&self) -> f64 {
        self.next
    }

    /// How that rate turned out; what was found, once it is.
    pub fn tell(&mut self, holds: bool) -> Option<Found> {
        self.tries += 1;
        match holds {
            true => self.held = Some(self.next),
            false => self.failed = Some(self.next),
        }
        match (self.held, self.failed) {
            (Some(held), None) => self.next = held * 2.0,
            (None, Some(failed)) => self.next = failed / 2.0,
            (Some(held), Some(failed)) => {
                if failed / held <= 1.0 + self.precision {
                    return Some(Found::Between(held, failed));
                }
                self.next = (held * failed).sqrt();
            }
            (None, None) => {}
        }
        if self.tries < MOST_TRIES {
            return None;
        }
        Some(match (self.held, self.failed) {
            (Some(held), Some(failed)) => Found::Between(held, failed),
            (Some(held), None) => Found::Everything(held),
            (None, failed) => Found::Nothing(failed.unwrap_or(self.next)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn searched(start: f64, holds: impl Fn(f64) -> bool) -> Found {
        let mut search = Search::new(start, 0.02);
        loop {
            let rate = search.rate();
            if let Some(found) = search.tell(holds(rate)) {
                return found;
            }
        }
    }

    #[test]
    fn it_ends_around_the_capacity_from_wherever_it_starts() {
        for capacity in [0.7, 13.0, 999.0, 123_456.0] {
            for start in [1.0, 100.0, 1e6] {
                let found = searched(start, |rate| rate <= capacity);
                let Found::Between(held, failed) = found else {
                    panic!("{found:?}")
                };
                assert!(held <= capacity && capacity < failed && failed / held <= 1.02);
            }
        }
    }

    #[test]
    fn without_a_capacity_it_ends_too() {
        assert!(matches!(searched(1.0, |_| true), Found::Everything(_)));
        assert!(matches!(searched(1.0, |_| false), Found::Nothing(_)));
    }
}
