//! x
/// c
pub const CONTRACT: &str = "0.1.0";
