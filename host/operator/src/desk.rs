//! Answers operators' requests: inside of a running host, or in the command line itself when none runs. Invariant:
//! both give the same answers; without a host a command is journaled for the next one instead of being carried out.

use std::{collections::BTreeMap, sync::Arc};

use sagahost_journal::{Journal, LeftOut, LetterFilter, PageBounds};
use sagahost_saga::{id::Participant, notation};
use sagahost_sandbox::graph::Graph;
use sagahost_transport::Transport;
use sagahost_wire::{Outgoing, Partition, StoredLetter};
use serde::Serialize;
use serde_json::Value;

use super::{
    Live, OutboxAction, PluginAction, ResumeFrom, examples,
    outlook::Outlook,
    plugins,
    protocol::{LIST_MAX, Refusal, Reply, Request, STORE_BYTES_MAX, Why},
    topics::{self, Sources},
    view::{
        CounterLine, Done, LetterGroup, LetterLine, LetterView, OutboxLine, Placed, StatusView, StoreLine, TopicLine,
        readable,
    },
};
use crate::settings::Settings;

/// Everything that an operator's request may need.
#[derive(Clone)]
pub struct Desk {
    pub settings: Settings,
    pub journal: Arc<dyn Journal>,
    pub transport: Arc<dyn Transport>,
    /// None: no host is running.
    pub live: Option<Arc<dyn Live>>,
}

impl Desk {
    pub fn reply(&self, request: Request) -> Reply {
        match self.answer(request) {
            Ok(value) => Reply::Ok(value),
            Err(refusal) => Reply::Refused(refusal),
        }
    }

    fn answer(&self, request: Request) -> Result<Value, Refusal> {
        match request {
            Request::Status => value(self.status()?),
            Request::Sagas { status, notes, before, limit } => value(self.sagas(status, notes, before, limit)?),
            Request::Saga { id } => value(self.saga(&id)?),
            Request::Command { saga, command } => value(self.command(&saga, command)?),
            Request::LetterGroups => value(self.letter_groups()?),
            Request::Letters { of, closed } => {
                let filter = LetterFilter {
                    saga: of.saga,
                    code: of.code,
                    participant: of.participant,
                    open_only: !closed,
                    limit: of.limit.clamp(1, LIST_MAX),
                    offset: 0,
                };
                let letters = self.journal.letters(&filter).map_err(Refusal::failed)?;
                value(letters.iter().map(LetterLine::from).collect::<Vec<_>>())
            }
            Request::Letter { key } => value(LetterView::from(&self.letter(&key)?)),
            Request::Redrive { of, by, dry_run } => value(self.redrive(&of, &by, dry_run)?),
            Request::Discard { of, by, reason } => value(self.discard(&of, &by, &reason)?),
            Request::Outbox { limit } => value(self.outbox(limit)?),
            Request::OutboxChange { action } => value(self.change_outbox(action)?),
            Request::Topics => value(self.topics()?),
            Request::CreateTopics { names, partitions } => {
                value(topics::create(self.sources(), &*self.transport, &names, partitions)?)
            }
            Request::Resume { partition, from } => value(self.resume(&partition, from)?),
            Request::Graph => value(Graph::of(&topics::manifests(self.sources())?)),
            Request::Plugins => value(plugins::list(self)?),
            Request::Plugin { plugin } => value(plugins::one(self, &plugin)?),
            Request::ReloadConfig => value(self.reload_config()?),
            Request::ChangePlugin { plugin, action } => value(self.change_plugin(&plugin, action)?),
            Request::Counters { participant } => value(self.counters(participant.as_ref())?),
            Request::Store { participant, prefix, after, limit } => {
                value(self.store(&participant, &prefix, after.as_deref(), limit)?)
            }
            Request::Example { kind } => value(examples::of_kind(self.sources(), &kind)?),
            Request::Emit { record, kind } => value(emit(self.sources(), &*self.transport, &record, kind.as_deref())?),
        }
    }

