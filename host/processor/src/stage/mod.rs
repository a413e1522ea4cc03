//! The open batch: where chains meet. Invariant: under one short mutex a chain is either found true against
//! everything staged before it and becomes part of the open batch as a whole, or changes nothing.

mod join;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use sagahost_journal::{
    BatchWrite, Journal, JournalError, LetterWrite, Name, PageBounds, SagaKey, SagaWrite, StoreEntry, Version,
    entry_bytes,
};
use sagahost_saga::{
    Saga,
    history::Entry,
    id::{Kind, Participant, SagaId, Time},
    input::{CallRef, Status, Wake},
};
use sagahost_transport::Verified;
use sagahost_wire::{BatchNo, Outgoing, Partition, Position, TopicId};

use self::join::{Checked, live};
use crate::{
    counter::CounterBounds,
    facts,
    overlay::{Overlay, Range, Read, Scan},
    planted::{self, Planted},
    positions::{Positions, Receipt},
    read_ahead::{Held, ReadAhead},
    reply::{Declined, Promise, Reply},
    serving::Serving,
    step::{Now, Signal, Steady, Wait},
    values::{Kept, SagaCell, Values},
};

/// The batch of an idle host waits so long for its positions to be verified; then they come with a later one.
const VERIFIED_WITHIN: Duration = Duration::from_millis(20);

/// So much under way takes longer than a batch takes to be journaled: whoever is in it waits for its turn anyhow.
const BACKLOG: usize = 200;

/// An event on its way out. `handled`: its id, when this app took it in with the same batch.
#[derive(Clone, Debug)]
pub struct Departure {
    pub outgoing: Outgoing,
    pub handled: Option<Arc<str>>,
}

/// The saga's part of a chain.
pub struct SagaChange {
    pub saga: Arc<Saga>,
    /// As the chain found it.
    pub found: Kept,
    pub bytes: Vec<u8>,
    pub status: Status,
    pub wake: Wake,
    pub spilled_events: Vec<([u8; 16], [u8; 16])>,
    pub spilled_history: Vec<Entry>,
    pub digests: BTreeSet<Arc<str>>,
}

/// Everything that one chain wants to make durable.
pub struct Staging {
    /// Which life of the stage the chain was run in: after a failed commit all earlier work is void.
    pub life: u64,
    pub chain: u64,
    /// What the chain ran with.
    pub serving: Arc<Serving>,
    /// Kinds of the events that it took in.
    pub taken: BTreeSet<Kind>,
    pub id: Option<SagaId>,
    pub change: Option<SagaChange>,
    pub overlay: Overlay,
    pub letters: Vec<LetterWrite>,
    pub departures: Vec<Departure>,
    pub receipt: Option<Receipt>,
    pub command_done: Option<i64>,
    /// Calls outside that begin with it.
    pub launches: Vec<CallRef>,
    /// The call outside that it is about: its end is known with it.
    pub settled: Option<CallRef>,
    /// None: nobody reads what happened.
    pub facts: Option<Box<facts::Chain>>,
    pub reply: Option<Promise>,
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

/// What became of a chain that was to be staged.
pub enum Staged {
    /// It is part of the open batch.
    Joined,
    /// The batch that it was built on failed: its input is delivered again.
    Void,
    /// Not now: the open batch is full, or another chain holds what this one writes.
    Full(Box<Staging>, Wait),
    /// Of what it read, memory knows some no longer: it is to be read again, and then staged.
    Reread(Box<Staging>, Forgotten),
    /// What it read is no longer so: throw it away and run it again.
    Stale(Vec<Conflict>),
}

/// What a chain read and memory no longer knows.
#[derive(Debug, Default)]
pub struct Forgotten {
    pub store: Vec<Name>,
    pub counters: Vec<Name>,
    /// Places among the scans of the chain.
    pub scans: Vec<usize>,
}

impl Forgotten {
    fn is_empty(&self) -> bool {
        self.store.is_empty() && self.counters.is_empty() && self.scans.is_empty()
    }
}

/// Bounds of a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchBounds {
    pub chains_max: usize,
    pub bytes_max: usize,
    /// For others that are under way.
    pub wait: Duration,
    /// While the batch before it is on its way out, or so much is under way that more of it is worth a longer wait.
    pub wait_max: Duration,
    /// So far apart batches are sealed while more than one chain goes into each.
    pub interval: Duration,
    /// Position-only progress waits this long for something to ride along with.
    pub position_wait: Duration,
    pub unpublished_max: u64,
}

