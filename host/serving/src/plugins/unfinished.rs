//! What unfinished sagas need of plugins: code that reads what they hold, participants that they still have steps of.
//! Invariant: nothing is taken away from them without a word.

use sagahost_journal::{Journal, SagaFilter};
use sagahost_manifest::Fault;
use sagahost_saga::{
    Saga,
    id::{Participant, SagaId},
    input::Status,
    topology::Role,
    view::{StepState, StepView},
};
use tracing::error;

use super::{Plugins, PluginsError};
use crate::admission::{Admitted, Archived};

impl Plugins {
    /// Sagas under way must find code that reads what they hold: this version, or a stored one.
    pub(super) fn format_faults(&self, admitted: &Admitted) -> Vec<Fault> {
        let fault = |(format, by): (u32, Option<Archived>)| {
            let what = format!("unfinished sagas hold data of format {format}, and no version that is here reads it");
            let fix = "add it to `reads`, or let these sagas end first, or bring a version back that reads it";
            by.is_none().then(|| Fault::new(what, "manifest, reads", fix))
        };
        self.foreign_formats(admitted).into_iter().filter_map(fault).collect()
    }

    /// Formats that sagas under way hold and this version does not read, each with the stored version that does.
    pub(super) fn foreign_formats(&self, Admitted { plugin, .. }: &Admitted) -> Vec<(u32, Option<Archived>)> {
        let name = plugin.name();
        let held = self.formats.get(&name).into_iter().flatten();
        let foreign: Vec<u32> = held.filter(|format| !plugin.reads(&[**format])).copied().collect();
        if foreign.is_empty() {
            return Vec::new();
        }
        let stored = self.archive.list().inspect_err(|error| error!(%error, "stored versions are lost"));
        let stored = stored.unwrap_or_default();
        let reader = |format: u32| {
            let reads = |stored: &&Archived| stored.manifest.name == name.as_str() && stored.manifest.reads(&[format]);
            (format, stored.iter().find(reads).cloned())
        };
        foreign.into_iter().map(reader).collect()
    }

    /// Unfinished sagas that continue only with this participant, or may have to undo what it did: at most `limit`. Reads
    /// them all.
    pub fn needed_by(
        &self,
        name: &Participant,
        journal: &dyn Journal,
        limit: usize,
    ) -> Result<Vec<SagaId>, PluginsError> {
        const PAGE: usize = 500;
        let unfinished =
            [Status::Waiting, Status::Running, Status::Finishing, Status::Compensating, Status::NeedsOperator];
        let mut found = Vec::new();
        for status in unfinished {
            let mut filter = SagaFilter { status: Some(status), limit: PAGE, ..SagaFilter::default() };
            loop {
                let page = journal.sagas(&filter)?;
                for row in &page {
                    let saga = journal.saga(&row.id)?.and_then(|row| Saga::decode(&row.bytes).ok());
                    if saga.is_some_and(|saga| needs(&saga, name)) {
                        found.push(row.id.clone());
                    }
                }
                filter.before = page.last().map(|row| row.key);
                if page.len() < PAGE || found.len() >= limit {
                    break;
                }
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

/// Has it a step there that is parked, under way, or to be undone now or later, or a letter that the saga waits for? A
/// saga without an end keeps steps that are simply done for ever: these need nobody.
fn needs(saga: &Saga, name: &Participant) -> bool {
    saga.steps().any(|step| step.participant == name && open(&step))
        || saga.needs().iter().any(|need| need.participant.as_ref() == Some(name))
}

fn open(step: &StepView<'_>) -> bool {
    match step.state {
        StepState::Waiting
        | StepState::Early
        | StepState::Started
        | StepState::Retrying
        | StepState::Blocked
        | StepState::Compensating
        | StepState::CompensationFailed => true,
        StepState::Done => step.undoable,
        // `compensate` hears of these, too.
        StepState::Unknown | StepState::GivenUp | StepState::NeverRan => step.role == Role::Compensable,
        StepState::Rejected
        | StepState::Compensated
        | StepState::NothingToUndo
        | StepState::UndoneByHand
        | StepState::Accepted => false,
    }
}
