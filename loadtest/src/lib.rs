//! Drives a KServe V2 server over gRPC and measures what its clients see.
//! Depends on the wire protocol and on nothing of the server.
//! So far there is one way to drive, a closed loop; the benches use it.

mod closed;
pub mod proto;

pub use closed::{ClosedLoop, Measured};
