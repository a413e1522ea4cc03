//! From wasmtime's error to a cause that people can read. Invariant: a fault of the host never becomes a crash of the
//! guest's, and the other way round.

use std::fmt::Write as _;

use sagahost_manifest::{Limits, answer, cut, host_calls::BoxError, http::WAITS};
use sagahost_saga::outcome::Crash;
use wasmtime::{Error, Trap, WasmBacktrace};

use crate::guest::{Guest, Stop};

/// Of a backtrace, innermost first.
pub(crate) const FRAMES_MAX: usize = 32;
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
pub(crate) fn explain(error: Error, guest: &Guest, limits: &Limits) -> Result<Crash, BoxError> {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    let recursing = backtrace.is_some_and(recursing);
    let place = backtrace.map(functions).unwrap_or_default();
    let (code, mut detail) = match error.downcast::<Stop>() {
        Ok(Stop::Host(source)) => return Err(source),
        Ok(stop) => (stop_code(&stop), stop.to_string()),
        Err(error) => trap(&error, guest, limits, recursing)?,
    };
    if !place.is_empty() {
        let _ = write!(detail, " (in {place})");
    }
    Ok(Crash { code: code.to_owned(), detail: cut(&detail, limits.problem_bytes_max).to_owned() })
}

fn stop_code(stop: &Stop) -> &'static str {
    match stop {
        Stop::Memory { .. } | Stop::Table { .. } => "memory",
        Stop::Refused(refused) => refused.code(),
        Stop::Waits => WAITS,
        Stop::Guest(_) | Stop::Host(_) => "trap",
    }
}

fn trap(error: &Error, guest: &Guest, limits: &Limits, recursing: bool) -> Result<(&'static str, String), BoxError> {
    if let Some(panic) = &guest.panic {
        let crash = answer::panicked(panic, limits);
        return Ok(("trap", crash.detail));
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => {
            Ok(("deadline", format!("it ran longer than {} ms of running time (budget-ms)", limits.budget_ms)))
        }
        Some(Trap::StackOverflow) => {
            Ok(("stack", "it recursed too deeply: the stack is full (stack-bytes-max)".to_owned()))
        }
        // Compiled languages keep a stack of their own in linear memory, and run out of its lower end.
        Some(Trap::MemoryOutOfBounds) if recursing => {
            Ok(("stack", "it recursed too deeply: its stack is full".to_owned()))
        }
        Some(Trap::UnreachableCodeReached) => Ok((
            "trap",
            "it stopped itself (an `unreachable` instruction: a panic or an uncaught error without a text)".to_owned(),
        )),
        Some(trap) => Ok(("trap", trap.to_string())),
        None => untyped(error, limits),
    }
}

/// Errors at the boundary, which wasmtime gives no public types.
fn untyped(error: &Error, limits: &Limits) -> Result<(&'static str, String), BoxError> {
    let text = format!("{:#}", error.root_cause());
    if text.contains("fuel allocated for hostcalls") {
        let max = limits.outcome_bytes_max;
        return Ok((
            "payload-limit",
            format!("it passed more than {max} bytes to the host at once (outcome-bytes-max)"),
        ));
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() || error.is::<std::io::Error>() {
        return Err(format!("failed to run an instance: {error:#}").into());
    }
    Ok(("trap", format!("it broke the rules of the component model: {text}")))
}

/// Is one function most of a backtrace that is as long as a backtrace gets?
fn recursing(backtrace: &WasmBacktrace) -> bool {
    let frames = backtrace.frames();
    let same = |function| frames.iter().filter(|frame| frame.func_index() == function).count();
    frames.len() >= FRAMES_MAX && frames.iter().any(|frame| same(frame.func_index()) >= FRAMES_MAX / 4)
}

/// Names of the functions that it was in, innermost first, demangled.
fn functions(backtrace: &WasmBacktrace) -> String {
    let text = backtrace.to_string();
    let mut told: Vec<String> = Vec::new();
    for line in text.lines().skip(1) {
        let Some((_, name)) = line.split_once('!') else {
            continue;
        };
        let name = without_hashes(name.trim());
        let boring = MACHINERY.iter().any(|prefix| name.trim_start_matches('<').starts_with(prefix));
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

/// `std[a543996e6e7dbf1e]::f` and `std::f::h0123456789abcdef` → `std::f`
fn without_hashes(name: &str) -> String {
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if is_hash(hash) => path,
        _ => name,
    };
    let mut parts = name.split('[');
    let mut kept = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(']') {
            Some((hash, rest)) if is_hash(hash) => kept.push_str(rest),
            _ => {
                kept.push('[');
                kept.push_str(part);
            }
        }
    }
    kept
}

fn is_hash(text: &str) -> bool {
    (14..=16).contains(&text.len()) && text.chars().all(|c| c.is_ascii_hexdigit())
}
