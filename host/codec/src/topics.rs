//! Which topic carries which kind, and how its records are read.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_saga::id::Kind;
use sagahost_wire::topic_name;

use crate::mapping::{KindFrom, RecordMapping};

/// Tables `[topics]`, `[topics.of-kind]` and `[topics.records.TOPIC]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Kinds whose topic is not the kebab-case of their name.
    pub of_kind: BTreeMap<Kind, Arc<str>>,
    /// By topic: how records that are not CloudEvents are read.
    pub records: BTreeMap<Arc<str>, RecordMapping>,
    /// None: dead letters are journaled only.
    pub dead_letters: Option<Arc<str>>,
    /// Where `SagaFailed` goes and comes from.
    pub saga_failed: Arc<str>,
    /// Names of record headers, in lower case, that become attributes of the event beside `ce_*` and `traceparent`.
    pub headers: Vec<String>,
    /// Kinds that others handle: `OrderArchived`, or `billing.*` for all that begin like this.
    pub ignored_kinds: Vec<String>,
}

impl TopicSettings {
    pub fn of_app(app: &str) -> Self {
        Self {
            of_kind: BTreeMap::new(),
            records: BTreeMap::new(),
            dead_letters: Some(format!("{app}.dead-letters").into()),
            saga_failed: topic_name::of_kind(SAGA_FAILED).into(),
            headers: Vec::new(),
            ignored_kinds: Vec::new(),
        }
    }

    /// Is it expected that no plugin here handles this kind?
    pub fn ignores(&self, kind: &str) -> bool {
        self.ignored_kinds.iter().any(|ignored| match ignored.strip_suffix('*') {
            Some(beginning) => kind.starts_with(beginning),
            None => kind == ignored,
        })
    }

    pub fn topic_of(&self, kind: &Kind) -> Arc<str> {
        match self.of_kind.get(kind) {
            Some(topic) => topic.clone(),
            None if kind.as_str() == SAGA_FAILED => self.saga_failed.clone(),
            None => topic_name::of_kind(kind.as_str()).into(),
        }
    }

    /// The kind that was given this topic, unless each record there says its own.
    pub fn only_kind_of(&self, topic: &str) -> Option<&Kind> {
        let kind = self.of_kind.iter().find(|(_, name)| &***name == topic).map(|(kind, _)| kind);
        kind.filter(|_| !matches!(self.mapping(topic).kind, Some(KindFrom::At(_))))
    }

    /// How plain records of this topic are read; the defaults where the file says nothing.
    pub fn mapping(&self, topic: &str) -> RecordMapping {
        self.records.get(topic).cloned().unwrap_or_default()
    }
}

/// The kind that announces a failure to other apps.
pub const SAGA_FAILED: &str = "SagaFailed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_a_topic() {
        let mut topics = TopicSettings::of_app("shop");
        topics.of_kind.insert(Kind::new("OrderPaid"), "orders.paid.v1".into());
        for (kind, topic) in [
            ("OrderCreated", "order-created"),
            ("OrderPaid", "orders.paid.v1"),
            ("SagaFailed", "saga-failed"),
            ("Order2Shipped", "order2-shipped"),
        ] {
            assert_eq!(&*topics.topic_of(&Kind::new(kind)), topic);
        }
    }
}
