//! The `sagahost` binary: see `sagahost::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sagahost::cli::main()
}
