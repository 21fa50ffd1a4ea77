//! When to look again: at an interval, and less and less often while looks fail.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// However long it has failed: it may work again at any time.
const LONGEST: Duration = Duration::from_secs(60);

/// The pause after `failures` in a row. `chance`, from 0 to 1, spreads those of many servers: by a
/// tenth to either side, or by half where they all fail together.
pub(super) fn pause(interval: Duration, failures: u32, chance: f64) -> Duration {
    if failures == 0 {
        return interval.mul_f64(0.9 + 0.2 * chance);
    }
    let factor = 2_u32.saturating_pow(failures.min(16));
    let longest = LONGEST.max(interval);
    let pause = interval.saturating_mul(factor).min(longest);
    pause.mul_f64(1.0 - 0.5 * chance)
}

/// A number from 0 to 1 that nobody foresees.
pub(super) fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_double_the_pause_up_to_a_bound() {
        let seconds = |interval: u64, failures, chance| {
            pause(Duration::from_secs(interval), failures, chance).as_secs_f64()
        };
        let close = |one: f64, other: f64| (one - other).abs() < 1e-6;
        assert!(close(seconds(2, 0, 0.0), 1.8) && close(seconds(2, 0, 1.0), 2.2));
        for (failures, longest) in [(1, 4.0), (2, 8.0), (4, 32.0), (5, 60.0), (u32::MAX, 60.0)] {
            assert!(close(seconds(2, failures, 0.0), longest));
            assert!(close(seconds(2, failures, 1.0), longest / 2.0));
        }
        // An interval that is longer than the bound is never shortened.
        assert!(close(seconds(3_600, 9, 0.0), 3_600.0));
    }

    #[test]
    fn chance_is_between_0_and_1() {
        let chances: Vec<f64> = (0..100).map(|_| chance()).collect();
        assert!(chances.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(chances.iter().any(|chance| *chance < 0.5));
        assert!(chances.iter().any(|chance| *chance > 0.5));
    }
}
