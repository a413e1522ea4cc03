//! What all requests share, and how one is taken in. Invariant: a request is posted to its saga like any other event, and is
//! answered behind the commit; whoever does not wait for that changes nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use parking_lot::Mutex;
use sagahost_journal::{Journal, JournalError, Name, requests};
use sagahost_net::Occurrences;
use sagahost_processor::{
    facts::Facts,
    inbox::Inbox,
    intake::Intake,
    mailbox::Item,
    reply::{Declined, Reply},
    request::{Admission, Asker, Asks, Request},
};
use sagahost_saga::{
    Saga,
    history::Entry,
    id::{SagaId, Time},
};
use sagahost_wire::clock::Clock;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::warn;

use crate::{
    body::{Bounds, Room},
    callers::{Caller, Callers},
    problem::Problem,
    settings::{HttpSettings, Sees},
    waiters::{Waiters, Watch},
};

/// A request waits at least so long for its batch, whatever it prefers: without it there is nothing to say.
const BATCH_WAIT: Duration = Duration::from_secs(10);
/// So many at a time: the threads that read are those that find addresses for calls to services, too.
const READS_MAX: usize = 8;
/// Who follow sagas (server-sent events).
const FOLLOWERS_MAX: usize = 1_000;

/// What it reaches of the host.
pub struct Reach {
    pub app: Arc<str>,
    pub inbox: Inbox,
    pub intake: Arc<Intake>,
    pub journal: Arc<dyn Journal>,
    pub clock: Arc<dyn Clock>,
    /// Events that may wait for a worker.
    pub queue_events_max: usize,
}

/// Where the host stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// What waits is answered as it stands; what comes is refused.
    Stopping,
    /// Nothing is journaled any more.
    Ended,
}

pub struct Ingress {
    pub(crate) settings: HttpSettings,
    pub(crate) callers: Callers,
    pub(crate) bodies: Bounds,
    pub(crate) waiters: Arc<Waiters>,
    pub(crate) reach: Reach,
    pub(crate) followers: Arc<Semaphore>,
    reads: Semaphore,
    stage: watch::Sender<Stage>,
    troubles: Troubles,
}

/// Of which a line is written now and then, however many come.
#[derive(Default)]
struct Troubles {
    not_taken_in: Occurrences,
    unreadable: Occurrences,
    quarantined: Occurrences,
}

/// One who waits for a saga.
pub(crate) struct Following<'a> {
    ingress: &'a Ingress,
    saga: &'a SagaId,
    watch: Watch,
    until: Instant,
    looks: Looks,
}

enum Looks {
    First,
    Next,
    /// There was the last one.
    Over,
}

impl Following<'_> {
    /// None: the time is over, or the host stops, and it has looked once more since.
    pub async fn next(&mut self) -> Result<Option<Option<Box<Saga>>>, Problem> {
        match self.looks {
            Looks::First => self.looks = Looks::Next,
            Looks::Next => tokio::select! {
                () = self.watch.changed() => {}
                () = tokio::time::sleep_until(self.until.into()) => self.looks = Looks::Over,
                () = self.ingress.stopping() => self.looks = Looks::Over,
            },
            Looks::Over => return Ok(None),
        }
        self.ingress.look(self.saga).await.map(Some)
    }
}

type Row = Arc<[u8]>;

impl Ingress {
    /// Before the first chain runs. `facts`: where it hears of changes.
    pub fn new(settings: HttpSettings, reach: Reach, facts: &Facts) -> Arc<Self> {
        let waiters = Arc::new(Waiters::default());
        facts.read_by(waiters.clone());
        Arc::new(Self {
            bodies: Bounds::new(&settings),
            callers: Callers::new(&settings),
            settings,
            waiters,
            reach,
            followers: Arc::new(Semaphore::new(FOLLOWERS_MAX)),
            reads: Semaphore::new(READS_MAX),
            stage: watch::Sender::new(Stage::Serving),
            troubles: Troubles::default(),
        })
    }

