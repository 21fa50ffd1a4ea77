//! What each fuzz target does with the bytes that it is given. tests/it does the same with the
//! corpora, so that they are tried wherever the tests are.

pub(crate) mod config_pbtxt;
pub(crate) mod model_toml;
pub(crate) mod protobuf_request;
pub(crate) mod rest_body;
pub(crate) mod shared_memory;
