//! Where the requests of plugins are kept: rows of the store beside the saga. Invariant: a row is written in the batch in which
//! its request becomes one that leaves, and goes with its step, or with its saga.

use sagahost_journal::{Name, requests};
use sagahost_manifest::{
    http::Made,
    sends::{Config, Row, Run, is_shown, made},
};
use sagahost_saga::{
    id::{Direction, SagaId},
    input::CallRef,
    outcome::{Behaviour, Call},
};

use crate::{
    chain::ChainError,
    overlay::{Overlay, OverlayError},
    planted::{self, Planted},
};

/// First byte of a row, before postcard's encoding.
const FORMAT: u8 = 1;

/// A run of one attempt, and whose it is.
pub(crate) struct Sends {
    pub run: Run,
    pub call: CallRef,
    pub saga: SagaId,
}

impl Sends {
    /// `by` and `config`: who begins the attempt, where this is its first run.
    pub fn load(
        overlay: &mut Overlay,
        saga: &SagaId,
        call: &Call,
        by: Behaviour,
        config: Config,
    ) -> Result<Self, ChainError> {
        let of = CallRef::from(call);
        let run = Run::new(rows(overlay, saga, &of)?, call, by, config);
        Ok(Self { run, call: of, saga: saga.clone() })
    }

    /// Of an attempt that goes on.
    pub fn known(overlay: &mut Overlay, saga: &SagaId, call: &Call) -> Result<Self, ChainError> {
        Self::load(overlay, saga, call, Behaviour::default(), Config::default())
    }

    /// What came back last.
    pub fn keep_heard(&self, overlay: &mut Overlay) {
        if let Some(place) = self.run.heard() {
            self.keep(overlay, place);
        }
    }

    /// The run ended at a request, which is to leave.
    pub fn keep_request(mut self, overlay: &mut Overlay) {
        for place in self.run.keep_request() {
            self.keep(overlay, place);
        }
    }

    /// The attempt has ended. `done`: and so has the step, whose requests nobody asks for any more.
    pub fn end(self, overlay: &mut Overlay, done: bool) {
        if done && !planted::on(Planted::KeepSent) {
            (0..self.run.rows().len()).for_each(|place| overlay.forget(name(&self.saga, &self.call, place)));
        } else {
            self.keep_heard(overlay);
        }
    }

    fn keep(&self, overlay: &mut Overlay, place: usize) {
        let row = postcard::to_extend(&self.run.rows()[place], vec![FORMAT]);
        let row = row.expect("a row has an encoding, and a vector takes all of it");
        overlay.keep(name(&self.saga, &self.call, place), row.into());
    }
}

/// What a compensation is shown of its step.
pub(crate) fn shown(overlay: &mut Overlay, saga: &SagaId, call: &Call) -> Result<Vec<Made>, ChainError> {
    if !is_shown(call) {
        return Ok(Vec::new());
    }
    let forward = CallRef { direction: Direction::Forward, ordinal: 0, ..CallRef::from(call) };
    Ok(made(rows(overlay, saga, &forward)?, saga, &call.step_id))
}

fn name(saga: &SagaId, CallRef { step_id, direction, ordinal, .. }: &CallRef, place: usize) -> Name {
    requests::of_send(saga, step_id, *direction, *ordinal, place)
}

fn rows(overlay: &mut Overlay, saga: &SagaId, call: &CallRef) -> Result<Vec<Row>, ChainError> {
    let mut rows = Vec::new();
    loop {
        let (owner, key) = name(saga, call, rows.len());
        let found = overlay.get(&owner, &key).map_err(|error| match error {
            OverlayError::Journal(error) => ChainError::from(error),
            OverlayError::Guest(_) | OverlayError::Refused(_) => unreachable!("it is read, and nothing counted"),
        })?;
        let Some(found) = found else { return Ok(rows) };
        let row = found.split_first().filter(|(format, _)| **format == FORMAT);
        // What was asked under a key is not known then: nothing may be asked.
        let row = row.and_then(|(_, row)| postcard::from_bytes(row).ok()).ok_or_else(|| {
            ChainError::Quarantine(format!(
                "request {} of {} is in a form that cannot be read",
                rows.len() + 1,
                call.step_id
            ))
        })?;
        rows.push(row);
    }
}
