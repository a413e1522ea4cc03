//! Where operators see what serves and what does not, and leave their orders. Invariant: an order is answered when it is
//! carried out, and never by being forgotten.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use sagahost_processor::{stats::Stats, step::Signal};
use sagahost_saga::{id::Participant, input::Answer};
use serde::{Deserialize, Serialize};

use super::ChangeError;
use crate::view::PluginsView;

/// Called when the order is carried out.
pub(super) type Reply = Sender<Result<Answer, ChangeError>>;

pub struct Board {
    view: Mutex<PluginsView>,
    /// Moves with each order, each change of the directory, and when the host stops.
    pub changed: Arc<Signal>,
    orders: (Sender<Waiting>, Receiver<Waiting>),
}

/// An order that is to be carried out.
pub(super) struct Waiting {
    pub(super) order: Order,
    pub(super) reply: Reply,
}

/// From an operator.
pub enum Order {
    Plugin(Participant, PluginAction),
    /// The configuration is read again: other values for plugins.
    ReloadConfig,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PluginAction {
    /// Out of quarantine.
    Admit {
        by: String,
    },
    /// The version before serves again, this one goes into quarantine.
    Rollback {
        by: String,
        reason: String,
    },
    /// Its events park until it is resumed.
    Pause {
        by: String,
        reason: String,
    },
    Resume {
        by: String,
    },
    /// Nobody subscribes in its name any more.
    Retire {
        by: String,
        reason: String,
        force: bool,
    },
}

impl Default for Board {
    fn default() -> Self {
        const ORDERS_MAX: usize = 16;
        Self { view: Mutex::default(), changed: Arc::default(), orders: bounded(ORDERS_MAX) }
    }
}

impl Board {
    pub fn order(&self, order: Order) -> Receiver<Result<Answer, ChangeError>> {
        let (reply, answer) = bounded(1);
        // Where too many wait, the reply goes down with the order, and whoever asked sees that.
        let _ = self.orders.0.try_send(Waiting { order, reply });
        self.changed.raise();
        answer
    }

    pub(super) fn next_order(&self) -> Option<Waiting> {
        self.orders.1.try_recv().ok()
    }

    pub fn view(&self, stats: &Stats) -> PluginsView {
        let mut view = self.view.lock().clone();
        for line in &mut view.plugins {
            let Some(calls) = stats.of_plugin(&line.digest) else { continue };
            (line.calls, line.failures) = (calls.calls, calls.failures);
            (line.p50_us, line.p99_us) = (calls.took.value_at_quantile(0.5), calls.took.value_at_quantile(0.99));
        }
        view
    }

    pub(super) fn put(&self, view: PluginsView) {
        *self.view.lock() = view;
    }
}
