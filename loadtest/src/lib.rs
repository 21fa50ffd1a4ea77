//! Drives a KServe V2 server and measures what its clients see. Depends on the wire protocol and on
//! nothing of the server.
//!
//! [`arrivals`] say when requests are meant to be sent, [`requests`] what is sent, a [`Target`] to
//! whom. The one loop of [`Plan::run`] brings them together and gives a [`Recording`]. Latency counts
//! from the moment at which a request was meant to be sent, so that a server that stalls cannot hide
//! it by holding up the next request (coordinated omission).

pub mod arrivals;
mod blows;
mod bootstrap;
mod clock;
pub mod compare;
pub mod confidence;
mod counted;
mod driver;
mod dtype;
mod expected;
pub mod faults;
mod files;
mod fill;
pub mod growth;
pub mod outcome;
mod process;
pub mod proto;
mod recording;
pub mod report;
pub mod requests;
pub mod run;
pub mod scenario;
pub mod search;
mod server;
pub mod slo;
mod target;

pub use arrivals::Arrivals;
pub use blows::Recovery;
pub use counted::{Counted, CountedSecond};
pub use driver::{Plan, Stop};
pub use recording::{Latencies, Progress, Recording, Second};
pub use requests::{Mix, Request};
pub use run::Session;
pub use target::{Endpoint, Protocol, Target, Tls};
