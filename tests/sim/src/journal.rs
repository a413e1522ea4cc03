//! The real journal, where a process dies at each durable write, and calls fail, lie or are interrupted.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_journal::*;
use sagahost_saga::{
    history::Entry,
    id::{Participant, SagaId, Time},
    input::{Command, Status},
};
use sagahost_wire::{BatchNo, Epoch, Partition, Position, StoredLetter};

use crate::{
    plan::Fault,
    world::{self, HostNo, die, happens, inside},
};

pub struct SimJournal {
    pub inner: Arc<dyn Journal>,
    pub host: HostNo,
}

fn failed(what: &str) -> JournalError {
    JournalError::Failed(format!("simulated: {what}"))
}

macro_rules! calls {
    ($fault:ident: $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> Result<$out, JournalError> {
            inside(self.host);
            if happens(Fault::$fault) {
                return Err(failed(stringify!($name)));
            }
            let answer = self.inner.$name($($arg),*);
            inside(self.host);
            answer
        })*
    };
}

impl Journal for SimJournal {
    fn identity(&self) -> Identity {
        inside(self.host);
        self.inner.identity()
    }
    calls! { ReadFails:
        reread() -> Identity;
        saga(id: &SagaId) -> Option<SagaRow>;
        spilled_event(saga: SagaKey, event: [u8; 16]) -> Option<[u8; 16]>;
        spilled_history(saga: SagaKey) -> Vec<Entry>;
        store_get(participant: &Participant, key: &str) -> Option<Arc<[u8]>>;
        store_scan(participant: &Participant, prefix: &str, after: Option<&str>, limit: usize) -> Vec<StoreEntry>;
        counter(participant: &Participant, name: &str) -> Option<i64>;
        counters(participant: Option<&Participant>) -> Vec<(Participant, String, i64)>;
        due(now: Time, limit: usize) -> Vec<(Time, SagaId)>;
        deadlines(now: Time, limit: usize) -> Vec<(Time, SagaId)>;
        next_due() -> (Option<Time>, Option<Time>);
        parked_sagas(after: SagaKey, limit: usize) -> Vec<(SagaKey, SagaId)>;
        in_doubt(after: SagaKey, limit: usize) -> Vec<(SagaKey, SagaId)>;
        sagas(filter: &SagaFilter) -> Vec<SagaListRow>;
        count_by_status() -> Vec<(Status, u64)>;
        letters(filter: &LetterFilter) -> Vec<StoredLetter>;
        letter(key: &str) -> Option<StoredLetter>;
        letter_groups() -> Vec<(String, Option<Participant>, u64)>;
        positions() -> BTreeMap<Partition, Position>;
        outbox(above: BatchNo, limit: usize) -> Vec<OutboxBatch>;
        batch_incarnation(number: BatchNo) -> Option<Arc<str>>;
        admitted() -> Vec<AdmittedRow>;
        paused() -> BTreeMap<Participant, String>;
        plugin_deeds(participant: &Participant, limit: usize) -> Vec<PluginDeed>;
        queued_commands() -> Vec<QueuedCommand>;
        referenced_digests() -> BTreeMap<Arc<str>, u64>;
        publication_notes() -> PublicationNotes;
        quarantined(id: &SagaId) -> Option<String>;
    }
    calls! { WriteFails:
        set_anchor(epoch: Epoch, anchor: &Partition) -> ();
        set_position(epoch: Epoch, partition: &Partition, position: &Position) -> ();
        new_lineage(epoch: Epoch) -> Identity;
        change_plugins(epoch: Epoch, write: &PluginWrite) -> ();
        leave_out(epoch: Epoch, batch: BatchNo, index: usize, what: LeftOut, reason: &str) -> ();
        set_not_out(epoch: Epoch, batch: Option<BatchNo>) -> ();
        set_touch_due(epoch: Epoch, due: Time) -> ();
        queue_command(saga: &SagaId, command: &Command) -> i64;
        quarantine(epoch: Epoch, id: &SagaId, why: &str) -> ();
        release(epoch: Epoch, id: &SagaId) -> ();
        remove_finished(epoch: Epoch, now: Time, limit: usize) -> usize;
        remove_closed_letters(epoch: Epoch, before: Time, limit: usize) -> usize;
    }
    fn commit(&self, epoch: Epoch, batch: &BatchWrite) -> Result<Vec<(SagaId, SagaKey)>, JournalError> {
        inside(self.host);
        if happens(Fault::CrashBeforeCommit) {
            die(self.host);
        }
        if happens(Fault::CommitFails) {
            return Err(failed("the commit"));
        }
        if happens(Fault::DiskFull) {
            return Err(JournalError::DiskFull("simulated".to_owned()));
        }
        let keys = self.inner.commit(epoch, batch)?;
        world::world(|world| {
            world.note(|| {
                let places = batch.positions.iter().map(|(at, position)| format!("{at}@{}", position.next));
                let sagas = batch.sagas.iter().map(|saga| saga.id.to_string());
                let (places, sagas): (Vec<_>, Vec<_>) = (places.collect(), sagas.collect());
                format!("journaled {}: {}; {}", batch.number.0, sagas.join(" "), places.join(" "))
            });
        });
        if happens(Fault::CrashAfterCommit) {
            die(self.host);
        }
        inside(self.host);
        if happens(Fault::CommitLies) {
            return Err(failed("the commit went through"));
        }
        Ok(keys)
    }
    fn confirm(&self, epoch: Epoch, up_to: BatchNo) -> Result<(), JournalError> {
        inside(self.host);
        if happens(Fault::CrashBeforeConfirm) {
            die(self.host);
        }
        if happens(Fault::WriteFails) {
            return Err(failed("the confirmation"));
        }
        self.inner.confirm(epoch, up_to)?;
        if happens(Fault::CrashAfterConfirm) {
            die(self.host);
        }
        inside(self.host);
        Ok(())
    }
    fn close(&self) -> Result<(), JournalError> {
        self.inner.close()
    }
}
