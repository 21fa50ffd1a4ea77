//! The `jitney` program: parse, run, exit code.

use std::process::ExitCode;

use clap::Parser;
use jitney::cli::Cli;

// Tensors of hundreds of kilobytes come and go with every request, and the system's allocator
// gives their pages back each time (ARCHITECTURE.md has the figures).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jitney: {error:#}");
            ExitCode::FAILURE
        }
    }
}
