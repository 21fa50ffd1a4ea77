//! Where log lines go: standard error, so that standard output is for people and pipes.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// ONNX Runtime tells every step of every load; its warnings are enough unless asked for.
const QUIET: &str = "ort=warn";

/// Writes log lines that `filter` lets through, such as `info` or `info,jitney::serving=debug`.
pub(super) fn start(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}"))
        .with_context(|| format!("--log: {filter:?} is not a filter such as info or debug"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
