//! What the operator wrote (flags, environment, TOML, config.pbtxt), and what it means: `ServerConfig`, `ModelPolicy`.
//! Uses `model` and `tensor` for the terms that settings speak of, and `proto` for Triton's.
//! Never stops at the first mistake, and never opens a socket, a model or a device.

mod access;
mod device;
mod ensemble;
mod isolation;
mod labels;
mod location;
mod model;
mod otlp;
mod padding;
mod pbtxt;
mod ragged;
mod raw;
mod resolve;
mod resource;
mod rule;
mod security;
mod sequence;
mod server;
mod simulated;
mod tags;
mod tensors;
mod waiting;
mod warm_up;

pub use access::read_access;
pub use device::{UnknownDevice, parse_device};
pub use isolation::IsolationConfig;
pub use jitney_settings::{Problem, Report};
pub use location::Location;
pub use model::{read_model_policy, write_model_policy};
pub use otlp::OtlpConfig;
pub use pbtxt::{read_model_config, read_model_config_json};
pub use raw::RawServer;
pub use security::{RawSecurity, SecurityConfig};
pub use server::{ConsoleAccess, ModelControl, ServerConfig};
