//! What a receiver knows. Invariant: it is what it acknowledged last, and nothing that it may have missed.

use std::collections::BTreeMap;

use crate::look::{Alert, Key};

/// Of one receiver.
#[derive(Debug, Default)]
pub(crate) struct Told {
    alerts: BTreeMap<Key, Alert>,
}

/// What a receiver is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct News {
    pub firing: Vec<Alert>,
    /// As they were told last.
    pub resolved: Vec<Alert>,
    /// Something began, ended, or has doubled since.
    pub is_new: bool,
}

impl Told {
    pub fn news(&self, firing: &[Alert]) -> News {
        let now: BTreeMap<Key, &Alert> = firing.iter().map(|alert| (alert.key(), alert)).collect();
        let resolved: Vec<Alert> =
            self.alerts.iter().filter(|(key, _)| !now.contains_key(*key)).map(|(_, alert)| alert.clone()).collect();
        let begun = |alert: &Alert| self.alerts.get(&alert.key()).is_none_or(|before| alert.count >= 2 * before.count);
        let is_new = !resolved.is_empty() || firing.iter().any(begun);
        News { firing: firing.to_vec(), resolved, is_new }
    }

    /// It has acknowledged that.
    pub fn knows(&mut self, news: News) {
        self.alerts = news.firing.into_iter().map(|alert| (alert.key(), alert)).collect();
    }
}