#[derive(Default)]
struct OpenBatch {
    sagas: HashMap<SagaId, SagaWrite>,
    order: Vec<SagaId>,
    store: BTreeMap<Name, Option<Arc<[u8]>>>,
    /// Of what was there before it.
    store_read: BTreeMap<Name, Option<Version>>,
    counters: BTreeMap<Name, CounterBounds>,
    letters: Vec<LetterWrite>,
    outbox: Vec<Outgoing>,
    commands_done: Vec<i64>,
    launches: Vec<(SagaId, CallRef)>,
    settled: Vec<(SagaId, CallRef)>,
    facts: Vec<facts::Chain>,
    replies: Vec<Promise>,
    /// From which its chains took records in.
    partitions: BTreeSet<Partition>,
    chains: usize,
    bytes: usize,
    opened: Option<Steady>,
    at: Time,
}

impl OpenBatch {
    /// A caller, or a call outside, waits for the journal and not for the brokers.
    fn is_awaited(&self) -> bool {
        !self.replies.is_empty() || !self.launches.is_empty()
    }
}

struct Inner {
    values: Values,
    positions: Positions,
    open: OpenBatch,
    number: BatchNo,
    published: BatchNo,
    life: u64,
    reserved: HashMap<Conflict, (u64, Steady)>,
    moved_since: Option<Steady>,
    /// When the batch before the open one was sealed, where it was of more than one chain.
    shared_at: Option<Steady>,
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
    /// Of batches that are sealed and not out.
    unpublished: VecDeque<(BatchNo, usize)>,
    /// Partitions that are read no further for now.
    relief: Option<Relief>,
}

/// The reader waits until one of these may be read again.
struct Relief {
    bounds: ReadAhead,
    full: Vec<Partition>,
    signal: Arc<Signal>,
}

impl Inner {
    /// Batches sealed and not published.
    fn on_their_way(&self) -> u64 {
        self.number.0 - 1 - self.published.0
    }

    fn held(&self) -> Held {
        let Held { events, bytes } = self.positions.held();
        let batches = self.unpublished.iter().map(|(_, bytes)| bytes).sum::<usize>() + self.open.bytes;
        Held { events, bytes: bytes + batches }
    }

    /// Raised where a partition may be read again.
    fn relieved(&mut self) -> Option<Arc<Signal>> {
        let Relief { bounds, full, .. } = self.relief.as_ref()?;
        let all = self.held();
        let relieved = full.iter().any(|partition| bounds.is_relieved(all, self.positions.held_of(partition)));
        self.relief.take_if(|_| relieved).map(|relief| relief.signal)
    }
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
pub enum Due {
    Commit(Box<Sealed>),
    /// The host could not do its job somewhere: begin anew from the journal.
    Restart(String),
    Move(Move),
    /// Nothing before this time, if nothing stirs.
    Nothing(Option<Steady>),
}

pub struct Stage {
    inner: Mutex<Inner>,
    /// Something was staged, published, or asks for attention.
    pub stirred: Arc<Signal>,
    /// The open batch has room, or a reservation ended.
    pub roomy: Arc<Signal>,
    /// A batch was journaled, or everything begins anew: what is due may be something else.
    pub settled: Arc<Signal>,
    /// Less is under way: nothing is with the workers any more, a batch was journaled or is out.
    pub progress: Arc<Signal>,
    journal: Arc<dyn Journal>,
    bounds: BatchBounds,
}

/// A batch that is sealed: nothing joins it any more.
pub struct Sealed {
    pub life: u64,
    pub write: BatchWrite,
    pub replies: Vec<Promise>,
    /// Calls outside that may leave once it is journaled, and those whose end is.
    pub launches: Vec<(SagaId, CallRef)>,
    pub settled: Vec<(SagaId, CallRef)>,
    pub facts: Vec<facts::Chain>,
    pub chains: usize,
}

impl Stage {
    pub fn new(journal: Arc<dyn Journal>, bounds: BatchBounds, cache_bytes_max: usize) -> Self {
        let identity = journal.identity();
        let inner = Inner {
            values: Values::new(cache_bytes_max, identity.stream, identity.last_batch),
            positions: Positions::default(),
            open: OpenBatch::default(),
            number: BatchNo(identity.last_batch.0 + 1),
            published: identity.confirmed,
            life: 0,
            reserved: HashMap::new(),
            moved_since: None,
            shared_at: None,
            closed: false,
            busy: 0,
            urged: false,
            handled_prefix: format!("{}/{}", identity.journal, identity.incarnation),
            failed: None,
            quarantined: HashMap::new(),
            to_move: None,
            unpublished: VecDeque::new(),
            relief: None,
        };
        Self {
            inner: Mutex::new(inner),
            stirred: Arc::default(),
            roomy: Arc::default(),
            settled: Arc::default(),
            progress: Arc::default(),
            journal,
            bounds,
        }
    }

