//! What all requests share, and how one is taken in. Invariant: a request is posted to its saga like any other event, and is
//! answered behind the commit; whoever does not wait for that changes nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;
use parking_lot::Mutex;
use sagahost_journal::{Journal, JournalError, PageBounds, requests};
use sagahost_processor::{
    facts::Facts,
    inbox::Inbox,
    intake::Intake,
    mailbox::Item,
    reply::{Declined, Reply},
    request::{Admission, Request},
};
use sagahost_saga::{
    Saga,
    history::Entry,
    id::{SagaId, Time},
    input::{Answer, Command},
};
use sagahost_wire::clock::Clock;
use tokio::sync::{Semaphore, oneshot, watch};
use tracing::warn;

use crate::{
    body::Bounds,
    callers::{Caller, Callers},
    problem::Problem,
    settings::{HttpSettings, Sees},
    waiters::{Waiters, Watch},
};

/// A request waits at least so long for its batch, whatever it prefers: without it there is nothing to say.
const BATCH_WAIT: Duration = Duration::from_secs(10);

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
    stage: watch::Sender<Stage>,
}

/// One who waits for a saga.
pub(crate) struct Following<'a> {
    ingress: &'a Ingress,
    saga: &'a SagaId,
    watch: Watch,
    until: Instant,
    looked: bool,
}

impl Following<'_> {
    /// None: the time is over, or the host stops.
    pub async fn next(&mut self) -> Result<Option<Look>, Problem> {
        if std::mem::replace(&mut self.looked, true) {
            tokio::select! {
                () = self.watch.changed() => {}
                () = tokio::time::sleep_until(self.until.into()) => return Ok(None),
                () = self.ingress.stopping() => return Ok(None),
            }
        }
        self.ingress.look(self.saga).await.map(Some)
    }
}

/// A saga as the journal has it.
pub enum Look {
    Absent,
    /// Its record cannot be used.
    Quarantined(String),
    Here(Box<Saga>),
}

