//! When requests come.

use fastrand::Rng;

/// How requests come. Rates are requests a nanosecond.
#[derive(Clone, Debug)]
pub enum Arrivals {
    /// Each independent of all others.
    Poisson,
    /// In bursts: times between requests with a squared coefficient of variation of 4.
    Bursty,
    /// Poisson at a rate that rises from a tenth to the full rate and falls again, as over a day.
    Ramp,
    /// Times between requests as they were recorded, over and over, scaled to the rate.
    Trace(Vec<f64>),
}

impl Arrivals {
    /// Times between requests of a mean of 1.
    fn gap(&self, random: &mut Rng, number: usize, progress: f64) -> f64 {
        match self {
            Self::Poisson => exponential(random),
            Self::Bursty => {
                // Two exponential times of equal shares in the whole time (balanced means).
                let often = (1.0 + (3.0_f64 / 5.0).sqrt()) / 2.0;
                let share = if random.f64() < often {
                    often
                } else {
                    1.0 - often
                };
                exponential(random) / (2.0 * share)
            }
            Self::Ramp => {
                let rate = 0.1 + 0.9 * (std::f64::consts::PI * progress).sin();
                exponential(random) / rate
            }
            Self::Trace(gaps) => {
                let mean = gaps.iter().sum::<f64>() / gaps.len().max(1) as f64;
                let gap = gaps.get(number % gaps.len().max(1));
                gap.map_or(1.0, |gap| gap / mean)
            }
        }
    }

    /// The moments, in nanoseconds, at which requests come before `end`.
    pub fn moments(&self, random: &mut Rng, rate: f64, end: f64) -> Vec<u64> {
        let mut moments = Vec::with_capacity((rate * end) as usize);
        let mut now = 0.0;
        loop {
            now += self.gap(random, moments.len(), now / end) / rate;
            if now >= end {
                return moments;
            }
            moments.push(now as u64);
        }
    }
}

/// An exponential number of mean 1.
pub fn exponential(random: &mut Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

/// A normal number of mean 0 and deviation 1.
pub fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statistics(arrivals: &Arrivals) -> (f64, f64) {
        let moments = arrivals.moments(&mut Rng::with_seed(7), 1e-3, 4e8);
        let gaps: Vec<f64> = moments
            .windows(2)
            .map(|pair| (pair[1] - pair[0]) as f64)
            .collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        (mean / 1e3, variance / mean.powi(2))
    }

    #[test]
    fn rates_and_burstiness_are_what_they_are_called() {
        let (mean, variation) = statistics(&Arrivals::Poisson);
        assert!((mean - 1.0).abs() < 0.01 && (variation - 1.0).abs() < 0.03);
        let (mean, variation) = statistics(&Arrivals::Bursty);
        assert!((mean - 1.0).abs() < 0.02 && (variation - 4.0).abs() < 0.2);
    }
}
