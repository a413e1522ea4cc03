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
    disk,
    plan::Fault,
    world::{self, HostNo, choose, die, happens, inside},
};

pub struct SimJournal {
    pub inner: Arc<dyn Journal>,
    pub host: HostNo,
    /// Which one of those that there have been in this run.
    pub directory: u64,
}

fn failed(what: &str) -> JournalError {
    JournalError::Failed(format!("simulated: {what}"))
}

macro_rules! calls {
    ($fault:ident $($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
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

macro_rules! reads {
    ($($call:tt)*) => { calls! { ReadFails $($call)* } };
}

macro_rules! writes {
    ($($call:tt)*) => { calls! { WriteFails $($call)* } };
}

impl Journal for SimJournal {
    fn identity(&self) -> Identity {
        inside(self.host);
        self.inner.identity()
    }
    journal_reads!(reads);
    journal_writes!(writes);
    fn change_plugins(&self, epoch: Epoch, write: &PluginWrite) -> Result<(), JournalError> {
        inside(self.host);
        if happens(Fault::CrashBeforePlugins) {
            die(self.host);
        }
        if happens(Fault::WriteFails) {
            return Err(failed("what is known of plugins"));
        }
        self.inner.change_plugins(epoch, write)?;
        if happens(Fault::CrashAfterPlugins) {
            die(self.host);
        }
        inside(self.host);
        Ok(())
    }
    fn commit(&self, epoch: Epoch, batch: &BatchWrite) -> Result<CommitAnswer, JournalError> {
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
        if happens(Fault::CommitUnclear) {
            return Ok(CommitAnswer::Unknown(failed("the commit did not go through")));
        }
        if happens(Fault::Conflict) {
            let counter = (Participant::from("payment"), "simulated".to_owned());
            return Ok(CommitAnswer::Conflict(vec![Contended::Counter(counter)]));
        }
        let power_fails = happens(Fault::PowerLost);
        if power_fails {
            disk::lose_power_within(choose(14, 20) as u64, choose(1 << 40, 21) as u64);
        }
        let committed = self.inner.commit(epoch, batch);
        if power_fails {
            disk::power_is_lost();
            world::power_is_lost();
            world::alive(self.host);
        }
        let committed = committed?;
        if matches!(committed, CommitAnswer::Done(_)) {
            world::world(|world| world.answered(self.directory, batch.number.0));
        }
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
            return Ok(CommitAnswer::Unknown(failed("the commit went through")));
        }
        Ok(committed)
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
