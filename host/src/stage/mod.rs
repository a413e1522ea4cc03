//! The open batch: where chains meet. Invariant: under one short mutex a chain is either found true against
//! everything staged before it and becomes part of the open batch as a whole, or changes nothing.

mod join;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use sagahost_codec::Codec;
use sagahost_journal::{BatchWrite, Journal, JournalError, LetterWrite, SagaKey, SagaWrite, StoreEntry};
use sagahost_saga::{
    Saga,
    history::Entry,
    id::{Participant, SagaId, Time},
    input::{Answer, Status, Wake},
};
use sagahost_transport::Verified;
use sagahost_wire::{BatchNo, Outgoing, Partition, Position, TopicId};

use self::join::merged;
use crate::{
    admin::protocol::{Refusal, Why},
    overlay::Overlay,
    positions::{Positions, Receipt},
    values::{Name, SagaCell, Values},
};

/// The batch of an idle host waits so long for its positions to be verified; then they come with a later one.
const VERIFIED_WITHIN: Duration = Duration::from_millis(20);

/// An event on its way out. `handled`: its id, when this app took it in with the same batch.
#[derive(Clone, Debug)]
pub struct Departure {
    pub outgoing: Outgoing,
    pub handled: Option<Arc<str>>,
}

/// The saga's part of a chain.
pub struct SagaChange {
    pub saga: Arc<Saga>,
    pub bytes: Vec<u8>,
    pub status: Status,
    pub wake: Wake,
    pub spilled_events: Vec<([u8; 16], [u8; 16])>,
    pub spilled_history: Vec<Entry>,
    pub digests: BTreeSet<Arc<str>>,
}

/// Told when the batch is journaled, or that it never will be.
pub type Reply = crossbeam_channel::Sender<Result<Answer, Refusal>>;

/// Everything that one chain wants to make durable.
pub struct Staging {
    /// Which life of the stage the chain was run in: after a failed commit all earlier work is void.
    pub life: u64,
    pub chain: u64,
    pub id: Option<SagaId>,
    pub change: Option<SagaChange>,
    pub overlay: Overlay,
    pub letters: Vec<LetterWrite>,
    pub departures: Vec<Departure>,
    pub receipt: Option<Receipt>,
    pub command_done: Option<i64>,
    pub reply: Option<(Reply, Answer)>,
    pub now: Time,
}

/// What a chain lost a conflict over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Conflict {
    Key(Name),
    /// It scanned: every key that begins like this.
    Prefix(Name),
}

impl Conflict {
    fn covers(&self, (participant, key): &Name) -> bool {
        match self {
            Self::Key(name) => name.0 == *participant && name.1 == *key,
            Self::Prefix((of, prefix)) => of == participant && key.starts_with(prefix.as_str()),
        }
    }
}

/// Why a chain was not staged.
#[derive(Debug)]
pub enum NotStaged {
    /// What it read is no longer so: throw it away and run it again.
    Stale(Vec<Conflict>),
    /// The batch that it was built on failed: its input is delivered again.
    Void,
    Journal(JournalError),
}

/// Bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchBounds {
    pub chains_max: usize,
    pub bytes_max: usize,
    pub wait: Duration,
    /// Position-only progress waits this long for something to ride along with.
    pub position_wait: Duration,
    pub unpublished_max: u64,
}

#[derive(Default)]
struct OpenBatch {
    sagas: HashMap<SagaId, SagaWrite>,
    order: Vec<SagaId>,
    store: BTreeMap<Name, Option<Arc<[u8]>>>,
    counters: BTreeMap<Name, i64>,
    letters: Vec<LetterWrite>,
    outbox: Vec<Outgoing>,
    commands_done: Vec<i64>,
    replies: Vec<(Reply, Answer)>,
    chains: usize,
    bytes: usize,
    opened: Option<Instant>,
    at: Time,
}

