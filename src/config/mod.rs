//! What the operator wrote (flags, environment, TOML), and what it means: `ServerConfig`, `ModelPolicy`.
//! Uses `model` and `tensor` for the terms that settings speak of.
//! Never stops at the first mistake, and never opens a socket, a model or a device.

mod device;
mod ensemble;
mod labels;
mod location;
mod model;
mod padding;
mod raw;
mod resolve;
mod resource;
mod rule;
mod sequence;
mod server;
mod simulated;

pub use device::{UnknownDevice, parse_device};
pub use jitney_settings::{Problem, Report};
pub use location::Location;
pub use model::{read_model_policy, write_model_policy};
pub use raw::RawServer;
pub use server::{ModelControl, ServerConfig};
