//! Numbers by chance.

use fastrand::Rng;

/// An exponential number of mean 1.
pub(super) fn exponential(random: &mut Rng) -> f64 {
    -(1.0 - random.f64()).ln()
}

/// A normal number of mean 0 and deviation 1.
pub(crate) fn normal(random: &mut Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

/// A Gamma number of this shape and a scale of 1 (Marsaglia and Tsang, ACM TOMS 26(3), 2000).
pub(super) fn gamma(random: &mut Rng, shape: f64) -> f64 {
    if shape < 1.0 {
        let boost = (1.0 - random.f64()).powf(1.0 / shape);
        return gamma(random, shape + 1.0) * boost;
    }
    let d = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(random);
        let v = (1.0 + c * x).powi(3);
        let u = 1.0 - random.f64();
        if v > 0.0 && u.ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}
