//! A scenario: which server, what is sent, in which steps, and what must hold.

mod read;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

pub use read::read_scenario;

use crate::arrivals::{Arrivals, Schedule};
use crate::driver::Stop;
use crate::faults::Fault;
use crate::slo::Slo;
use crate::target::{Endpoint, Protocol, Tls};

/// A scenario, with every setting decided.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its text, as it was written.
    pub source: String,
    /// Who is driven.
    pub server: Server,
    /// What carries the requests.
    pub protocol: Protocol,
    /// Whom to trust, if connections are to be encrypted.
    pub tls: Option<Tls>,
    /// Connections over which requests are spread.
    pub connections: usize,
    /// Decides everything that is left to chance.
    pub seed: u64,
    /// The longest wait for an answer.
    pub timeout: Duration,
    /// Requests sent and not answered; one more is skipped, and counted as that.
    pub max_outstanding: usize,
    /// A run is invalid if one in a hundred requests was sent later than it was meant to be by more
    /// than this.
    pub max_lag: Duration,
    /// What is sent.
    pub requests: Vec<RequestSpec>,
    /// What happens, in this order.
    pub steps: Vec<Step>,
}

impl Scenario {
    /// How a server at this address is spoken to.
    pub(crate) fn endpoint(&self, address: &str) -> Endpoint {
        Endpoint {
            address: address.to_owned(),
            protocol: self.protocol,
            tls: self.tls.clone(),
        }
    }

    /// The numbers of rows that recordings ask for; none where they leave that open.
    pub(crate) fn recorded_rows(&self) -> BTreeSet<u32> {
        let recordings = self.steps.iter().filter_map(|step| match &step.arrivals {
            Arrivals::Open(Schedule::Trace(recorded)) => Some(recorded),
            _ => None,
        });
        let recorded = recordings.flat_map(|recorded| recorded.iter());
        recorded.filter_map(|one| one.rows).collect()
    }
}

/// Who is driven.
#[derive(Clone, Debug, PartialEq)]
pub enum Server {
    /// One that runs, such as `127.0.0.1:8001`.
    At(String),
    /// One that is started for the run: a command that prints `gRPC on HOST:PORT` and then `ready`.
    /// `{port}` in it stands for a free port, the same each time, and `{programs}` for the folder that
    /// this program is in.
    Start(Vec<String>),
}

/// One kind of request.
#[derive(Clone, Debug)]
pub struct RequestSpec {
    /// The model's name.
    pub model: String,
    /// Its version; empty for the server's choice.
    pub version: String,
    /// How often it is sent beside the others.
    pub weight: f64,
    /// From the moment it is meant to be sent to the last at which its answer is of use.
    pub deadline: Option<Duration>,
    /// V2's `priority`, 1 the most urgent.
    pub priority: Option<u64>,
    /// Rows of each request.
    pub rows: usize,
    /// Different requests that are made up.
    pub variants: usize,
    /// What they are filled with, if not made up: a `.json`, `.npy` or text file.
    pub file: Option<PathBuf>,
    /// Sizes of dimensions that the model leaves open: by input, by `input.axis`, or `default`.
    pub dimensions: Vec<(String, Sizes)>,
    /// Lowest and highest value, by input.
    pub values: Vec<(String, (f64, f64))>,
    /// Whether each answer is compared with the one that the same request got alone before the run,
    /// and how far numbers may be apart: absolutely, and relative to the one that is right.
    pub check: Option<(f64, f64)>,
    /// Where right answers are read from, if the server is not asked for them before the run.
    pub expected: Option<PathBuf>,
}

impl RequestSpec {
    /// How far numbers may be apart where it is not said: absolutely, and relative to the right one.
    pub(crate) const TOLERANCE: (f64, f64) = (1e-5, 1e-3);
}

/// How large a dimension is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sizes {
    /// Always so large.
    Fixed(usize),
    /// As likely each, from one to the other.
    Uniform(usize, usize),
    /// Its logarithm is normal around that of the median; cut at the ends.
    LogNormal {
        /// Half of them are smaller.
        median: f64,
        /// Of the logarithm.
        sigma: f64,
        /// The smallest.
        low: usize,
        /// The largest.
        high: usize,
    },
}

/// One thing that happens in a scenario.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is called.
    pub name: String,
    /// How requests come.
    pub arrivals: Arrivals,
    /// What is left out of the figures at the start.
    pub warm_up: Duration,
    /// What counts after that, at most.
    pub duration: Duration,
    /// Whether the step ends sooner.
    pub stop: Stop,
    /// What goes wrong meanwhile.
    pub faults: Vec<Fault>,
    /// What must hold.
    pub slo: Slo,
}
