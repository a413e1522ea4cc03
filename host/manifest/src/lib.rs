//! What a plugin says of itself, and what it may do: the part of the host's judgement that needs no WebAssembly.
//! Invariant: a plugin that runs natively in its author's tests is refused here, in the same words as in the sandbox.

// In reading order: what it declares, what the operator adds, what it may do while it runs, what it may answer.
mod check;
pub mod graph;
pub mod law;
pub mod manifest;
pub mod members;
pub mod report;
pub mod settings;

pub mod allowance;
pub mod answer;
pub mod counter;
pub mod host_calls;
pub mod http;
pub mod limits;
pub mod sends;

pub mod smoke;

pub use law::Law;
pub use limits::Limits;
pub use manifest::Manifest;
pub use report::{Fault, Report};

/// The longest start of `text` that has at most `bytes_max` bytes.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = bytes_max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
