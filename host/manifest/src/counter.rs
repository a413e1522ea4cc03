//! The arithmetic of counters. Invariant: a counter never goes below zero by `take`, and a call that makes no sense is
//! the plugin's fault, in one wording wherever it runs.

use thiserror::Error;

/// Why a call on a counter has no answer: it ends the plugin's attempt as a trap with this text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CounterFault {
    #[error("counters.{call}: counter {name:?} does not exist; call ensure first")]
    Missing { call: &'static str, name: String },
    #[error("counters.take: amount {amount} is above 2^63-1")]
    Amount { amount: u64 },
    #[error("counters.give: counter {name:?} would overflow by {amount}")]
    Overflow { name: String, amount: u64 },
}

/// What `take` does: the amount as it is kept, and whether so much is there.
pub fn take(value: Option<i64>, name: &str, amount: u64) -> Result<(i64, bool), CounterFault> {
    let there = existing(value, "take", name)?;
    let amount = i64::try_from(amount).map_err(|_| CounterFault::Amount { amount })?;
    Ok((amount, there >= amount))
}

/// What `give` does: the amount as it is kept, and the new value.
pub fn give(value: Option<i64>, name: &str, amount: u64) -> Result<(i64, i64), CounterFault> {
    let there = existing(value, "give", name)?;
    let given = i64::try_from(amount).ok().and_then(|amount| Some((amount, there.checked_add(amount)?)));
    given.ok_or_else(|| CounterFault::Overflow { name: name.to_owned(), amount })
}

fn existing(value: Option<i64>, call: &'static str, name: &str) -> Result<i64, CounterFault> {
    value.ok_or_else(|| CounterFault::Missing { call, name: name.to_owned() })
}
