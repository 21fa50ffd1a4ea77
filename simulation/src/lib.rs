//! Jitney's scheduler in virtual time, beside other rules and the bounds.
//!
//! [`world`] plays [`arrivals`] against executors and asks a [`rules::Rule`] when who leaves; the one
//! that matters is the server's own batcher, unchanged. [`bounds`] has what no rule can exceed,
//! [`measure`] the figures, and [`plot`] their picture. The same seed always gives the same run.

// Numbers of requests and groups are our own, and a wrong one is a finding.
#![allow(clippy::indexing_slicing)]

pub mod arrivals;
pub mod bounds;
pub mod lengths;
pub mod measure;
pub mod plot;
pub mod rules;
pub mod world;
