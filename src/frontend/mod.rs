//! Protocols: what clients connect to.
//! Uses `wire` to translate and `serving`'s engine and reconciler to act.
//! Never decides: a frontend that thinks is one that the next frontend has to copy.

pub mod grpc;
