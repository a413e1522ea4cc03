//! Who handles what, and with which code.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use sagahost_codec::Codec;
use sagahost_journal::Journal;
use sagahost_saga::{id::Kind, topology::Topology};
use sagahost_wire::Generation;

use crate::{
    code::Code,
    intake::Intake,
    lookalike,
    stats::Stats,
    step::{Signal, Stop},
};

/// Replaced as a whole; a chain keeps what it began with.
pub struct Serving {
    pub topology: Topology,
    pub code: Arc<dyn Code>,
    pub codec: Codec,
    pub generation: Generation,
    /// Generation from which on all subscribers of a kind take its events.
    pub since: BTreeMap<Kind, Generation>,
}

/// What whoever decides over what serves has of a processor.
#[derive(Clone)]
pub struct Switch {
    pub journal: Arc<dyn Journal>,
    pub intake: Arc<Intake>,
    pub stats: Arc<Stats>,
    /// Nothing is to be switched any more.
    pub stop: Stop,
    pub(crate) serving: Arc<ArcSwap<Serving>>,
    pub(crate) settled: Arc<Signal>,
}

impl Switch {
    /// Chains that begin from here on run with this.
    pub fn serve(&self, serving: Serving) {
        self.serving.store(Arc::new(serving));
        self.settled.raise_all();
    }
}

impl Serving {
    /// Do all subscribers of the kind take events that were taken in with this generation?
    pub fn took(&self, kind: &Kind, generation: Generation) -> bool {
        self.since.get(kind).is_none_or(|since| *since <= generation)
    }

    /// The handled kind that was probably meant.
    pub fn meant(&self, kind: &Kind) -> Option<String> {
        let members = &self.topology.members;
        let handled = members.iter().flat_map(|member| &member.subscriptions).map(|subscription| &subscription.kind);
        let others = members.iter().flat_map(|member| member.compensate_on.iter().chain(&member.finish_on));
        lookalike::meant(kind.as_str(), handled.chain(others).map(Kind::as_str)).map(str::to_owned)
    }
}