    // ---- reads, lowest layer of every overlay

    /// From memory, or else from the journal, outside the mutex. What memory dropped meanwhile may be newer than what was
    /// read: then it is read again.
    fn known_or_read<T, R, E>(
        &self,
        drops: impl Fn(&Values) -> u64,
        known: impl Fn(&mut Inner) -> Result<Option<T>, E>,
        read: impl Fn() -> Result<R, E>,
        learn: impl Fn(&mut Values, R) -> T,
    ) -> Result<T, E> {
        loop {
            let before = {
                let mut inner = self.inner.lock();
                if let Some(value) = known(&mut inner)? {
                    return Ok(value);
                }
                drops(&inner.values)
            };
            let value = read()?;
            let mut inner = self.inner.lock();
            if drops(&inner.values) == before {
                return Ok(learn(&mut inner.values, value));
            }
        }
    }

    pub fn saga(&self, id: &SagaId) -> Result<SagaCell, SagaError> {
        let known = |inner: &mut Inner| match inner.quarantined.get(id) {
            Some(why) => Err(SagaError::Quarantined(why.clone())),
            None => Ok(inner.values.saga(id)),
        };
        let learn = |values: &mut Values, cell| values.learn_saga(id, cell);
        self.known_or_read(Values::saga_drops, known, || self.read_saga(id), learn)
    }

    fn read_saga(&self, id: &SagaId) -> Result<SagaCell, SagaError> {
        let Some(row) = self.journal.saga(id)? else { return Ok(SagaCell::default()) };
        let saga = Saga::decode(&row.bytes).map_err(|error| SagaError::Unreadable(error.to_string()))?;
        Ok(SagaCell {
            saga: Some(Arc::new(saga)),
            bytes: row.bytes.len(),
            kept: Kept { key: Some(row.key), ..Kept::default() },
        })
    }

    pub fn store(&self, name: &Name) -> Result<Read, JournalError> {
        let seen = |values: &Values, seen| Read { seen, drops: values.drops(), changed: false };
        let read = || self.journal.store_get(&name.0, &name.1);
        let known = |inner: &mut Inner| Ok(inner.values.store(name).map(|row| seen(&inner.values, row)));
        self.known_or_read(Values::drops, known, read, |values, row| {
            let row = values.learn_store(name, row);
            seen(values, row)
        })
    }

    /// Does the journal hold all that a chain of that life read of the saga and of the store? (False: perhaps.)
    pub fn is_journaled(&self, life: u64, saga: &SagaId, overlay: &Overlay) -> bool {
        let inner = self.inner.lock();
        inner.life == life
            && inner.values.is_journaled(saga, overlay.reads.keys())
            && overlay.scans.iter().all(|scan| inner.values.is_range_journaled(&scan.participant, &scan.prefix))
    }

    #[cfg(test)]
    pub fn remembers(&self, name: &Name) -> bool {
        self.inner.lock().values.store(name).is_some()
    }

    pub fn counter(&self, name: &Name) -> Result<Option<i64>, JournalError> {
        let read = || self.journal.counter(&name.0, &name.1);
        self.known_or_read(
            Values::drops,
            |inner| Ok(inner.values.counter(name)),
            read,
            |values, value| values.learn_counter(name, value),
        )
    }