struct Inner {
    values: Values,
    positions: Positions,
    open: OpenBatch,
    number: BatchNo,
    published: BatchNo,
    life: u64,
    reserved: HashMap<Conflict, (u64, Instant)>,
    moved_since: Option<Instant>,
    closed: bool,
    /// Work that is somewhere between the source and the open batch.
    busy: usize,
    /// Seal the open batch now, however small.
    urged: bool,
    handled_prefix: String,
    /// Why the host cannot go on with this life of the stage.
    failed: Option<String>,
    quarantined: HashMap<SagaId, String>,
    /// An operator's word about a partition that is held.
    to_move: Option<Move>,
}

/// A partition is to be read from elsewhere.
pub struct Move {
    pub partition: Partition,
    pub next: i64,
    /// The topic that the position is one of.
    pub topic_id: Option<TopicId>,
    pub reply: Reply,
}

/// What the committer is to do next.
pub enum Next {
    Commit(Box<Sealed>),
    /// The host could not do its job somewhere: begin anew from the journal.
    Restart(String),
    Move(Move),
    /// Nothing is due.
    Wait,
}

pub struct Stage {
    inner: Mutex<Inner>,
    /// Something was staged, published, or asks for attention.
    stirred: Condvar,
    /// The open batch has room, or a reservation ended.
    roomy: Condvar,
    journal: Arc<dyn Journal>,
    bounds: BatchBounds,
}

/// A batch that is sealed: nothing joins it any more.
pub struct Sealed {
    pub life: u64,
    pub write: BatchWrite,
    pub replies: Vec<(Reply, Answer)>,
    pub chains: usize,
}

impl Stage {
    pub fn new(journal: Arc<dyn Journal>, bounds: BatchBounds, cache_bytes_max: usize) -> Self {
        let identity = journal.identity();
        let inner = Inner {
            values: Values::new(cache_bytes_max, identity.last_batch),
            positions: Positions::default(),
            open: OpenBatch::default(),
            number: BatchNo(identity.last_batch.0 + 1),
            published: identity.confirmed,
            life: 0,
            reserved: HashMap::new(),
            moved_since: None,
            closed: false,
            busy: 0,
            urged: false,
            handled_prefix: format!("{}/{}", identity.journal, identity.incarnation),
            failed: None,
            quarantined: HashMap::new(),
            to_move: None,
        };
        Self { inner: Mutex::new(inner), stirred: Condvar::new(), roomy: Condvar::new(), journal, bounds }
    }

    // ---- reads, lowest layer of every overlay

    /// From memory, or else from the journal, outside the mutex. What memory dropped meanwhile may be newer than what was
    /// read: then it is read again.
    fn known_or_read<T, R, E>(
        &self,
        known: impl Fn(&mut Inner) -> Result<Option<T>, E>,
        read: impl Fn() -> Result<R, E>,
        learn: impl Fn(&mut Values, R) -> T,
    ) -> Result<T, E> {
        loop {
            let drops = {
                let mut inner = self.inner.lock();
                if let Some(value) = known(&mut inner)? {
                    return Ok(value);
                }
                inner.values.drops()
            };
            let value = read()?;
            let mut inner = self.inner.lock();
            if inner.values.drops() == drops {
                return Ok(learn(&mut inner.values, value));
            }
        }
    }

    pub fn saga(&self, id: &SagaId) -> Result<SagaCell, SagaError> {
        let known = |inner: &mut Inner| match inner.quarantined.get(id) {
            Some(why) => Err(SagaError::Quarantined(why.clone())),
            None => Ok(inner.values.saga(id)),
        };
        self.known_or_read(known, || self.read_saga(id), |values, cell| values.learn_saga(id, cell))
    }

    fn read_saga(&self, id: &SagaId) -> Result<SagaCell, SagaError> {
        let Some(row) = self.journal.saga(id)? else { return Ok(SagaCell::default()) };
        let saga = Saga::decode(&row.bytes).map_err(|error| SagaError::Unreadable(error.to_string()))?;
        Ok(SagaCell { saga: Some(Arc::new(saga)), bytes: row.bytes.len(), key: Some(row.key), spilling: Vec::new() })
    }

