//! What the host and the services written by hand begin with.

/// Nobody runs out of money …
pub const OPENING_BALANCE_CENTS: i64 = 1_000_000_000;
/// … or of articles.
pub const OPENING_STOCK: i64 = 1_000_000;
