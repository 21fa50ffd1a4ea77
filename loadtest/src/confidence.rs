//! What can be said of a share from so many requests.

use std::f64::consts::TAU;

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

/// How sure it is that at least such a share of requests keeps a bound, or that fewer do, when `over`
/// of `all` did not: 1 less the chance of seeing no more, or no fewer, if the share were exactly this.
pub fn sureness(share: f64, all: u64, over: u64) -> (f64, f64) {
    let chance = 1.0 - share;
    let fewer = over
        .checked_sub(1)
        .map_or(0.0, |fewer| at_most(all, fewer, chance));
    (1.0 - at_most(all, over, chance), fewer)
}

/// The question whether such a share of requests keeps a bound, asked again and again while they come.
///
/// Who looks often enough sees whatever he likes. The k-th look may therefore be wrong in 1 / (k (k + 1))
/// of one in a hundred cases, which is one in a hundred for all of them together.
#[derive(Clone, Copy, Debug)]
pub struct Sequential {
    share: f64,
    looks: f64,
}

impl Sequential {
    /// Whether this share does.
    pub fn new(share: f64) -> Self {
        Self { share, looks: 0.0 }
    }

    /// Whether the answer is known, of `all` requests of which between so many did not keep the bound.
    pub fn look(&mut self, all: u64, over: std::ops::RangeInclusive<u64>) -> bool {
        self.looks += 1.0;
        let wanted = 1.0 - 0.01 / (self.looks * (self.looks + 1.0));
        let (holds, _) = sureness(self.share, all, *over.end());
        let (_, fails) = sureness(self.share, all, *over.start());
        holds >= wanted || fails >= wanted
    }
}

/// The chance of at most `most` hits in `count` tries that each hit with this chance.
///
/// Summed from the largest term outwards, on the side of the mean where the terms fall: a few
/// deviations' worth of positive terms, each made from the one before.
fn at_most(count: u64, most: u64, chance: f64) -> f64 {
    if most >= count {
        return 1.0;
    }
    let odds = chance / (1.0 - chance);
    let (n, k) = (count as f64, most as f64);
    if k < n * chance {
        let down = |hits: f64| hits / ((n - hits + 1.0) * odds);
        exactly(n, k, chance) * falling(k, -1.0, down)
    } else {
        let up = |hits: f64| (n - hits) * odds / (hits + 1.0);
        1.0 - exactly(n, k + 1.0, chance) * falling(k + 1.0, 1.0, up)
    }
}

/// `1 + f(k) + f(k) f(k + step) + ...`, until more would not change the sum.
fn falling(start: f64, step: f64, factor: impl Fn(f64) -> f64) -> f64 {
    let (mut at, mut term, mut sum) = (start, 1.0, 1.0);
    loop {
        term *= factor(at);
        sum += term;
        if term < sum * 1e-18 {
            return sum;
        }
        at += step;
    }
}

/// The chance of so many hits. Factorials are taken apart by Stirling's formula, so that what is
/// large cancels before it is added up: good to 9 digits for ten million tries.
fn exactly(count: f64, hits: f64, chance: f64) -> f64 {
    let misses = count - hits;
    if hits == 0.0 {
        return (count * (-chance).ln_1p()).exp();
    }
    if misses == 0.0 {
        return chance.powf(count);
    }
    let correction = stirling_error(count) - stirling_error(hits) - stirling_error(misses);
    let distance =
        hits * (count * chance / hits).ln() + misses * (count * (1.0 - chance) / misses).ln();
    let width = (count / (TAU * hits * misses)).sqrt();
    (correction + distance).exp() * width
}

/// The logarithm of n! less Stirling's approximation to it, for n of at least 1.
fn stirling_error(n: f64) -> f64 {
    if n < 16.0 {
        let factorial: f64 = (1..=n as u64).map(|factor| (factor as f64).ln()).sum();
        return factorial - (n + 0.5) * n.ln() + n - TAU.ln() / 2.0;
    }
    let square = n * n;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - 1.0 / 1680.0 / square) / square) / square) / n
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

    /// Chances that can be counted on paper.
    #[test]
    fn sureness_has_its_closed_forms() {
        // None of n over: 1 - p^n.
        for (share, all) in [(0.5_f64, 7), (0.9, 44), (0.99, 459)] {
            let (holds, fails) = sureness(share, all, 0);
            assert!((1.0 - holds - share.powi(all as i32)).abs() < 1e-12);
            assert!(fails.abs() < 1e-12);
        }
        // All of n over, and at least all of n.
        let (holds, fails) = sureness(0.75, 3, 3);
        assert!(holds.abs() < 1e-12);
        assert!((fails - (1.0 - 0.25_f64.powi(3))).abs() < 1e-12);
        // One in two of a hundred thousand at one half: on the edge.
        let (holds, fails) = sureness(0.5, 100_000, 50_000);
        assert!((holds - 0.5).abs() < 2e-3 && (fails - 0.5).abs() < 2e-3);
    }

    #[test]
    fn looking_every_second_deceives_rarely() {
        let mut random = fastrand::Rng::with_seed(5);
        let deceived = (0..400).filter(|_| {
            // Just misses: one in ten is over, where fewer have to be.
            let (mut question, mut all, mut over) = (Sequential::new(0.9), 0, 0);
            (0..200).any(|_| {
                all += 50;
                over += (0..50).filter(|_| random.f64() < 0.1).count() as u64;
                question.look(all, over..=over)
            })
        });
        // In both directions together one in fifty.
        assert!(deceived.count() <= 16);
    }

    #[test]
    fn what_is_clear_is_known_soon() {
        let mut question = Sequential::new(0.9);
        assert!(!question.look(30, 0..=0));
        assert!(question.look(100, 0..=0));
        // Those who are not answered yet may still be late.
        assert!(!Sequential::new(0.9).look(100, 0..=20));
        assert!(Sequential::new(0.9).look(100, 60..=70));
    }
}
