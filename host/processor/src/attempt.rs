//! The host calls of one attempt, answered by the overlay of its chain. Invariant: an attempt sees the store and the
//! counters of its own participant only.

use std::{any::Any, sync::Arc};

use sagahost_manifest::host_calls::{HostCalls, HostFault, Level};
use sagahost_saga::{
    id::{EventKey, Participant, SagaId},
    outcome::Call,
};
use tracing::{debug, info, trace, warn};

use crate::overlay::{Overlay, OverlayError};

/// Who asks, and what answers.
pub struct AttemptCalls {
    overlay: Overlay,
    participant: Participant,
    saga: SagaId,
    event: EventKey,
    attempt: u32,
}

impl AttemptCalls {
    pub fn new(overlay: Overlay, saga: SagaId, call: &Call) -> Self {
        let (participant, event) = (call.participant.clone(), call.event.key.clone());
        Self { overlay, participant, saga, event, attempt: call.attempt }
    }

    /// What it read and wrote.
    pub fn into_overlay(calls: Box<dyn HostCalls>) -> Overlay {
        let calls = calls.into_any().downcast::<Self>();
        calls.expect("the sandbox gives back what it was given").overlay
    }
}

fn fault(error: OverlayError) -> HostFault {
    match error {
        OverlayError::Guest(fault) => HostFault::Guest(fault.to_string()),
        OverlayError::Journal(error) => HostFault::Host(Box::new(error)),
    }
}

impl HostCalls for AttemptCalls {
    fn log(&mut self, level: Level, message: &str, fields: &[(String, String)]) {
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
        self.overlay.get(&self.participant, key).map_err(fault)
    }
    fn store_put(&mut self, key: &str, value: Vec<u8>) -> Result<(), HostFault> {
        self.overlay.put(&self.participant, key, Some(value.into()));
        Ok(())
    }
    fn store_delete(&mut self, key: &str) -> Result<(), HostFault> {
        self.overlay.put(&self.participant, key, None);
        Ok(())
    }
    fn store_scan(
        &mut self,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, Arc<[u8]>)>, HostFault> {
        self.overlay.scan(&self.participant, prefix, after, limit as usize).map_err(fault)
    }
    fn counter_ensure(&mut self, name: &str, initial: i64) -> Result<(), HostFault> {
        self.overlay.ensure(&self.participant, name, initial).map_err(fault)
    }
    fn counter_take(&mut self, name: &str, amount: u64) -> Result<bool, HostFault> {
        self.overlay.take(&self.participant, name, amount).map_err(fault)
    }
    fn counter_give(&mut self, name: &str, amount: u64) -> Result<(), HostFault> {
        self.overlay.give(&self.participant, name, amount).map_err(fault)
    }
    fn counter_read(&mut self, name: &str) -> Result<Option<i64>, HostFault> {
        self.overlay.read(&self.participant, name).map_err(fault)
    }
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
