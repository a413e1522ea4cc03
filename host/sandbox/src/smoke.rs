//! A plugin's smoke call in the sandbox. Invariant: nothing of it is kept, and nothing that it asks of the host can fail
//! for lack of other sagas' data.

use std::{any::Any, collections::BTreeMap, sync::Arc, time::Instant};

use sagahost_manifest::{
    Fault,
    host_calls::{Entries, HostCalls, HostFault, Level, PageBounds},
    smoke,
};
use sagahost_saga::outcome::Call;

use crate::call::Plugin;

/// All examples together may take as long as so many calls: whoever admits plugins has other things to do.
const CALLS_MAX: u32 = 10;

pub(crate) fn faults(plugin: &Plugin) -> Vec<Fault> {
    let (began, patience) = (Instant::now(), plugin.limits().budget() * CALLS_MAX);
    let fresh = |call: &Call| plugin.run_fresh(call, Box::<Scratch>::default()).end;
    let used = |call: &Call| plugin.run(call, Box::<Scratch>::default()).end;
    // Twice: what the first call leaves in the instance shows in the second.
    let used_calls = if plugin.residents.is_some() { 2 } else { 0 };
    smoke::faults(plugin.manifest(), |call| {
        if began.elapsed() > patience {
            return Err(format!("those before it took more than {} ms", patience.as_millis()));
        }
        let end = fresh(call).map_err(|error| error.to_string())?;
        for _ in 0..used_calls {
            if used(call).map_err(|error| error.to_string())? != end {
                let why = "it answers otherwise in an instance that was used before: take `isolation = \"reuse\"` away, or \
                           mend it (`sagahost check` shows how)";
                return Err(why.to_owned());
            }
        }
        Ok(end)
    })
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
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
        let behind = |key: &str| after.is_none_or(|after| key > after);
        let found = self.store.range(prefix.to_owned()..).take_while(|(key, _)| key.starts_with(prefix));
        let page = bounds.fill(found.filter(|(key, _)| behind(key)).map(|(key, value)| (key.as_str(), value)));
        Ok(page.into_entries())
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
