//! Whether something grows: a line through its values, and how sure its slope is.

/// A line through values over time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// The mean of the values.
    pub mean: f64,
    /// Growth a second.
    pub slope: f64,
    /// So far the true slope may be off, with 99 % confidence.
    pub margin: f64,
}

impl Trend {
    /// The line of least squares through `(second, value)`; none with fewer than ten.
    ///
    /// Values that lie close together in time resemble each other, so that each says less than a new
    /// one would: the margin is as wide as for the number of independent ones that the first
    /// correlation of the residuals leaves (Quenouille 1952).
    pub fn through(points: &[(f64, f64)]) -> Option<Self> {
        if points.len() < 10 {
            return None;
        }
        let count = points.len() as f64;
        let middle = points.iter().map(|point| point.0).sum::<f64>() / count;
        let mean = points.iter().map(|point| point.1).sum::<f64>() / count;
        let spread: f64 = points.iter().map(|point| (point.0 - middle).powi(2)).sum();
        let products = points
            .iter()
            .map(|point| (point.0 - middle) * (point.1 - mean));
        let slope = products.sum::<f64>() / spread.max(f64::MIN_POSITIVE);
        let off = |point: &(f64, f64)| point.1 - mean - slope * (point.0 - middle);
        let residuals: Vec<f64> = points.iter().map(off).collect();
        let squares: f64 = residuals.iter().map(|residual| residual * residual).sum();
        let neighbours = residuals.iter().zip(residuals.iter().skip(1));
        let together: f64 = neighbours.map(|(one, next)| one * next).sum();
        let correlation = (together / squares.max(f64::MIN_POSITIVE)).clamp(0.0, 0.999);
        let independent = (count * (1.0 - correlation) / (1.0 + correlation)).max(3.0);
        let error = (squares / (independent - 2.0) / spread.max(f64::MIN_POSITIVE)).sqrt();
        Some(Self {
            mean,
            slope,
            margin: 2.576 * error * (count / independent).sqrt().min(3.0),
        })
    }

    /// Growth in an hour as a share of the mean that the true one exceeds with 99 % confidence; 0 if
    /// it may not grow at all.
    pub fn sure_growth_an_hour(&self) -> f64 {
        let least = self.slope - self.margin;
        (least * 3_600.0 / self.mean.abs().max(f64::MIN_POSITIVE)).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::normal;

    fn noisy(slope: f64, correlation: f64, seed: u64) -> Vec<(f64, f64)> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut noise = 0.0;
        (0..600)
            .map(|second| {
                noise = correlation * noise + normal(&mut random);
                let second = f64::from(second);
                (second, 100.0 + slope * second + noise)
            })
            .collect()
    }

    #[test]
    fn what_grows_is_seen() {
        let exact: Vec<(f64, f64)> = (0..20)
            .map(|at| (f64::from(at), 5.0 + 2.0 * f64::from(at)))
            .collect();
        let trend = Trend::through(&exact).unwrap();
        assert!((trend.slope - 2.0).abs() < 1e-9 && trend.margin < 1e-6);
        for seed in 0..50 {
            let trend = Trend::through(&noisy(0.01, 0.5, seed)).unwrap();
            assert!(trend.sure_growth_an_hour() > 0.0, "{seed}: {trend:?}");
        }
    }

    #[test]
    fn what_only_wavers_is_rarely_called_growth() {
        for correlation in [0.0, 0.9] {
            let called = (0..300).filter(|seed| {
                let trend = Trend::through(&noisy(0.0, correlation, *seed)).unwrap();
                trend.sure_growth_an_hour() > 0.0
            });
            let called = called.count();
            assert!(
                called <= 6,
                "{called} of 300 with correlation {correlation}"
            );
        }
    }

    #[test]
    fn too_little_is_no_trend() {
        assert!(Trend::through(&[(0.0, 1.0); 9]).is_none());
        let still = Trend::through(&[(1.0, 7.0); 30]).unwrap();
        assert!(still.sure_growth_an_hour().abs() < 1e-9);
    }
}
