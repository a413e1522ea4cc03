//! What gives workers something to do. Invariant: what is posted counts as under way until a worker has left it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use sagahost_codec::Decoded;
use sagahost_journal::{Journal, JournalError, LetterFilter, SagaKey};
use sagahost_saga::{Saga, event::Event, id::SagaId};
use tracing::error;

use crate::{
    letters,
    mailbox::{Item, Loose, Mailboxes},
    outside::Calls,
    request::Asks,
    schedule::Class,
    serving::Serving,
    stage::Stage,
};

/// Sagas that are looked at, at a time.
const PAGE: usize = 1_000;

#[derive(Clone)]
pub struct Inbox {
    pub stage: Arc<Stage>,
    pub serving: Arc<ArcSwap<Serving>>,
    pub mailboxes: Arc<Mailboxes>,
    pub calls: Arc<Calls>,
}

impl Inbox {
    /// Puts something into a saga's mailbox.
    pub fn post(&self, saga: &SagaId, item: Item) {
        self.stage.busy(1);
        let class = self.class(&item);
        if !self.mailboxes.put(saga, class, item) {
            self.stage.busy(-1);
        }
    }

    /// What is known of it before its saga is asked.
    fn class(&self, item: &Item) -> Class {
        match item {
            Item::Delivery { event, .. } | Item::Redelivery { event, .. } => self.class_of(event),
            Item::Requested { request, .. } => match &request.asks {
                Asks::Begin(event) => self.class_of(event),
                Asks::Step { of, .. } => Class { participant: Some(of.clone()), again: false },
                Asks::Cancel { .. } => Class::default(),
            },
            Item::Due { .. } => Class { participant: None, again: true },
            Item::TopologyChanged | Item::Launch { .. } | Item::Answered { .. } | Item::Operator { .. } => {
                Class::default()
            }
        }
    }

    fn class_of(&self, event: &Event) -> Class {
        let serving = self.serving.load();
        let first = serving.topology.subscribers(&event.kind).next();
        Class { participant: first.map(|(member, _)| member.name.clone()), again: false }
    }

    pub fn post_loose(&self, loose: Loose) {
        self.stage.busy(1);
        self.mailboxes.put_loose(Box::new(loose));
    }

    /// Everything that waits is void.
    pub fn empty(&self) -> usize {
        let void = self.mailboxes.empty();
        self.stage.busy(-isize::try_from(void).unwrap_or(isize::MAX));
        void
    }

    /// What waits in the journal for a host to run: commands given while none did, events kept aside, calls outside whose
    /// end is not journaled. `first`: the host begins. (What is parked is woken page by page: `parked.rs`.)
    pub fn resume(&self, journal: &dyn Journal, first: bool) -> Result<(), JournalError> {
        for queued in journal.queued_commands()? {
            let item = Item::Operator { command: queued.command, queued: Some(queued.id), reply: None, receipt: None };
            self.post(&queued.saga, item);
        }
        self.take_in_again(None, journal)?;
        self.calls.resume_known().into_iter().for_each(|(saga, item)| self.post(&saga, item));
        self.take_up_calls(journal, first)
    }

    fn take_up_calls(&self, journal: &dyn Journal, first: bool) -> Result<(), JournalError> {
        let mut after = SagaKey(0);
        loop {
            let doubtful = journal.in_doubt(after, PAGE)?;
            for (key, id) in &doubtful {
                after = *key;
                self.take_up_calls_of(id, journal, first)?;
            }
            if doubtful.len() < PAGE {
                return Ok(());
            }
        }
    }

    /// `first`: of a call that this host knows nothing of, it is not known whether it left.
    pub fn take_up_calls_of(&self, id: &SagaId, journal: &dyn Journal, first: bool) -> Result<(), JournalError> {
        // Not as the stage has it: a call that began in a chain which is not journaled must not leave yet.
        let Some(row) = journal.saga(id)? else { return Ok(()) };
        // Whoever needs a row that cannot be read puts the saga into quarantine; its calls are taken up when it is released.
        let Ok(saga) = Saga::decode(&row.bytes) else { return Ok(()) };
        let calls = saga.in_doubt().into_iter();
        for item in calls.filter_map(|call| self.calls.resume(id, call, first)) {
            self.post(id, item);
        }
        Ok(())
    }

    /// Everything that was kept aside for a saga in quarantine (None: for all that were released) is taken in again, in
    /// its order.
    pub fn take_in_again(&self, saga: Option<&SagaId>, journal: &dyn Journal) -> Result<usize, JournalError> {
        let serving = self.serving.load_full();
        let filter = LetterFilter {
            saga: saga.cloned(),
            code: Some(letters::QUARANTINED.to_owned()),
            open_only: true,
            limit: usize::MAX,
            ..LetterFilter::default()
        };
        let mut kept = journal.letters(&filter)?;
        kept.retain(|letter| letter.saga.as_ref().is_some_and(|saga| !self.stage.is_quarantined(saga)));
        let count = kept.len();
        for letter in kept {
            match serving.codec.decode_letter(&letter) {
                Ok(Decoded { event, formerly }) => {
                    let saga = event.saga.clone();
                    let letter = Box::new(letter);
                    self.post(&saga, Item::Redelivery { event, formerly, letter, receipt: None, reply: None });
                }
                Err(why) => {
                    error!(letter = letter.key, code = %why.code, "a letter of a quarantined saga is unreadable")
                }
            }
        }
        Ok(count)
    }
}
