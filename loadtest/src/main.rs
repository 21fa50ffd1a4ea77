//! `jitney-load`: see `--help`.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use jitney_load::report::Verdict;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let _ = error.print();
            // Help is no failure.
            return ExitCode::from(if error.use_stderr() { 3 } else { 0 });
        }
    };
    match arguments.run() {
        Ok(Verdict::Met) => ExitCode::SUCCESS,
        Ok(Verdict::Missed) => ExitCode::from(1),
        Ok(Verdict::Invalid) => ExitCode::from(2),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(3)
        }
    }
}