    /// Whoever waits is answered as it stands, whoever comes is refused.
    pub fn stop(&self) {
        self.stage.send_if_modified(|stage| std::mem::replace(stage, Stage::Stopping.max(*stage)) < Stage::Stopping);
    }

    /// Nothing is journaled any more.
    pub fn end(&self) {
        self.stage.send_replace(Stage::Ended);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stage.borrow() >= Stage::Stopping
    }

    async fn reached(&self, stage: Stage) {
        let mut stages = self.stage.subscribe();
        // It does not close before this is gone.
        let _ = stages.wait_for(|now| *now >= stage).await;
    }

    pub(crate) async fn stopping(&self) {
        self.reached(Stage::Stopping).await;
    }

    pub(crate) fn now(&self) -> Time {
        self.reach.clock.now()
    }

    fn has_room(&self) -> Result<(), Problem> {
        if self.is_stopping() {
            return Err(Problem::stopping());
        }
        if let Some(why) = self.reach.intake.journal_is_away() {
            self.say(&self.troubles.not_taken_in, "requests are refused: the journal takes nothing", &why);
            return Err(Problem::unavailable("journal-away", "the journal takes nothing at the moment"));
        }
        if self.reach.inbox.mailboxes.queued() >= self.reach.queue_events_max {
            return Err(Problem::unavailable("full", "too many events wait (pipeline.queue-events-max)"));
        }
        Ok(())
    }