    /// A page of keys as they are for everybody; `bounds` have room for one at least. It is cut before what does not fit,
    /// and empty at the end alone.
    pub fn scan(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
    ) -> Result<Scan, JournalError> {
        let page = |range: &Range, values: &Values, until: Option<&str>| {
            let all = live(values, participant, prefix, (after, until), range);
            let page = bounds.fill(all.iter().map(|(key, value)| (*key, *value)));
            (page.is_full() || until.is_none()).then_some(page)
        };
        let (page, mut range, until) = self.read_range(participant, prefix, after, bounds, page)?;
        let full = page.is_full();
        let found = page.into_entries();
        let until = if full { found.last().map(|(key, _)| key.clone()) } else { until };
        // What the page has no room for is read with the next one.
        if let Some(until) = &until {
            range.rows.retain(|(key, _)| key <= until);
        }
        let (participant, prefix, after) = (participant.clone(), prefix.to_owned(), after.map(str::to_owned));
        Ok(Scan { participant, prefix, after, until, found, range })
    }

    /// Reads on in the journal, page by page, until `enough` has something to say of what was read so far: of the rows that
    /// memory knows nothing of, and the key up to which they go (None: to the end). Rows that memory knows better must not
    /// shorten a page to nothing.
    fn read_range<T>(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        bounds: PageBounds,
        enough: impl Fn(&Range, &Values, Option<&str>) -> Option<T>,
    ) -> Result<(T, Range, Option<String>), JournalError> {
        'anew: loop {
            let (drops, known) = {
                let inner = self.inner.lock();
                let known = inner.values.store_range(participant, prefix, after);
                (inner.values.drops(), known.filter(|(_, value)| value.is_none()).count())
            };
            let asked = PageBounds { entries: bounds.entries.saturating_add(known), ..bounds };
            let (mut range, mut until) = (Range { rows: Vec::new(), drops }, after.map(str::to_owned));
            loop {
                let page = self.journal.store_scan(participant, prefix, until.as_deref(), asked)?;
                let inner = self.inner.lock();
                if inner.values.drops() != drops {
                    continue 'anew;
                }
                until = page.rows.last().map(|(key, _)| key.clone()).filter(|_| !page.complete);
                let unknown = |(key, _): &StoreEntry| !inner.values.knows_store(participant, key);
                range.rows.extend(page.rows.into_iter().filter(unknown));
                if let Some(answer) = enough(&range, &inner.values, until.as_deref()) {
                    return Ok((answer, range, until));
                }
            }
        }
    }

    /// The range of a page once more, as the journal has it now.
    fn read_range_again(&self, scan: &Scan) -> Result<Range, JournalError> {
        let Scan { participant, prefix, after, until, found, .. } = scan;
        let bytes = found.iter().map(|(key, value)| entry_bytes(key, value)).sum();
        let bounds = PageBounds { entries: found.len() + 1, bytes };
        let beyond = |read: Option<&str>| read.is_none_or(|read| until.as_deref().is_some_and(|until| read >= until));
        let enough = |_: &Range, _: &Values, read: Option<&str>| beyond(read).then_some(());
        let ((), mut range, _) = self.read_range(participant, prefix, after.as_deref(), bounds, enough)?;
        if let Some(until) = until {
            range.rows.retain(|(key, _)| key <= until);
        }
        Ok(range)
    }

    /// Once more from memory or the journal what a chain is to be compared with.
    pub fn read_again(&self, overlay: &mut Overlay, forgotten: &Forgotten) -> Result<(), JournalError> {
        for name in &forgotten.store {
            let now = self.store(name)?;
            if let Some(read) = overlay.reads.get_mut(name) {
                let same = now.seen.as_ref().map(|row| &row.value) == read.seen.as_ref().map(|row| &row.value);
                *read = Read { changed: read.changed || !same, ..now };
            }
        }
        for name in &forgotten.counters {
            self.counter(name)?;
        }
        for at in &forgotten.scans {
            overlay.scans[*at].range = self.read_range_again(&overlay.scans[*at])?;
        }
        Ok(())
    }

    // ---- the source

    /// A record of so many bytes was read. False: it lies below the position.
    pub fn delivered(&self, receipt: &Receipt, bytes: usize) -> bool {
        self.inner.lock().positions.delivered(receipt, bytes)
    }

    /// The record needs no work: known as handled.
    pub fn skipped(&self, receipt: &Receipt, now: Now) {
        let mut inner = self.inner.lock();
        inner.positions.accounted(receipt);
        let relieved = inner.relieved();
        self.moved(inner, now);
        relieved.inspect(|signal| signal.raise());
    }

    /// The source reads from the positions of the last restart on.
    pub fn source_follows(&self) {
        self.inner.lock().positions.source_follows();
    }

