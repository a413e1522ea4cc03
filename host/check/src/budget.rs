//! The budget file: what plugins may cost, kept beside their sources. Invariant: a figure that is missing is reported,
//! as one that is too high is; nothing passes because nobody wrote it down.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cost::Cost;

/// Toolchains move figures a little.
const TOLERANCE_PERCENT: u32 = 5;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Budget {
    /// So much more than written is accepted.
    #[serde(default = "tolerance")]
    pub tolerance_percent: u32,
    /// By plugin name.
    #[serde(default)]
    pub plugin: BTreeMap<String, Cost>,
}

fn tolerance() -> u32 {
    TOLERANCE_PERCENT
}

impl Default for Budget {
    fn default() -> Self {
        Self { tolerance_percent: TOLERANCE_PERCENT, plugin: BTreeMap::new() }
    }
}

#[derive(Debug, Error)]
#[error("not a valid budget: {0}")]
pub struct BudgetError(String);

/// One figure that is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Excess {
    /// `fuel of handle OrderCreated`
    pub what: String,
    pub is: u64,
    /// None: the budget says nothing of it.
    pub allowed: Option<u64>,
}

impl Budget {
    /// TOML, as `--write-budget` writes it.
    pub fn parse(text: &str) -> Result<Self, BudgetError> {
        toml::from_str(text).map_err(|error| BudgetError(error.to_string()))
    }

    pub fn to_toml(&self) -> String {
        let text = toml::to_string(self).expect("names and numbers can be TOML");
        format!("# Written by `sagahost check --write-budget`. Raise a figure on purpose only.\n{text}")
    }

    /// What `cost` has too much of; `None`: the budget does not know this plugin.
    pub fn excesses(&self, plugin: &str, cost: &Cost) -> Option<Vec<Excess>> {
        let planned = self.plugin.get(plugin)?;
        let mut found = Vec::new();
        let mut compare = |what: String, is: u64, planned: Option<u64>| {
            let percent = u64::from(self.tolerance_percent);
            let allowed = planned.map(|planned| planned.saturating_add(planned.saturating_mul(percent) / 100));
            if allowed.is_none_or(|allowed| is > allowed) {
                found.push(Excess { what, is, allowed });
            }
        };
        compare("component-bytes".to_owned(), cost.component_bytes, Some(planned.component_bytes));
        compare("memory-bytes-peak".to_owned(), cost.memory_bytes_peak, Some(planned.memory_bytes_peak));
        for (call, fuel) in &cost.fuel {
            compare(format!("fuel of {call}"), *fuel, planned.fuel.get(call).copied());
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cost(fuel: u64) -> Cost {
        let fuel = BTreeMap::from([("handle OrderCreated".to_owned(), fuel)]);
        Cost { component_bytes: 100, memory_bytes_peak: 65_536, fuel }
    }

    #[test]
    fn what_is_above_the_tolerance_is_told() {
        let mut budget = Budget::default();
        assert_eq!(budget.excesses("payment", &cost(1_000)), None);
        budget.plugin.insert("payment".to_owned(), cost(1_000));
        assert_eq!(Budget::parse(&budget.to_toml()).expect("what was written can be read"), budget);
        assert_eq!(budget.excesses("payment", &cost(1_050)), Some(Vec::new()));
        let excess = Excess { what: "fuel of handle OrderCreated".to_owned(), is: 1_051, allowed: Some(1_050) };
        assert_eq!(budget.excesses("payment", &cost(1_051)), Some(vec![excess]));
    }

    #[test]
    fn a_call_that_the_budget_does_not_know_is_told() {
        let mut budget = Budget::default();
        budget.plugin.insert("payment".to_owned(), Cost { fuel: BTreeMap::new(), ..cost(1) });
        let excess = Excess { what: "fuel of handle OrderCreated".to_owned(), is: 1, allowed: None };
        assert_eq!(budget.excesses("payment", &cost(1)), Some(vec![excess]));
    }
}
