//! The smoke call: a plugin handles the example events of its own manifest before it serves. Invariant: nothing of it is
//! kept, and nothing that it asks of the host can fail for lack of other sagas' data.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use sagahost_manifest::{Fault, manifest::Subscription};
use sagahost_saga::{
    event::Event,
    id::{Direction, EventKey, Kind, SagaId, Time, idempotency_key, step_id},
    outcome::{Call, End, Outcome},
};

use crate::{
    call::Plugin,
    guest::{Entries, HostCalls, HostFault, Level},
};

/// What each example event led to, where that is a fault. A subscription with `after` is left out: it may count on what
/// an earlier step has kept. Rejecting, asking for another attempt or for another event first is an answer like any
/// other.
pub(crate) fn faults(plugin: &Plugin) -> Vec<Fault> {
    let subscriptions = plugin.manifest().subscriptions.iter().enumerate();
    subscriptions.filter_map(|(index, subscription)| fault(plugin, index, subscription)).collect()
}

fn fault(plugin: &Plugin, index: usize, subscription: &Subscription) -> Option<Fault> {
    let example = subscription.example.as_ref().filter(|_| subscription.after.is_empty())?;
    let ran = plugin.run(&call(plugin, subscription, example), Box::<Scratch>::default());
    let kind = &subscription.kind;
    let what = match ran.end {
        Ok(End::Outcome(Outcome::Unknown { crash, .. })) => {
            format!("it fails on its own example of {kind}: {}: {}", crash.code, crash.detail)
        }
        Ok(End::Outcome(Outcome::Invalid(problem))) => {
            format!("its own example of {kind} is invalid to it: {}: {}", problem.code, problem.detail)
        }
        Ok(End::Outcome(_) | End::Undo(_)) => return None,
        Err(error) => format!("its example of {kind} could not be tried: {error}"),
    };
    let place = format!("manifest, subscriptions[{index}].example");
    Some(Fault::new(what, place, "mend the handler, or the example, or the configuration that makes it fail"))
}

fn call(plugin: &Plugin, subscription: &Subscription, example: &serde_json::Value) -> Call {
    let event = Event {
        key: EventKey::new("sagahost/smoke", "1"),
        saga: SagaId::new("smoke"),
        kind: Kind::new(&subscription.kind),
        time: Time(1_700_000_000_000),
        content_type: "application/json".into(),
        data: example.to_string().into_bytes().into(),
        attributes: Vec::new(),
        hops: 0,
        origin: None,
    };
    let step = step_id(&plugin.name(), &event.key);
    Call {
        participant: plugin.name(),
        idempotency_key: idempotency_key(&event.saga, &step, Direction::Forward, 0),
        step_id: step,
        direction: Direction::Forward,
        ordinal: 0,
        attempt: 1,
        now: event.time,
        event,
        state: None,
        undo: None,
        journal_first: false,
    }
}

/// Store and counters of nobody's. A counter that another event's handler would have made is simply empty.
#[derive(Default)]
struct Scratch {
    store: BTreeMap<String, Arc<[u8]>>,
    counters: BTreeMap<String, i64>,
}

impl HostCalls for Scratch {
    fn log(&mut self, _: Level, _: &str, _: &[(String, String)]) {}
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        Ok(self.store.get(key).cloned())
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.store.insert(key.to_owned(), value.into());
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.store.remove(key);
        Ok(())
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, limit: u32) -> Result<Entries, HostFault> {
        let behind = |key: &str| after.is_none_or(|after| key > after);
        let found = self.store.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let page = found.filter(|(key, _)| behind(key)).take(limit as usize);
        Ok(page.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.counters.entry(name.to_owned()).or_insert(initial);
        Ok(())
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        let value = self.counters.entry(name.to_owned()).or_default();
        let left = i64::try_from(amount).ok().and_then(|amount| value.checked_sub(amount)).filter(|left| *left >= 0);
        *value = left.unwrap_or(*value);
        Ok(left.is_some())
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        let value = self.counters.entry(name.to_owned()).or_default();
        *value = value.saturating_add_unsigned(amount);
        Ok(())
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        Ok(self.counters.get(name).copied())
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