    fn sources(&self) -> Sources<'_> {
        Sources { settings: &self.settings, journal: Some(&*self.journal), host_runs: self.live.is_some() }
    }

    fn status(&self) -> Result<StatusView, Refusal> {
        let journal = &self.journal;
        let identity = journal.identity();
        let counts = journal.count_by_status().map_err(Refusal::failed)?;
        let groups = journal.letter_groups().map_err(Refusal::failed)?;
        let removed = journal.removed_letters().map_err(Refusal::failed)?;
        let queued = journal.queued_commands().map_err(Refusal::failed)?;
        let mut view = StatusView {
            app: identity.app.to_string(),
            running: false,
            transport: self.transport.describe(),
            journal: format!("{} in {}", identity.journal, self.settings.data_dir.display()),
            incarnation: identity.incarnation.to_string(),
            batch: identity.last_batch.0,
            published: identity.confirmed.0,
            sagas: counts.into_iter().map(|(status, count)| (status.name().to_owned(), count)).collect(),
            open_letters: groups.iter().map(|(_, _, count)| count).sum(),
            removed_letters: removed.iter().map(|removed| removed.letters).sum(),
            queued_commands: queued.len(),
            ..StatusView::default()
        };
        if let Some(live) = &self.live {
            let now = live.status();
            view.running = true;
            (view.batch, view.published) = (now.batch, now.published);
            (view.waiting_for, view.held, view.unhandled) = (now.waiting_for, now.held, now.unhandled);
            view.counters = BTreeMap::from([
                ("records".to_owned(), now.records),
                ("records-skipped".to_owned(), now.records_skipped),
                ("events".to_owned(), now.events),
                ("duplicates".to_owned(), now.duplicates),
                ("calls".to_owned(), now.calls),
                ("chains-rerun".to_owned(), now.chains_rerun),
                ("journal-commits".to_owned(), now.journal_commits),
                ("publications".to_owned(), now.publications),
                ("unhandled".to_owned(), now.events_unhandled),
                ("ignored".to_owned(), now.events_ignored),
            ]);
        }
        Ok(view)
    }

    fn topics(&self) -> Result<Vec<TopicLine>, Refusal> {
        let mut lines = topics::list(self.sources(), &*self.transport)?;
        for unhandled in self.live.iter().flat_map(|live| live.status().unhandled) {
            if let Some(line) = lines.iter_mut().find(|line| line.name == unhandled.topic) {
                line.unhandled.push(unhandled);
            }
        }
        Ok(lines)
    }

    fn letter_groups(&self) -> Result<Vec<LetterGroup>, Refusal> {
        let groups = self.journal.letter_groups().map_err(Refusal::failed)?;
        let group = |(code, participant, open): (String, Option<Participant>, u64)| LetterGroup {
            code,
            participant: participant.map(|participant| participant.to_string()),
            open,
            ..LetterGroup::default()
        };
        let mut groups: Vec<_> = groups.into_iter().map(group).collect();
        for removed in self.journal.removed_letters().map_err(Refusal::failed)? {
            let of_code = |group: &LetterGroup| group.participant.is_none() && group.code == removed.code;
            let at = groups.iter().position(of_code).unwrap_or_else(|| {
                groups.push(LetterGroup { code: removed.code.clone(), ..LetterGroup::default() });
                groups.len() - 1
            });
            (groups[at].removed, groups[at].removed_at) = (removed.letters, Some(removed.last.into()));
        }
        Ok(groups)
    }

    pub(super) fn letter(&self, key: &str) -> Result<StoredLetter, Refusal> {
        let letter = self.journal.letter(key).map_err(Refusal::failed)?;
        letter.ok_or_else(|| not_found("dead letter", key, ""))
    }

    fn outbox(&self, limit: usize) -> Result<Vec<OutboxLine>, Refusal> {
        let published = match &self.live {
            Some(live) => sagahost_wire::BatchNo(live.status().published),
            None => self.journal.identity().confirmed,
        };
        let batches = self.journal.outbox(published, limit.clamp(1, LIST_MAX)).map_err(Refusal::failed)?;
        Ok(batches.iter().map(OutboxLine::from).collect())
    }

    fn change_outbox(&self, action: OutboxAction) -> Result<Done, Refusal> {
        if let Some(live) = &self.live {
            let answer = live.outbox(action)?;
            return Ok(Done { done: answer.done, queued: false, text: answer.text });
        }
        match action {
            OutboxAction::Retry => {
                let text = "no host is running: its next start tries the outbox again".to_owned();
                Ok(Done { done: true, queued: true, text })
            }
            OutboxAction::Skip { batch, index, by, reason } => {
                let there = self.journal.outbox(sagahost_wire::BatchNo(batch.0.saturating_sub(1)), 1);
                let there = there.map_err(Refusal::failed)?;
                if !there.first().is_some_and(|first| first.number == batch && index < first.records.len()) {
                    return Err(Refusal::not_found(format!(
                        "there is no row {index} of batch {} in the outbox",
                        batch.0
                    )));
                }
                let epoch = self.journal.identity().epoch;
                let reason = format!("{by}: {reason}");
                self.journal.leave_out(epoch, batch, index, LeftOut::Row, &reason).map_err(Refusal::failed)?;
                let text = format!("row {index} of batch {} will not be published", batch.0);
                Ok(Done { done: true, queued: false, text })
            }
        }
    }

    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Done, Refusal> {
        let Some(live) = &self.live else {
            let text =
                "no host is running: start it; where a partition cannot be read it says so, and then it can be resumed";
            return Err(Refusal::new(Why::NeedsHost, text));
        };
        let answer = live.resume(partition, from)?;
        Ok(Done { done: answer.done, queued: false, text: answer.text })
    }

    fn change_plugin(&self, plugin: &Participant, action: PluginAction) -> Result<Done, Refusal> {
        let Some(live) = &self.live else { return plugins::change_without_host(self, plugin, action) };
        let answer = live.change_plugin(plugin, action)?;
        Ok(Done { done: answer.done, queued: false, text: answer.text })
    }

    fn reload_config(&self) -> Result<Done, Refusal> {
        let Some(live) = &self.live else {
            return Err(Refusal::new(Why::NeedsHost, "no host is running: its start reads the configuration"));
        };
        let answer = live.reload_config()?;
        Ok(Done { done: answer.done, queued: false, text: answer.text })
    }

    fn counters(&self, participant: Option<&Participant>) -> Result<Vec<CounterLine>, Refusal> {
        let counters = self.journal.counters(participant).map_err(Refusal::failed)?;
        let line = |(participant, name, value): (Participant, String, i64)| CounterLine {
            participant: participant.to_string(),
            name,
            value,
        };
        Ok(counters.into_iter().map(line).collect())
    }

    fn store(
        &self,
        participant: &Participant,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoreLine>, Refusal> {
        let bounds = PageBounds { entries: limit.clamp(1, LIST_MAX), bytes: STORE_BYTES_MAX };
        let page = self.journal.store_scan(participant, prefix, after, bounds);
        let line = |(key, bytes): (String, Arc<[u8]>)| StoreLine { key, bytes: bytes.len(), value: readable(&bytes) };
        Ok(page.map_err(Refusal::failed)?.rows.into_iter().map(line).collect())
    }
}

