//! Lengths in steps, so that rows of nearly one length are found together.

/// Steps in which a length doubles, as a power of two: eight, so that the longest of a step is at
/// most an eighth longer than the shortest.
const STEPS: u32 = 3;

/// The step that a length is in; ascending with it.
pub(super) fn rung(length: usize) -> usize {
    let octave = length.max(1).ilog2();
    if octave <= STEPS {
        return length;
    }
    let within = (length >> (octave - STEPS)) & ((1 << STEPS) - 1);
    ((octave as usize) << STEPS) + within - ((STEPS as usize) << STEPS) + (1 << STEPS)
}

/// The longest length of a step.
pub(super) fn longest(rung: usize) -> usize {
    let mut octave = STEPS;
    let mut first = 1 << STEPS;
    if rung < first << 1 {
        return rung;
    }
    while rung >= first + (1 << STEPS) {
        first += 1 << STEPS;
        octave += 1;
    }
    let within = rung - first;
    ((1 << STEPS) + within + 1) * (1_usize << (octave - STEPS)) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_ascend_and_hold_what_they_say() {
        let mut before = 0;
        for length in 1..100_000 {
            let step = rung(length);
            assert!(step == before || step == before + 1, "{length}");
            if step > before {
                assert_eq!(longest(before), length - 1);
                let shortest = length;
                assert!(longest(step) - shortest <= shortest / 8, "{length}");
            }
            before = step;
        }
        assert!(longest(rung(usize::MAX / 4)) >= usize::MAX / 4);
    }
}