    /// The end of a call changed nothing: with the next batch it is known that nothing of it is under way any more.
    pub fn settle(&self, saga: SagaId, call: CallRef) {
        self.inner.lock().open.settled.push((saga, call));
    }

    pub fn passed(&self, partition: &Partition, offset: i64, now: Now) {
        let mut inner = self.inner.lock();
        inner.positions.passed(partition, offset);
        self.moved(inner, now);
    }

    pub fn begin(&self, partition: &Partition, position: Position) {
        self.inner.lock().positions.begin(partition, position);
    }

    pub fn unverified(&self) -> bool {
        self.inner.lock().positions.unverified()
    }

    pub fn verified(&self, all: &[Verified], now: Now) {
        let mut inner = self.inner.lock();
        all.iter().for_each(|of| inner.positions.verified(of));
        self.moved(inner, now);
        // A batch may have waited for it.
        self.stirred.raise();
    }

    fn moved(&self, mut inner: MutexGuard<'_, Inner>, now: Now) {
        if inner.moved_since.is_none() && inner.positions.moved() {
            inner.moved_since = Some(now.steady);
            drop(inner);
            self.stirred.raise();
        }
    }

    /// Records with workers or waiting for one, and batches that are not out.
    pub fn held(&self) -> Held {
        self.inner.lock().held()
    }

    /// Of these partitions, those that are full. `full`: those that were; where some still are, the signal moves once that
    /// has changed.
    pub fn full(
        &self,
        partitions: &[Partition],
        full: &BTreeSet<Partition>,
        bounds: &ReadAhead,
        signal: &Arc<Signal>,
    ) -> BTreeSet<Partition> {
        let mut inner = self.inner.lock();
        let all = inner.held();
        let is_full = |partition: &&Partition| {
            let of = inner.positions.held_of(partition);
            if full.contains(*partition) { !bounds.is_relieved(all, of) } else { bounds.is_full(all, of) }
        };
        let now: BTreeSet<Partition> = partitions.iter().filter(is_full).cloned().collect();
        let relief = Relief { bounds: *bounds, full: now.iter().cloned().collect(), signal: signal.clone() };
        inner.relief = (!now.is_empty()).then_some(relief);
        now
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
        let idle = inner.busy == 0;
        drop(inner);
        if idle {
            self.stirred.raise();
            self.progress.raise_all();
        }
    }

    /// From the third run on a chain holds what it conflicted on, until it is staged or `until` passes. Some: another
    /// chain holds something of it.
    pub fn reserve(&self, chain: u64, conflicts: &[Conflict], until: Steady, now: Now) -> Option<Wait> {
        let seen = self.roomy.seen();
        let mut inner = self.inner.lock();
        inner.reserved.retain(|_, (_, until)| *until > now.steady);
        let others = conflicts.iter().filter_map(|conflict| inner.reserved.get(conflict));
        let taken = others.filter(|(owner, _)| *owner != chain).map(|(_, until)| *until).min();
        if let Some(free) = taken.filter(|_| now.steady < until) {
            return Some(Wait { signal: self.roomy.clone(), seen, until: Some(free.min(until)) });
        }
        for conflict in conflicts {
            inner.reserved.insert(conflict.clone(), (chain, until));
        }
        None
    }

