//! What can be said of a share from so many requests.

/// Two-sided, of the standard normal distribution.
const Z_99: f64 = 2.575_829_303_548_901;
const Z_95: f64 = 1.959_963_984_540_054;

/// Requests from which a percentile is known to a twentieth of what it leaves, at 99 % confidence,
/// as MLPerf Inference counts them: in multiples of 8192
/// (<https://arxiv.org/abs/1911.02549>, section III-D).
pub fn queries_for(percentile: f64) -> u64 {
    const STEP: f64 = 8192.0;
    let margin = (1.0 - percentile) / 20.0;
    let needed = Z_99 * Z_99 * percentile * (1.0 - percentile) / (margin * margin);
    ((needed / STEP).ceil() * STEP) as u64
}

/// Whether a share is below a bound, from a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// With 95 % confidence it is.
    Below,
    /// With 95 % confidence it is not.
    Above,
    /// Neither can be said.
    Open,
}

/// Whether a share of which `seen` of `all` were seen is below `bound`, by Wilson's interval.
pub fn is_below(seen: u64, all: u64, bound: f64) -> Known {
    let (low, high) = interval(seen, all);
    if high <= bound {
        Known::Below
    } else if low > bound {
        Known::Above
    } else {
        Known::Open
    }
}

/// Where a share lies of which `seen` of `all` were seen, with 95 % confidence (Wilson 1927).
pub fn interval(seen: u64, all: u64) -> (f64, f64) {
    if all == 0 {
        return (0.0, 1.0);
    }
    let (count, share) = (all as f64, seen as f64 / all as f64);
    let square = Z_95 * Z_95;
    let middle = share + square / (2.0 * count);
    let spread = Z_95 * (share * (1.0 - share) / count + square / (4.0 * count * count)).sqrt();
    let whole = 1.0 + square / count;
    (
        ((middle - spread) / whole).max(0.0),
        ((middle + spread) / whole).min(1.0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_queries_as_are_published() {
        assert_eq!(queries_for(0.90), 24_576);
        assert_eq!(queries_for(0.95), 57_344);
        assert_eq!(queries_for(0.99), 270_336);
    }

    #[test]
    fn the_interval_is_wilsons() {
        // Of ten heads in ten throws: 1 / (1 + z^2 / 10).
        let (low, high) = interval(10, 10);
        assert!((low - 1.0 / (1.0 + Z_95 * Z_95 / 10.0)).abs() < 1e-12);
        assert!((high - 1.0).abs() < 1e-12);
        let (low, high) = interval(0, 0);
        assert_eq!((low, high), (0.0, 1.0));
    }

    #[test]
    fn it_covers_the_truth_as_often_as_it_says() {
        let mut random = fastrand::Rng::with_seed(1);
        let (truth, all) = (0.01, 2_000);
        let covered = (0..2_000).filter(|_| {
            let seen = (0..all).filter(|_| random.f64() < truth).count() as u64;
            let (low, high) = interval(seen, all);
            (low..=high).contains(&truth)
        });
        let share = covered.count() as f64 / 2_000.0;
        assert!((0.93..0.98).contains(&share), "{share}");
    }

    #[test]
    fn what_is_not_known_is_open() {
        assert_eq!(is_below(0, 1_000, 0.01), Known::Below);
        assert_eq!(is_below(10, 1_000, 0.01), Known::Open);
        assert_eq!(is_below(30, 1_000, 0.01), Known::Above);
        assert_eq!(is_below(0, 10, 0.01), Known::Open);
    }
}