    pub fn store(&self, name: &Name) -> Result<Option<Arc<[u8]>>, JournalError> {
        let read = || self.journal.store_get(&name.0, &name.1);
        self.known_or_read(|inner| Ok(inner.values.store(name)), read, |values, value| values.learn_store(name, value))
    }

    pub fn counter(&self, name: &Name) -> Result<Option<i64>, JournalError> {
        let read = || self.journal.counter(&name.0, &name.1);
        self.known_or_read(
            |inner| Ok(inner.values.counter(name)),
            read,
            |values, value| values.learn_counter(name, value),
        )
    }

    pub fn scan(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoreEntry>, JournalError> {
        loop {
            let drops = self.inner.lock().values.drops();
            // Keys that memory knows as deleted must not shorten the page.
            let hidden = {
                let inner = self.inner.lock();
                inner.values.store_range(participant, prefix, after).filter(|(_, value)| value.is_none()).count()
            };
            let read = self.journal.store_scan(participant, prefix, after, limit + hidden)?;
            let inner = self.inner.lock();
            if inner.values.drops() == drops {
                return Ok(merged(&inner.values, participant, prefix, after, limit, &read, limit + hidden));
            }
        }
    }

    // ---- the source

    /// A record was read. False: it lies below the position.
    pub fn delivered(&self, receipt: &Receipt) -> bool {
        self.inner.lock().positions.delivered(receipt)
    }

    /// The record needs no work: known as handled.
    pub fn skipped(&self, receipt: &Receipt) {
        let mut inner = self.inner.lock();
        inner.positions.accounted(receipt);
        self.moved(inner);
    }

    /// The source reads from the positions of the last restart on.
    pub fn source_follows(&self) {
        self.inner.lock().positions.source_follows();
    }

    pub fn passed(&self, partition: &Partition, offset: i64) {
        let mut inner = self.inner.lock();
        inner.positions.passed(partition, offset);
        self.moved(inner);
    }

    pub fn begin(&self, partition: &Partition, position: Position) {
        self.inner.lock().positions.begin(partition, position);
    }

    pub fn unverified(&self) -> bool {
        self.inner.lock().positions.unverified()
    }

    pub fn verified(&self, all: &[Verified]) {
        let mut inner = self.inner.lock();
        all.iter().for_each(|of| inner.positions.verified(of));
        // A batch may have waited for it.
        self.stirred.notify_one();
        self.moved(inner);
    }

    fn moved(&self, mut inner: MutexGuard<'_, Inner>) {
        if inner.moved_since.is_none() && inner.positions.moved() {
            inner.moved_since = Some(Instant::now());
            self.stirred.notify_one();
        }
    }

    pub fn outstanding(&self) -> usize {
        self.inner.lock().positions.outstanding()
    }

    pub fn positions(&self) -> BTreeMap<Partition, Position> {
        self.inner.lock().positions.all()
    }

    // ---- the workers

    pub fn life(&self) -> u64 {
        self.inner.lock().life
    }

    /// `more` pieces of work have begun (or, negative, ended): an idle host seals at once.
    pub fn busy(&self, more: isize) {
        let mut inner = self.inner.lock();
        inner.busy = inner.busy.saturating_add_signed(more);
        if inner.busy == 0 {
            self.stirred.notify_one();
        }
    }

    /// From the third run on a chain holds what it conflicted on, until it is staged or the deadline passes.
    pub fn reserve(&self, chain: u64, conflicts: &[Conflict], deadline: Duration) {
        let until = Instant::now() + deadline;
        let mut inner = self.inner.lock();
        loop {
            let now = Instant::now();
            inner.reserved.retain(|_, (_, until)| *until > now);
            let others = |conflict| inner.reserved.get(conflict).is_some_and(|(owner, _)| *owner != chain);
            let taken = conflicts.iter().any(others);
            if !taken || now >= until {
                break;
            }
            self.roomy.wait_for(&mut inner, Duration::from_millis(20));
        }
        for conflict in conflicts {
            inner.reserved.insert(conflict.clone(), (chain, until));
        }
    }

    /// Somebody could not do the host's job: all work of this life is void.
    pub fn fail(&self, life: u64, why: String) {
        let mut inner = self.inner.lock();
        if inner.life == life {
            inner.failed.get_or_insert(why);
            self.stirred.notify_all();
        }
    }

    pub fn quarantine(&self, id: &SagaId, why: String) {
        self.inner.lock().quarantined.insert(id.clone(), why);
    }

    pub fn is_quarantined(&self, id: &SagaId) -> bool {
        self.inner.lock().quarantined.contains_key(id)
    }

    pub fn release(&self, id: &SagaId) {
        self.inner.lock().quarantined.remove(id);
    }

    /// The committer moves a position between two batches: one that is on its way must not move it back.
    pub fn move_position(&self, to_move: Move) {
        self.inner.lock().to_move = Some(to_move);
        self.stirred.notify_all();
    }

    /// Waits for room, checks everything that the chain read, and makes it part of the open batch.
    pub fn stage(&self, staging: Staging, codec: &Codec) -> Result<(), NotStaged> {
        let mut inner = self.inner.lock();
        while inner.life == staging.life
            && !inner.closed
            && (self.full(&inner.open) || inner.reserved_by_other(&staging))
        {
            self.roomy.wait_for(&mut inner, Duration::from_millis(50));
            let now = Instant::now();
            inner.reserved.retain(|_, (_, until)| *until > now);
        }
        if inner.life != staging.life || inner.closed {
            return Err(NotStaged::Void);
        }
        let counters = inner.check(&staging.overlay, &*self.journal)?;
        inner.join(staging, counters, codec);
        if inner.open.opened.is_none() {
            inner.open.opened = Some(Instant::now());
        }
        self.stirred.notify_one();
        self.roomy.notify_all();
        Ok(())
    }

    fn full(&self, open: &OpenBatch) -> bool {
        open.chains >= self.bounds.chains_max || open.bytes >= self.bounds.bytes_max
    }

    // ---- the committer

    /// Waits until a batch is due and may go, and seals it.
    pub fn next(&self, timeout: Duration) -> Next {
        let deadline = Instant::now() + timeout;
        let mut inner = self.inner.lock();
        loop {
            let now = Instant::now();
            if let Some(why) = inner.failed.take() {
                return Next::Restart(why);
            }
            if let Some(to_move) = inner.to_move.take() {
                return Next::Move(to_move);
            }
            if inner.number.0 - 1 - inner.published.0 < self.bounds.unpublished_max {
                match self.due_at(&inner, now) {
                    Some(due) if due <= now => return Next::Commit(Box::new(self.seal_now(&mut inner))),
                    Some(due) => {
                        let until = due.min(deadline);
                        self.stirred.wait_until(&mut inner, until);
                    }
                    None => {
                        self.stirred.wait_until(&mut inner, deadline);
                    }
                }
            } else {
                self.stirred.wait_until(&mut inner, deadline);
            }
            if Instant::now() >= deadline {
                return Next::Wait;
            }
        }
    }

    fn due_at(&self, inner: &Inner, now: Instant) -> Option<Instant> {
        if let Some(opened) = inner.open.opened {
            if inner.urged || self.full(&inner.open) {
                return Some(now);
            }
            if inner.busy > 0 {
                return Some(opened + self.bounds.wait);
            }
            // Without the positions in it they would need a batch of their own.
            let wait =
                if inner.positions.unverified() { VERIFIED_WITHIN.min(self.bounds.wait) } else { Duration::ZERO };
            return Some(opened + wait);
        }
        inner.moved_since.map(|since| if inner.urged { now } else { since + self.bounds.position_wait })
    }

    fn seal_now(&self, inner: &mut Inner) -> Sealed {
        let open = std::mem::take(&mut inner.open);
        let mut sagas = open.sagas;
        let write = BatchWrite {
            number: inner.number,
            at: open.at,
            sagas: open.order.iter().filter_map(|id| sagas.remove(id)).collect(),
            store: open.store,
            counters: open.counters,
            letters: open.letters,
            positions: inner.positions.seal(),
            outbox: open.outbox,
            commands_done: open.commands_done,
            confirmed: inner.published,
        };
        inner.number = BatchNo(inner.number.0 + 1);
        inner.moved_since = None;
        inner.urged = false;
        self.roomy.notify_all();
        Sealed { life: inner.life, write, replies: open.replies, chains: open.chains }
    }

    /// What waits for the broker: batches sealed and not published.
    pub fn unpublished(&self) -> u64 {
        let inner = self.inner.lock();
        inner.number.0 - 1 - inner.published.0
    }

    pub fn published_batch(&self) -> BatchNo {
        self.inner.lock().published
    }

    /// False: it is not published within that time.
    pub fn await_published(&self, batch: BatchNo, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut inner = self.inner.lock();
        while inner.published < batch {
            if self.stirred.wait_until(&mut inner, until).timed_out() {
                break;
            }
        }
        inner.published >= batch
    }

    pub fn last_sealed(&self) -> BatchNo {
        BatchNo(self.inner.lock().number.0 - 1)
    }

    /// Progress without events is to be published anew: committed offsets without members expire.
    pub fn touch(&self) {
        let mut inner = self.inner.lock();
        inner.positions.touch();
        inner.moved_since.get_or_insert_with(Instant::now);
        self.stirred.notify_all();
    }

    /// Is there nothing left that a batch should carry?
    pub fn drained(&self) -> bool {
        let inner = self.inner.lock();
        inner.open.opened.is_none() && inner.busy == 0 && !inner.positions.moved()
    }

    pub fn urge(&self) {
        self.inner.lock().urged = true;
        self.stirred.notify_all();
    }

    /// Rows of sagas that got their key in a batch journaled meanwhile.
    pub fn fill_keys(&self, write: &mut BatchWrite) {
        let mut inner = self.inner.lock();
        for saga in write.sagas.iter_mut().filter(|saga| saga.key.is_none()) {
            saga.key = inner.values.saga(&saga.id).and_then(|cell| cell.key);
        }
    }

    pub fn journaled(&self, batch: BatchNo, keys: &[(SagaId, SagaKey)]) {
        let mut inner = self.inner.lock();
        for (id, key) in keys {
            inner.values.key_known(id, *key);
        }
        inner.values.journaled(batch);
    }

    pub fn published(&self, batch: BatchNo) {
        let mut inner = self.inner.lock();
        inner.published = inner.published.max(batch);
        self.stirred.notify_all();
    }

    pub fn forget_removed(&self) {
        self.inner.lock().values.forget_clean_sagas();
    }

    /// A commit failed, or the host begins: everything in memory is void and begins anew from the journal.
    /// Answers who waited for what is void now.
    pub fn restart(
        &self,
        journaled: BatchNo,
        published: BatchNo,
        positions: &BTreeMap<Partition, Position>,
        anchor: Option<Partition>,
    ) -> u64 {
        let mut inner = self.inner.lock();
        inner.values.clear(journaled);
        inner.positions.reset(positions, anchor);
        let open = std::mem::take(&mut inner.open);
        inner.number = BatchNo(journaled.0 + 1);
        inner.published = published;
        inner.life += 1;
        inner.failed = None;
        inner.reserved.clear();
        inner.moved_since = None;
        inner.urged = false;
        self.roomy.notify_all();
        self.stirred.notify_all();
        for (reply, _) in open.replies {
            let _ = reply.send(Err(Refusal::new(Why::Journal, "failed to write the journal; try again")));
        }
        inner.life
    }

    /// No chain is staged any more.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.roomy.notify_all();
        self.stirred.notify_all();
    }
}

/// Why a saga could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum SagaError {
    #[error("its record cannot be read: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Quarantined(String),
    #[error(transparent)]
    Journal(#[from] JournalError),
}
