//! How far a mean is off, by the symmetric studentised bootstrap.
//!
//! Numbers are drawn from those that were measured, with replacement, and it is looked at how many
//! standard errors their mean lies from the measured one. The sides are taken together: with six
//! numbers, one of which is an outlier, each side alone is known too badly (Hall, The Bootstrap and
//! Edgeworth Expansion, 1992, section 3.6).

use fastrand::Rng;

const RESAMPLES: usize = 4_000;
/// Fewer numbers can be drawn in too few ways to say anything at small errors.
pub(crate) const FEWEST: usize = 6;

/// A mean, and how far it may be off.
#[derive(Clone, Debug)]
pub(crate) struct Mean {
    pub(crate) mean: f64,
    error: f64,
    /// Of each resample: how many of its standard errors its mean lies from this one; largest first.
    distances: Vec<f64>,
}

impl Mean {
    /// The mean of the numbers; none if they are fewer than [`FEWEST`], or one is not finite.
    pub(crate) fn of(numbers: &[f64], random: &mut Rng) -> Option<Self> {
        if numbers.len() < FEWEST || numbers.iter().any(|number| !number.is_finite()) {
            return None;
        }
        let (mean, error) = mean_and_error(numbers.iter().copied());
        let mut distances: Vec<f64> = (0..RESAMPLES)
            .filter_map(|_| {
                let drawn = (0..numbers.len()).filter_map(|_| random.choice(numbers).copied());
                let drawn: Vec<f64> = drawn.collect();
                let (other, own) = mean_and_error(drawn.into_iter());
                // All from one number: nothing can be said of how far apart they are.
                (own > error * 1e-3).then(|| (other - mean).abs() / own)
            })
            .collect();
        distances.sort_by(|one, other| other.total_cmp(one));
        Some(Self {
            mean,
            error,
            distances,
        })
    }

    /// The chance of a mean at least as far from 0 if the true one is 0.
    pub(crate) fn chance(&self) -> f64 {
        let distance = self.mean.abs() / self.error.max(f64::MIN_POSITIVE);
        let farther = self.distances.iter().take_while(|one| **one >= distance);
        (1 + farther.count()) as f64 / (1 + self.distances.len()) as f64
    }

    /// So far the true mean may be off; farther with no more than this probability. Reaches to 0 if and
    /// only if [`Mean::chance`] is larger than that.
    pub(crate) fn margin(&self, probability: f64) -> f64 {
        let farther = (probability * (1 + self.distances.len()) as f64) as usize;
        let place = farther.saturating_sub(1);
        self.error * self.distances.get(place).copied().unwrap_or(0.0)
    }
}

/// The mean, and how far it is off: its standard error.
fn mean_and_error(numbers: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let count = numbers.clone().count() as f64;
    let mean = numbers.clone().sum::<f64>() / count;
    let squares: f64 = numbers.map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::normal;

    fn normals(count: usize, mean: f64, random: &mut Rng) -> Vec<f64> {
        (0..count).map(|_| mean + normal(random)).collect()
    }

    #[test]
    fn the_margin_misses_the_truth_as_often_as_it_says() {
        for count in [6, 10] {
            let mut random = Rng::with_seed(3);
            let missed = (0..200).filter(|_| {
                let mean = Mean::of(&normals(count, 5.0, &mut random), &mut random).unwrap();
                (mean.mean - 5.0).abs() > mean.margin(0.05)
            });
            let missed = missed.count();
            assert!((2..=20).contains(&missed), "{missed} of 200, {count}");
        }
    }

    #[test]
    fn the_margin_reaches_to_zero_where_the_chance_is_larger() {
        let mut random = Rng::with_seed(4);
        for round in 0..30 {
            let away = f64::from(round) / 12.0;
            let mean = Mean::of(&normals(8, away, &mut random), &mut random).unwrap();
            for probability in [0.0125, 0.05, 0.3] {
                let reaches = mean.mean.abs() <= mean.margin(probability);
                assert_eq!(reaches, mean.chance() > probability, "{mean:?}");
            }
        }
    }

    #[test]
    fn too_little_says_nothing() {
        let mut random = Rng::with_seed(1);
        assert!(Mean::of(&[0.1; FEWEST - 1], &mut random).is_none());
        assert!(Mean::of(&[f64::NAN; 9], &mut random).is_none());
        // Numbers that are the same need no margin.
        let same = Mean::of(&[0.25; 8], &mut random).unwrap();
        assert!(same.margin(0.05) <= 0.0 && (same.mean - 0.25).abs() < 1e-12);
    }
}
