//! The `jitney` program: parse, run, exit code.

use std::io::Write;

use clap::Parser;
use jitney::cli::Cli;

// Tensors of hundreds of kilobytes come and go with every request, and the system's allocator
// gives their pages back each time (ARCHITECTURE.md has the figures).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

unsafe extern "C" {
    // exit(2), which takes any number.
    safe fn _exit(status: i32) -> !;
}

fn main() {
    let status = match Cli::parse().run() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("jitney: {error:#}");
            1
        }
    };
    let _ = std::io::stdout().flush();
    // Nothing is left to be done, and loads that cannot be given up may run still: the destructors of ONNX Runtime's
    // library, which run at an orderly exit, would take its data from under them.
    _exit(status);
}
