//! The host calls of one attempt, answered by the overlay of its chain. Invariant: an attempt sees the store and the
//! counters of its own participant only.

use std::{any::Any, sync::Arc};

use sagahost_manifest::host_calls::{Entries, HostCalls, HostFault, Level, PageBounds};
use sagahost_saga::{
    id::{EventKey, Participant, SagaId},
    outcome::Call,
};
use tracing::{debug, info, trace, warn};

use crate::{
    facts::HostCall,
    overlay::{Overlay, OverlayError},
};

/// Who asks, and what answers.
pub struct AttemptCalls {
    overlay: Overlay,
    participant: Participant,
    saga: SagaId,
    event: EventKey,
    attempt: u32,
    /// What it may have kept of pages that it is not shown.
    bytes_max: usize,
    /// None: nobody reads what was asked.
    made: Option<Vec<HostCall>>,
}

impl AttemptCalls {
    pub fn new(overlay: Overlay, saga: SagaId, call: &Call, bytes_max: usize, gathers: bool) -> Self {
        let (participant, event) = (call.participant.clone(), call.event.key.clone());
        Self { overlay, participant, saga, event, attempt: call.attempt, bytes_max, made: gathers.then(Vec::new) }
    }

    /// What it read and wrote; and what it asked, where facts are read.
    pub fn into_parts(calls: Box<dyn HostCalls>) -> (Overlay, Vec<HostCall>) {
        let calls = calls.into_any().downcast::<Self>();
        let Self { overlay, made, .. } = *calls.expect("the sandbox gives back what it was given");
        (overlay, made.unwrap_or_default())
    }

    fn note(&mut self, call: impl FnOnce() -> HostCall) {
        if let Some(made) = &mut self.made {
            made.push(call());
        }
    }
}

fn fault(error: OverlayError) -> HostFault {
    match error {
        OverlayError::Guest(fault) => HostFault::Guest(fault.to_string()),
        OverlayError::Refused(refused) => HostFault::Refused(refused),
        OverlayError::Journal(error) => HostFault::Host(Box::new(error)),
    }
}

impl HostCalls for AttemptCalls {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
        self.note(|| HostCall::Log { level, message: message.to_owned() });
        let Self { saga, participant, event, attempt, .. } = self;
        match level {
            Level::Trace => trace!(target: "plugin", %saga, %participant, %event, attempt, ?fields, "{message}"),
            Level::Debug => debug!(target: "plugin", %saga, %participant, %event, attempt, ?fields, "{message}"),
            Level::Info => info!(target: "plugin", %saga, %participant, %event, attempt, ?fields, "{message}"),
            // A guest cannot call for a person: the host's own `error` does.
            Level::Warn | Level::Error => {
                warn!(target: "plugin", %saga, %participant, %event, attempt, ?fields, "{message}")
            }
        }
    }
    fn store_get(&mut self, key: &str) -> Result<Option<Arc<[u8]>>, HostFault> {
        let value = self.overlay.get(&self.participant, key).map_err(fault)?;
        self.note(|| HostCall::StoreGet { key: key.to_owned(), value: value.clone() });
        Ok(value)
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        let value: Arc<[u8]> = value.into();
        self.note(|| HostCall::StorePut { key: key.to_owned(), value: value.clone() });
        self.overlay.put(&self.participant, key, Some(value));
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.note(|| HostCall::StoreDelete { key: key.to_owned() });
        self.overlay.put(&self.participant, key, None);
        Ok(())
    }
    fn store_scan(&mut self, prefix: &str, after: Option<&str>, bounds: PageBounds) -> Result<Entries, HostFault> {
        let entries = self.overlay.scan(&self.participant, prefix, after, bounds, self.bytes_max).map_err(fault)?;
        self.note(|| HostCall::StoreScan {
            prefix: prefix.to_owned(),
            after: after.map(str::to_owned),
            limit: bounds.entries,
            entries: entries.clone(),
        });
        Ok(entries)
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.overlay.ensure(&self.participant, name, initial).map_err(fault)?;
        self.note(|| HostCall::CounterEnsure { name: name.to_owned(), initial });
        Ok(())
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        let taken = self.overlay.take(&self.participant, name, amount).map_err(fault)?;
        self.note(|| HostCall::CounterTake { name: name.to_owned(), amount, taken });
        Ok(taken)
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.overlay.give(&self.participant, name, amount).map_err(fault)?;
        self.note(|| HostCall::CounterGive { name: name.to_owned(), amount });
        Ok(())
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        let value = self.overlay.read(&self.participant, name).map_err(fault)?;
        self.note(|| HostCall::CounterRead { name: name.to_owned(), value });
        Ok(value)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
