//! Sagas for operators: the list, one with its timeline, and commands for it. Invariant: a command reaches a saga through
//! its mailbox, or waits in the journal for a host.

use sagahost_journal::{LetterFilter, SagaFilter, SagaKey};
use sagahost_saga::{
    Saga,
    history::Entry,
    id::SagaId,
    input::{Command, Status},
    notation,
};

use super::{
    desk::{Desk, not_found},
    protocol::{LIST_MAX, Refusal},
    view::{Done, LetterLine, SagaLine, SagaPage, SagaView},
};

impl Desk {
    pub(super) fn sagas(
        &self,
        status: Option<Status>,
        notes: Vec<(String, String)>,
        before: Option<i64>,
        limit: usize,
    ) -> Result<SagaPage, Refusal> {
        let limit = limit.clamp(1, LIST_MAX);
        let filter = SagaFilter { status, notes, before: before.map(SagaKey), limit };
        let rows = self.journal.sagas(&filter).map_err(Refusal::failed)?;
        let counts = self.journal.count_by_status().map_err(Refusal::failed)?;
        Ok(SagaPage {
            more_before: rows.last().filter(|_| rows.len() == limit).map(|row| row.key.0),
            sagas: rows.iter().map(SagaLine::from).collect(),
            counts: counts.into_iter().map(|(status, count)| (status.name().to_owned(), count)).collect(),
        })
    }

    pub(super) fn saga(&self, id: &SagaId) -> Result<SagaView, Refusal> {
        let quarantined = self.journal.quarantined(id).map_err(Refusal::failed)?;
        let row = self.journal.saga(id).map_err(Refusal::failed)?;
        let Some(row) = row else {
            return match quarantined {
                Some(why) => Ok(self.unreadable(id, why)),
                None => Err(self.no_saga(id)),
            };
        };
        let saga = match Saga::decode(&row.bytes) {
            Ok(saga) => saga,
            Err(error) => return Ok(self.unreadable(id, quarantined.unwrap_or_else(|| error.to_string()))),
        };
        let mut history: Vec<Entry> = Vec::new();
        if saga.spilled_history() > 0 {
            history = self.journal.spilled_history(row.key, 0, usize::MAX).map_err(Refusal::failed)?;
        }
        history.extend_from_slice(saga.history());
        let mut view = SagaView::of(&saga, &self.settings.app, &history);
        view.letters = self.letters_of(id)?;
        view.queued = self.queued_for(id)?;
        if let Some(why) = quarantined {
            view.status = Status::Quarantined.name().to_owned();
            view.next = vec![quarantine_command(id)];
            view.quarantined = Some(why);
        }
        for command in &mut view.next {
            *command = self.located(command);
        }
        Ok(view)
    }

    fn no_saga(&self, id: &SagaId) -> Refusal {
        not_found("saga", id.as_str(), &format!(" in app {}", self.settings.app))
    }

    fn unreadable(&self, id: &SagaId, why: String) -> SagaView {
        SagaView {
            id: id.to_string(),
            app: self.settings.app.to_string(),
            status: Status::Quarantined.name().to_owned(),
            quarantined: Some(why),
            next: vec![self.located(&quarantine_command(id))],
            ..SagaView::default()
        }
    }

    /// A command as it must be typed for this app: `sagahost … --config FILE  # why`.
    fn located(&self, command: &str) -> String {
        let (typed, why) = command.split_once("  # ").unwrap_or((command, ""));
        let typed = typed.strip_prefix("sagahost ").unwrap_or(typed);
        let typed = self.settings.command_line(typed);
        if why.is_empty() { typed } else { format!("{typed}  # {why}") }
    }

    fn letters_of(&self, id: &SagaId) -> Result<Vec<LetterLine>, Refusal> {
        let filter =
            LetterFilter { saga: Some(id.clone()), open_only: true, limit: LIST_MAX, ..LetterFilter::default() };
        let letters = self.journal.letters(&filter).map_err(Refusal::failed)?;
        Ok(letters.iter().map(LetterLine::from).collect())
    }

    fn queued_for(&self, id: &SagaId) -> Result<Vec<String>, Refusal> {
        let queued = self.journal.queued_commands().map_err(Refusal::failed)?;
        Ok(queued.iter().filter(|queued| queued.saga == *id).map(|queued| command_text(&queued.command)).collect())
    }

    pub(super) fn command(&self, saga: &SagaId, command: Command) -> Result<Done, Refusal> {
        if let Some(live) = &self.live {
            let answer = live.command(saga, command)?;
            return Ok(Done { done: answer.done, queued: false, text: answer.text });
        }
        let quarantined = self.journal.quarantined(saga).map_err(Refusal::failed)?;
        let known = quarantined.is_some() || self.journal.saga(saga).map_err(Refusal::failed)?.is_some();
        // A cancel may come before the saga: then it never begins (SEMANTICS.md, race 9).
        if !known && !matches!(command, Command::Cancel { .. }) {
            return Err(self.no_saga(saga));
        }
        if quarantined.is_some() && matches!(command, Command::Retry { .. }) {
            self.journal.release(self.journal.identity().epoch, saga).map_err(Refusal::failed)?;
            let text =
                format!("saga {} is out of quarantine; it continues when the host starts", notation::id(saga.as_str()));
            return Ok(Done { done: true, queued: true, text });
        }
        let text =
            format!("no host is running: journaled `{}`; it takes effect when the host starts", command_text(&command));
        self.journal.queue_command(saga, &command).map_err(Refusal::failed)?;
        Ok(Done { done: true, queued: true, text })
    }
}

fn quarantine_command(id: &SagaId) -> String {
    let id = notation::id_word(id.as_str());
    format!("sagahost sagas retry {id}  # takes it out of quarantine and tries again")
}

fn command_text(command: &Command) -> String {
    match command {
        Command::Cancel { by, .. } => format!("cancel by {by}"),
        Command::Retry { by } => format!("retry by {by}"),
        Command::Resolve { by, accept: true, .. } => format!("resolve --accept by {by}"),
        Command::Resolve { by, accept: false, .. } => format!("resolve --undone by {by}"),
        Command::Redrive { by, letter, .. } => format!("redrive {} by {by}", notation::id(letter)),
        Command::Discard { by, letter, .. } => format!("discard {} by {by}", notation::id(letter)),
    }
}