/// Publishes one record outside of any batch, and says who handles it. `kind`: what it is meant to be; nothing goes out that
/// would be read as another. A topic that the app needs is made where the app may make it; any other
/// that is missing is more likely a slip of the pen.
pub fn emit(
    sources: Sources<'_>,
    transport: &dyn Transport,
    record: &Outgoing,
    kind: Option<&str>,
) -> Result<Placed, Refusal> {
    let settings = sources.settings;
    let manifests = topics::manifests(sources)?;
    let outlook = Outlook::of(settings, &manifests, record, kind)?;
    if settings.create_topics {
        let there = transport.topics(std::slice::from_ref(&record.topic)).map_err(Refusal::failed)?;
        if there.is_empty() && topics::needed(&settings.topics, &manifests).contains_key(&record.topic) {
            transport
                .create_topics(std::slice::from_ref(&record.topic), settings.partitions)
                .map_err(Refusal::failed)?;
        }
    }
    let (partition, offset) = transport.offer(record).map_err(Refusal::failed)?;
    let Outlook { handled_by, note } = outlook;
    Ok(Placed { topic: partition.topic.to_string(), partition: partition.number, offset, handled_by, note })
}

/// A backslash may be what a shell left of an id that was printed in double quotes.
pub(super) fn not_found(what: &str, id: &str, place: &str) -> Refusal {
    let hint = match id.contains('\\') {
        true => "; an id that is printed in double quotes is typed with them, in single quotes for the shell",
        false => "",
    };
    Refusal::not_found(format!("there is no {what} {}{place}{hint}", notation::id(id)))
}

fn value(of: impl Serialize) -> Result<Value, Refusal> {
    serde_json::to_value(of).map_err(|error| Refusal::new(Why::Failed, format!("failed to write the answer: {error}")))
}
