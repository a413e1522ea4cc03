//! For decorators around a journal: its calls as lists, so that each decorator says only what it does about them.

/// Hands the reads, but `identity`, to a macro: `name(argument: Type) -> Answer;` each.
#[macro_export]
#[doc(hidden)]
macro_rules! journal_reads {
    ($calls:ident) => {
        $calls! {
            reread() -> Identity;
            saga(id: &SagaId) -> Option<SagaRow>;
            spilled_event(saga: SagaKey, event: [u8; 16]) -> Option<[u8; 16]>;
            spilled_history(saga: SagaKey, from: u64, limit: usize) -> Vec<Entry>;
            store_get(participant: &Participant, key: &str) -> Option<StoreValue>;
            store_scan(participant: &Participant, prefix: &str, after: Option<&str>, bounds: PageBounds) -> StorePage;
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
            removed_letters() -> Vec<RemovedLetters>;
            positions() -> BTreeMap<Partition, Position>;
            outbox(above: BatchNo, limit: usize) -> Vec<OutboxBatch>;
            batch_incarnation(number: BatchNo) -> Option<Arc<str>>;
            admitted() -> Vec<AdmittedRow>;
            paused() -> BTreeMap<Participant, String>;
            plugin_history(participant: &Participant, limit: usize) -> Vec<PluginHistoryEntry>;
            queued_commands() -> Vec<QueuedCommand>;
            referenced_digests() -> BTreeMap<Arc<str>, u64>;
            publication_notes() -> PublicationNotes;
            quarantined(id: &SagaId) -> Option<String>;
        }
    };
}

/// The same with the writes, but those that decorators have something to say about: `commit`, `confirm`, `change_plugins`.
#[macro_export]
#[doc(hidden)]
macro_rules! journal_writes {
    ($calls:ident) => {
        $calls! {
            set_anchor(epoch: Epoch, anchor: &Partition) -> ();
            set_position(epoch: Epoch, partition: &Partition, position: &Position) -> ();
            new_lineage(epoch: Epoch) -> Identity;
            leave_out(epoch: Epoch, batch: BatchNo, index: usize, what: LeftOut, reason: &str) -> ();
            set_not_out(epoch: Epoch, batch: Option<BatchNo>) -> ();
            set_touch_due(epoch: Epoch, due: Time) -> ();
            queue_command(saga: &SagaId, command: &Command) -> i64;
            quarantine(epoch: Epoch, id: &SagaId, why: &str) -> ();
            release(epoch: Epoch, id: &SagaId) -> ();
            remove_finished(epoch: Epoch, now: Time, limit: usize) -> usize;
            remove_letters(epoch: Epoch, now: Time, may_go: &LetterRetention, limit: usize) -> LetterRemoval;
        }
    };
}