impl Ingress {
    /// `facts`: where it hears of changes.
    pub fn new(settings: HttpSettings, reach: Reach, facts: &Facts) -> Arc<Self> {
        let waiters = Arc::new(Waiters::default());
        facts.read_by(waiters.clone());
        let bodies = Bounds {
            bytes_max: settings.body_bytes_max,
            timeout: settings.body_timeout,
            room: Arc::new(Semaphore::new(settings.bodies_bytes_max)),
        };
        let callers = Callers::new(&settings);
        Arc::new(Self { settings, callers, bodies, waiters, reach, stage: watch::Sender::new(Stage::Serving) })
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

    /// # Errors
    /// It is not taken in, as far as anybody knows.
    pub(crate) async fn admit(&self, request: Request, until: Instant) -> Result<Admission, Problem> {
        self.has_room()?;
        let saga = request.event.saga.clone();
        self.post(&saga, until, |reply| Item::Requested { request, reply }).await
    }

    /// # Errors
    /// It is not carried out, as far as anybody knows.
    pub(crate) async fn command(&self, saga: &SagaId, command: Command, until: Instant) -> Result<Answer, Problem> {
        self.has_room()?;
        let item = |reply| Item::Operator { command, queued: None, reply: Some(reply), receipt: None };
        self.post(saga, until, item).await
    }

    fn has_room(&self) -> Result<(), Problem> {
        if self.is_stopping() {
            return Err(Problem::unavailable("stopping", "the host stops"));
        }
        if let Some(why) = self.reach.intake.journal_is_away() {
            warn!(why, "a request is refused: the journal takes nothing");
            return Err(Problem::unavailable("journal-away", "the journal takes nothing at the moment"));
        }
        if self.reach.inbox.mailboxes.queued() >= self.reach.queue_events_max {
            return Err(Problem::unavailable("full", "too many events wait (pipeline.queue-events-max)"));
        }
        Ok(())
    }

    async fn post<T: Send + 'static>(
        &self,
        saga: &SagaId,
        until: Instant,
        item: impl FnOnce(Reply<T>) -> Item,
    ) -> Result<T, Problem> {
        let (sender, told) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let tell = move |answer| {
            if let Some(sender) = sender.lock().take() {
                // Whoever asked may have gone.
                let _ = sender.send(answer);
            }
        };
        let until = until.max(Instant::now() + BATCH_WAIT);
        self.reach.inbox.post(saga, item(Reply::new(tell)));
        tokio::select! {
            biased;
            answer = told => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(declined)) => Err(refused(saga, &declined)),
                // Everything began again from the journal, and this was not in it.
                Err(_) => Err(refused(saga, &Declined::BeganAgain)),
            },
            () = tokio::time::sleep_until(until.into()) => {
                Err(Problem::unavailable("not-journaled", "it is not journaled yet; the same request attaches to it, or begins"))
            }
            () = self.reached(Stage::Ended) => Err(Problem::unavailable("stopping", "the host stops")),
        }
    }

    /// The saga as it is, and as it is whenever it has changed, until the time is over or the host stops.
    pub(crate) fn follow<'a>(&'a self, saga: &'a SagaId, until: Instant) -> Following<'a> {
        Following { ingress: self, saga, watch: self.waiters.watch(saga), until, looked: false }
    }

    pub(crate) async fn look(&self, saga: &SagaId) -> Result<Look, Problem> {
        let id = saga.clone();
        self.read(move |journal| {
            if let Some(why) = journal.quarantined(&id)? {
                return Ok(Look::Quarantined(why));
            }
            let Some(row) = journal.saga(&id)? else { return Ok(Look::Absent) };
            Ok(match Saga::decode(&row.bytes) {
                Ok(saga) => Look::Here(Box::new(saga)),
                Err(error) => Look::Quarantined(error.to_string()),
            })
        })
        .await
    }

    /// The whole timeline.
    pub(crate) async fn history(&self, saga: &Saga) -> Result<Vec<Entry>, Problem> {
        let mut spilled = Vec::new();
        if saga.spilled_history() > 0 {
            let id = saga.id().clone();
            let read = move |journal: &dyn Journal| match journal.saga(&id)? {
                Some(row) => journal.spilled_history(row.key),
                None => Ok(Vec::new()),
            };
            spilled = self.read(read).await?;
        }
        // What spilled between the two reads is in both.
        spilled.truncate(usize::try_from(saga.spilled_history()).unwrap_or(usize::MAX));
        spilled.extend_from_slice(saga.history());
        Ok(spilled)
    }

    pub(crate) async fn store(&self, (owner, key): sagahost_journal::Name) -> Result<Option<Arc<[u8]>>, Problem> {
        self.read(move |journal| Ok(journal.store_get(&owner, &key)?.map(|row| row.value))).await
    }

    /// May they know of this saga?
    pub(crate) async fn sees(&self, caller: &Caller, saga: &SagaId) -> Result<bool, Problem> {
        const PAGE: PageBounds = PageBounds { entries: 100, bytes: 1 << 20 };
        if caller.sees == Sees::All {
            return Ok(true);
        }
        let (name, prefix) = (caller.name.clone(), requests::saga_prefix(saga));
        self.read(move |journal| {
            let mut after: Option<String> = None;
            loop {
                let page = journal.store_scan(&requests::owner(), &prefix, after.as_deref(), PAGE)?;
                if page.rows.iter().any(|(_, principal)| **principal == *name.as_bytes()) {
                    return Ok(true);
                }
                after = page.rows.last().map(|(key, _)| key.clone());
                if page.complete || after.is_none() {
                    return Ok(false);
                }
            }
        })
        .await
    }

    /// The journal is read beside the threads that answer.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Journal) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, Problem> {
        let journal = self.reach.journal.clone();
        let away = |error: &dyn std::fmt::Display| {
            warn!(%error, "failed to read the journal for a request");
            Problem::unavailable("journal-away", "the journal cannot be read at the moment")
        };
        match tokio::task::spawn_blocking(move || read(&*journal)).await {
            Ok(Ok(found)) => Ok(found),
            Ok(Err(error)) => Err(away(&error)),
            Err(error) => Err(away(&error)),
        }
    }
}

fn refused(saga: &SagaId, declined: &Declined) -> Problem {
    match declined {
        Declined::Quarantined { why, .. } => quarantined(saga, why),
        Declined::Undecided { why } => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "undecided", why),
        Declined::BeganAgain | Declined::Conflict { .. } | Declined::NotWritten { .. } | Declined::Unknown { .. } => {
            warn!(%saga, why = %declined, "a request is not taken in");
            Problem::unavailable("not-journaled", "its batch could not be journaled: send the same request again")
        }
    }
}

pub(crate) fn quarantined(saga: &SagaId, why: &str) -> Problem {
    warn!(%saga, why, "a request is about a saga in quarantine");
    let detail = "the record of this saga cannot be used: an operator has to look at it";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "quarantined", detail)
        .of(saga, crate::problem::Outcome::NeedsOperator)
}
