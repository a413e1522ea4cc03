//! Log lines without ceremony. Invariant: they cost nothing but the host call.

/// A log line for whoever writes the plugin: `debug!(ctx, "balance {balance}")`.
#[macro_export]
macro_rules! debug {
    ($ctx:expr, $($text:tt)+) => { $ctx.log($crate::Level::Debug, &::std::format!($($text)+), &[]) };
}

/// A log line for whoever runs it: `info!(ctx, "order {} is charged", order.order_id)`.
#[macro_export]
macro_rules! info {
    ($ctx:expr, $($text:tt)+) => { $ctx.log($crate::Level::Info, &::std::format!($($text)+), &[]) };
}

/// A log line about something unexpected that was dealt with.
#[macro_export]
macro_rules! warn {
    ($ctx:expr, $($text:tt)+) => { $ctx.log($crate::Level::Warn, &::std::format!($($text)+), &[]) };
}

/// A log line about something that a person must act upon.
#[macro_export]
macro_rules! error {
    ($ctx:expr, $($text:tt)+) => { $ctx.log($crate::Level::Error, &::std::format!($($text)+), &[]) };
}