    /// `room`: of its body, which waits for its batch whoever goes away.
    ///
    /// # Errors
    /// It is not taken in, as far as anybody knows.
    pub(crate) async fn admit(
        &self,
        asks: Asks,
        caller: &Caller,
        room: Room,
        until: Instant,
    ) -> Result<Admission, Problem> {
        self.has_room()?;
        let saga = asks.saga().clone();
        let request = Request { asks, by: Asker { name: caller.name.clone(), sees_all: caller.sees == Sees::All } };
        let (sender, told) = oneshot::channel();
        let kept = Mutex::new(Some((sender, room)));
        let tell = move |answer| {
            if let Some((sender, _)) = kept.lock().take() {
                // Whoever asked may have gone.
                let _ = sender.send(answer);
            }
        };
        let until = until.max(Instant::now() + BATCH_WAIT);
        self.reach.inbox.post(&saga, Item::Requested { request, reply: Reply::new(tell) });
        tokio::select! {
            biased;
            answer = told => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(declined)) => Err(self.declined(&saga, &declined)),
                // Everything began again from the journal, and this was not in it.
                Err(_) => Err(self.declined(&saga, &Declined::BeganAgain)),
            },
            () = tokio::time::sleep_until(until.into()) => {
                Err(Problem::unavailable("not-journaled", "it is not journaled yet; the same request attaches to it, or begins"))
            }
            () = self.reached(Stage::Ended) => Err(Problem::stopping()),
        }
    }

    fn declined(&self, saga: &SagaId, declined: &Declined) -> Problem {
        match declined {
            Declined::Quarantined { why, .. } => self.quarantined(saga, why),
            Declined::Undecided { why } => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "undecided", why),
            Declined::BeganAgain
            | Declined::Conflict { .. }
            | Declined::NotWritten { .. }
            | Declined::Unknown { .. } => {
                self.say(&self.troubles.not_taken_in, "requests are not taken in", declined);
                Problem::unavailable("not-journaled", "its batch could not be journaled: send the same request again")
            }
        }
    }

    pub(crate) fn quarantined(&self, saga: &SagaId, why: &str) -> Problem {
        let line = format!("of saga {saga}: {why}");
        self.say(&self.troubles.quarantined, "requests are about sagas in quarantine", &line);
        let detail = "the record of this saga cannot be used: an operator has to look at it";
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "quarantined", detail)
            .of(saga, crate::problem::Outcome::NeedsOperator)
    }

    fn say(&self, occurrences: &Occurrences, what: &str, why: &dyn std::fmt::Display) {
        if let Some(count) = occurrences.count() {
            warn!(count, last = %why, "{what}");
        }
    }

    /// The saga as it is, and as it is whenever it has changed, until the time is over or the host stops.
    pub(crate) fn follow<'a>(&'a self, saga: &'a SagaId, until: Instant) -> Following<'a> {
        Following { ingress: self, saga, watch: self.waiters.watch(saga), until, looks: Looks::First }
    }

    /// As the journal has it. None: it is not there.
    ///
    /// # Errors
    /// Its record cannot be used, or the journal cannot be read.
    pub(crate) async fn look(&self, saga: &SagaId) -> Result<Option<Box<Saga>>, Problem> {
        let id = saga.clone();
        let read = self.read(move |journal| {
            if let Some(why) = journal.quarantined(&id)? {
                return Ok(Err(why));
            }
            let Some(row) = journal.saga(&id)? else { return Ok(Ok(None)) };
            Ok(Saga::decode(&row.bytes).map(|saga| Some(Box::new(saga))).map_err(|error| error.to_string()))
        });
        read.await?.map_err(|why| self.quarantined(saga, &why))
    }

    /// At most `limit` entries of its timeline, from that place on.
    pub(crate) async fn history(&self, saga: &Saga, from: u64, limit: usize) -> Result<Vec<Entry>, Problem> {
        let spilled = saga.spilled_history();
        let mut entries = Vec::new();
        if from < spilled {
            // What spills between the two reads is in both.
            let rest = usize::try_from(spilled - from).unwrap_or(usize::MAX).min(limit);
            let id = saga.id().clone();
            let read = move |journal: &dyn Journal| match journal.saga(&id)? {
                Some(row) => journal.spilled_history(row.key, from, rest),
                None => Ok(Vec::new()),
            };
            entries = self.read(read).await?;
        }
        let skipped = usize::try_from(from.saturating_sub(spilled)).unwrap_or(usize::MAX);
        let room = limit.saturating_sub(entries.len());
        entries.extend(saga.history().iter().skip(skipped).take(room).cloned());
        Ok(entries)
    }

    /// Rows that go with the saga. None: it is gone, and they with it.
    pub(crate) async fn rows_of(&self, saga: &Saga, names: Vec<Name>) -> Result<Option<Vec<Option<Row>>>, Problem> {
        let (id, created) = (saga.id().clone(), saga.created());
        self.read(move |journal| {
            let of = |(owner, key): &Name| Ok(journal.store_get(owner, key)?.map(|row| row.value));
            let rows = names.iter().map(of).collect::<Result<Vec<_>, JournalError>>()?;
            // Another one may have its id by now.
            let saga = journal.saga(&id)?.and_then(|row| Saga::decode(&row.bytes).ok());
            Ok(saga.filter(|saga| saga.created() == created).map(|_| rows))
        })
        .await
    }

    /// May they know of this saga?
    pub(crate) async fn sees(&self, caller: &Caller, saga: &SagaId) -> Result<bool, Problem> {
        if caller.sees == Sees::All {
            return Ok(true);
        }
        let (owner, key) = requests::of_principal(saga, &caller.name);
        self.read(move |journal| Ok(journal.store_get(&owner, &key)?.is_some())).await
    }

    /// The journal is read beside the threads that answer.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, Problem> {
        let journal = self.reach.journal.clone();
        let _turn = self.reads.acquire().await;
        let away = |error: &dyn std::fmt::Display| {
            self.say(&self.troubles.unreadable, "the journal cannot be read for requests", error);
            Problem::unavailable("journal-away", "the journal cannot be read at the moment")
        };
        match tokio::task::spawn_blocking(move || read(&*journal)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(away(&error)),
            Err(error) => Err(away(&error)),
        }
    }
}
