//! The `sagahost` binary: see `sagahost::cli`.

use std::process::ExitCode;

/// Events are freed by other threads than those that made them, by the thousands: glibc's arenas took a seventh of the host's time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    sagahost::cli::main()
}