    /// Somebody could not do the host's job: all work of this life is void.
    pub fn fail(&self, life: u64, why: String) {
        let mut inner = self.inner.lock();
        if inner.life == life {
            inner.failed.get_or_insert(why);
            drop(inner);
            self.stirred.raise();
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

    /// The committer moves a position between two batches: one that is on its way must not move it back. What was read of
    /// the partition before is journaled first, for it does not come again.
    pub fn move_position(&self, to_move: Move) {
        self.inner.lock().to_move = Some(to_move);
        self.stirred.raise();
    }

    /// Checks everything that the chain read, and makes it part of the open batch.
    pub fn stage(&self, staging: Box<Staging>, now: Now) -> Staged {
        let seen = self.roomy.seen();
        // One that ends is kept as its record; it is freed behind the lock.
        let _saga = staging.change.as_ref().map(|change| change.saga.clone());
        let mut inner = self.inner.lock();
        if (inner.life != staging.life && !planted::on(Planted::StageOldLife)) || inner.closed {
            return Staged::Void;
        }
        inner.reserved.retain(|_, (_, until)| *until > now.steady);
        let wait = |until| Wait { signal: self.roomy.clone(), seen, until };
        if self.is_full(&inner.open) {
            return Staged::Full(staging, wait(None));
        }
        if let Some(free) = inner.reserved_by_other(&staging) {
            return Staged::Full(staging, wait(Some(free)));
        }
        match inner.check(&staging.overlay) {
            Checked::Holds => {}
            Checked::Stale(conflicts) => return Staged::Stale(conflicts),
            Checked::Forgotten(forgotten) => return Staged::Reread(staging, forgotten),
        }
        let reserved = inner.reserved.len();
        inner.join(*staging);
        inner.open.opened.get_or_insert(now.steady);
        let freed = inner.reserved.len() < reserved;
        let relieved = inner.relieved();
        // The committer sleeps until this batch is due. Each further chain would wake it for nothing.
        let sooner = inner.open.chains == 1 || self.is_full(&inner.open) || inner.urged || inner.to_move.is_some();
        drop(inner);
        if sooner {
            self.stirred.raise();
        }
        relieved.inspect(|signal| signal.raise());
        if freed {
            self.roomy.raise_all();
        }
        Staged::Joined
    }

    fn is_full(&self, open: &OpenBatch) -> bool {
        open.chains >= self.bounds.chains_max || open.bytes >= self.bounds.bytes_max
    }

    // ---- the committer

    /// What is due; a batch that is and may go is sealed.
    pub fn due(&self, now: Now) -> Due {
        let mut inner = self.inner.lock();
        if let Some(why) = inner.failed.take() {
            return Due::Restart(why);
        }
        let may_move = |Move { partition, .. }: &Move| {
            let handled = inner.positions.held_of(partition).events == 0 && !inner.open.partitions.contains(partition);
            handled || planted::on(Planted::MoveAtOnce)
        };
        if inner.to_move.as_ref().is_some_and(may_move)
            && let Some(to_move) = inner.to_move.take()
        {
            return Due::Move(to_move);
        }
        if inner.on_their_way() >= self.bounds.unpublished_max {
            return Due::Nothing(None);
        }
        match self.due_at(&inner, now.steady) {
            Some(due) if due <= now.steady => {
                let sealed = self.seal_now(&mut inner);
                inner.shared_at = (sealed.chains > 1).then_some(now.steady);
                drop(inner);
                if !planted::on(Planted::NoRoomSignal) {
                    self.roomy.raise_all();
                }
                Due::Commit(Box::new(sealed))
            }
            due => Due::Nothing(due),
        }
    }

    fn due_at(&self, inner: &Inner, now: Steady) -> Option<Steady> {
        if let Some(opened) = inner.open.opened {
            let holds_up = |to_move: &Move| inner.open.partitions.contains(&to_move.partition);
            if inner.urged || self.is_full(&inner.open) || inner.to_move.as_ref().is_some_and(holds_up) {
                return Some(now);
            }
            let due = opened.after(self.wait(inner));
            let apart = inner.shared_at.filter(|_| !inner.open.is_awaited()).map(|at| at.after(self.bounds.interval));
            return Some(apart.map_or(due, |apart| due.max(apart)));
        }
        inner.moved_since.map(|since| if inner.urged { now } else { since.after(self.bounds.position_wait) })
    }

    /// How long the open batch waits for more. A batch costs the journal and the brokers one transaction, whatever its size: where
    /// sealing it now would answer nobody sooner, it grows.
    fn wait(&self, inner: &Inner) -> Duration {
        let BatchBounds { wait, wait_max, .. } = self.bounds;
        if !inner.open.is_awaited() && (inner.on_their_way() > 0 || inner.busy >= BACKLOG) {
            return wait.max(wait_max);
        }
        if inner.busy > 0 {
            return wait;
        }
        // Without the positions in it they would need a batch of their own.
        if inner.positions.unverified() { VERIFIED_WITHIN.min(wait) } else { Duration::ZERO }
    }

    fn seal_now(&self, inner: &mut Inner) -> Sealed {
        let mut open = std::mem::take(&mut inner.open);
        let mut sagas = std::mem::take(&mut open.sagas);
        let write = BatchWrite {
            number: inner.number,
            at: open.at,
            sagas: open.order.iter().filter_map(|id| sagas.remove(id)).collect(),
            store: std::mem::take(&mut open.store),
            store_read: std::mem::take(&mut open.store_read),
            counters: std::mem::take(&mut open.counters)
                .into_iter()
                .map(|(name, bounds)| (name, bounds.write()))
                .collect(),
            letters: std::mem::take(&mut open.letters),
            positions: inner.positions.seal(),
            outbox: std::mem::take(&mut open.outbox),
            commands_done: std::mem::take(&mut open.commands_done),
            confirmed: if planted::on(Planted::ConfirmEarly) { inner.number } else { inner.published },
        };
        inner.unpublished.push_back((inner.number, open.bytes));
        inner.number = BatchNo(inner.number.0 + 1);
        inner.moved_since = None;
        inner.urged = false;
        let OpenBatch { replies, launches, settled, facts, chains, .. } = open;
        Sealed { life: inner.life, write, replies, launches, settled, facts, chains }
    }

    /// What waits for the broker: batches sealed and not published.
    pub fn unpublished(&self) -> u64 {
        self.inner.lock().on_their_way()
    }

    pub fn published_batch(&self) -> BatchNo {
        self.inner.lock().published
    }

    pub fn last_sealed(&self) -> BatchNo {
        BatchNo(self.inner.lock().number.0 - 1)
    }

    /// Progress without events is to be published anew: committed offsets without members expire.
    pub fn touch(&self, now: Now) {
        let mut inner = self.inner.lock();
        inner.positions.touch();
        inner.moved_since.get_or_insert(now.steady);
        drop(inner);
        self.stirred.raise();
    }

    /// Is there nothing left that a batch should carry?
    pub fn drained(&self) -> bool {
        let inner = self.inner.lock();
        inner.open.opened.is_none() && inner.busy == 0 && !inner.positions.moved()
    }

    pub fn urge(&self) {
        self.inner.lock().urged = true;
        self.stirred.raise();
    }

    /// Rows of sagas that got their key in a batch journaled meanwhile.
    pub fn fill_keys(&self, write: &mut BatchWrite) {
        let inner = self.inner.lock();
        for saga in write.sagas.iter_mut().filter(|saga| saga.key.is_none()) {
            saga.key = inner.values.saga_key(&saga.id);
        }
    }

    pub fn journaled(&self, batch: BatchNo, keys: &[(SagaId, SagaKey)]) {
        let mut inner = self.inner.lock();
        for (id, key) in keys {
            inner.values.key_known(id, *key);
        }
        let dropped = inner.values.journaled(batch);
        drop(inner);
        // Thousands of them are freed where nobody waits for the lock.
        drop(dropped);
        self.settled.raise_all();
        self.progress.raise_all();
    }

    pub fn published(&self, batch: BatchNo) {
        let mut inner = self.inner.lock();
        inner.published = inner.published.max(batch);
        inner.unpublished.retain(|(number, _)| *number > batch);
        let relieved = inner.relieved();
        drop(inner);
        self.stirred.raise();
        if !planted::on(Planted::NoProgressSignal) {
            self.progress.raise_all();
        }
        relieved.inspect(|signal| signal.raise());
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
    ) {
        let mut inner = self.inner.lock();
        if !planted::on(Planted::KeepMemory) {
            inner.values.clear(journaled);
        }
        inner.positions.reset(positions, anchor);
        let open = std::mem::take(&mut inner.open);
        inner.number = BatchNo(journaled.0 + 1);
        // The publisher may have got further meanwhile.
        inner.published = inner.published.max(published);
        let out = inner.published;
        inner.unpublished.retain(|(number, _)| *number > out && *number <= journaled);
        inner.life += 1;
        inner.failed = None;
        inner.reserved.clear();
        inner.moved_since = None;
        inner.urged = false;
        let to_move = inner.to_move.take();
        let relieved = inner.relieved();
        drop(inner);
        relieved.inspect(|signal| signal.raise());
        self.roomy.raise_all();
        self.stirred.raise();
        self.settled.raise_all();
        self.progress.raise_all();
        // A place was chosen by what was handled then.
        open.replies.into_iter().for_each(|promise| promise.decline(Declined::BeganAgain));
        to_move.iter().for_each(|to_move| to_move.reply.declined(Declined::BeganAgain));
    }

    /// No chain is staged any more.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.roomy.raise_all();
        self.stirred.raise();
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
