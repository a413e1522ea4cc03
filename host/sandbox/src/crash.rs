//! From wasmtime's error to a cause that people can read. Invariant: a fault of the host never becomes a crash of the
//! guest's, and the other way round.

use std::fmt::Write as _;

use sagahost_saga::outcome::Crash;
use wasmtime::{Error, Trap, WasmBacktrace};

use crate::guest::{BoxError, Guest, Stop, cut};

const FRAMES_SHOWN: usize = 8;
/// Frames of a panic's own machinery tell nobody anything.
const MACHINERY: &[&str] = &[
    "rust_panic",
    "rust_begin_unwind",
    "std::panicking",
    "core::panicking",
    "std::sys",
    "std::alloc",
    "__rust_",
    "__rustc",
    "rust_oom",
    "abort",
    "core::result::unwrap_failed",
    "core::option::unwrap_failed",
    "core::option::expect_failed",
    "alloc::raw_vec::handle_error",
    "alloc::alloc::handle_alloc_error",
];

/// How a call that did not return ended; `Err`: the host could not do its job.
pub(crate) fn explain(
    error: Error,
    guest: &Guest,
    budget_ms: u32,
    detail_max: usize,
) -> Result<Crash, BoxError> {
    let place = error
        .downcast_ref::<WasmBacktrace>()
        .map(functions)
        .unwrap_or_default();
    let (code, mut detail) = match error.downcast::<Stop>() {
        Ok(Stop::Host(source)) => return Err(source),
        Ok(stop) => (stop_code(&stop), stop.to_string()),
        Err(error) => trap(&error, guest, budget_ms)?,
    };
    if !place.is_empty() {
        let _ = write!(detail, " (in {place})");
    }
    Ok(Crash {
        code: code.to_owned(),
        detail: cut(&detail, detail_max).to_owned(),
    })
}

fn stop_code(stop: &Stop) -> &'static str {
    match stop {
        Stop::Memory { .. } | Stop::Table { .. } => "memory",
        Stop::Log { .. } => "log-limit",
        Stop::Payload { .. } => "payload-limit",
        Stop::StoreOps { .. } => "store-limit",
        Stop::Guest(_) | Stop::Host(_) => "trap",
    }
}

fn trap(error: &Error, guest: &Guest, budget_ms: u32) -> Result<(&'static str, String), BoxError> {
    if let Some(panic) = &guest.panic {
        return Ok(("trap", format!("it panicked: {panic}")));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            Ok(("deadline", format!("it ran longer than {budget_ms} ms of running time (budget-ms)")))
        }
        Some(Trap::StackOverflow) => {
            Ok(("stack", "it recursed too deeply: the stack is full (stack-bytes-max)".to_owned()))
        }
        Some(Trap::UnreachableCodeReached) => Ok((
            "trap",
            "it stopped itself (an `unreachable` instruction: a panic or an uncaught error without a text)".to_owned(),
        )),
        Some(trap) => Ok(("trap", trap.to_string())),
        None => untyped(error),
    }
}

/// Errors at the boundary, which wasmtime gives no public types.
fn untyped(error: &Error) -> Result<(&'static str, String), BoxError> {
    let text = format!("{:#}", error.root_cause());
    if text.contains("fuel allocated for hostcalls") {
        return Ok((
            "payload-limit",
            "it passed more data in one call than is allowed (outcome-bytes-max)".to_owned(),
        ));
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() || error.is::<std::io::Error>() {
        return Err(format!("failed to run an instance: {error:#}").into());
    }
    Ok((
        "trap",
        format!("it broke the rules of the component model: {text}"),
    ))
}

/// Names of the functions that it was in, innermost first, demangled.
fn functions(backtrace: &WasmBacktrace) -> String {
    let text = backtrace.to_string();
    let names = text
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once('!').map(|(_, name)| name.trim()));
    let mut told: Vec<&str> = Vec::new();
    for name in names {
        let name = name
            .rsplit_once("::h")
            .filter(|(_, hash)| hash.len() == 16)
            .map_or(name, |(path, _)| path);
        let boring = MACHINERY
            .iter()
            .any(|prefix| name.trim_start_matches('<').starts_with(prefix));
        if !boring && told.last() != Some(&name) {
            told.push(name);
        }
    }
    let more = told.len().saturating_sub(FRAMES_SHOWN);
    told.truncate(FRAMES_SHOWN);
    let mut shown = told.join(" < ");
    if more > 0 {
        let _ = write!(shown, " < {more} more");
    }
    shown
}
