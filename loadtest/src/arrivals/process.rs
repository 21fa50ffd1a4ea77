//! How irregular arrivals are.

use fastrand::Rng;

use super::random::{exponential, gamma};

/// A renewal process: times between arrivals are independent, of a mean of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Process {
    /// All equal.
    Even,
    /// Exponential times: what many independent users make together.
    Poisson,
    /// Times of a Gamma distribution: bursts and pauses.
    Bursty {
        /// Their squared coefficient of variation, above 0; 1 is Poisson, more is burstier.
        variation: f64,
    },
}

impl Process {
    /// The next time between two arrivals.
    pub(super) fn gap(self, random: &mut Rng) -> f64 {
        match self {
            Self::Even => 1.0,
            Self::Poisson => exponential(random),
            Self::Bursty { variation } => gamma(random, 1.0 / variation) * variation,
        }
    }
}
