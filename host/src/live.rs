//! What a running host does for its operators. Invariant: each desk reaches what it is about and nothing else, and waits for
//! the journal no longer than its patience.

use std::{path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, bounded};
use sagahost_codec::Decoded;
use sagahost_journal::{Identity, Journal, LeftOut, LetterWrite};
use sagahost_operator::{
    Live, LiveStatus, OutboxAction, PluginAction, ResumeFrom,
    plugin_view::PluginsView,
    protocol::{Refusal, Why},
};
use sagahost_processor::{
    Processor, Serving,
    inbox::Inbox,
    intake::Intake,
    lookalike,
    mailbox::{Item, Loose},
    outbox::Outbox,
    release::Releases,
    reply::{Declined, Reply},
    stage::{Move, Stage},
    stats::Stats,
    unhandled::Sort,
};
use sagahost_saga::{
    id::{Participant, SagaId},
    input::{Answer, Command},
    notation,
};
use sagahost_serving::{Board, Order};
use sagahost_transport::Transport;
use sagahost_wire::{Epoch, Partition, StoredLetter, TopicId};

use crate::{
    config::Config,
    threads::{Clocks, drive},
};

/// One desk for each thing that operators ask about.
pub struct Running {
    sagas: Sagas,
    outbox: OutboxRows,
    partitions: Partitions,
    plugins: Plugins,
    status: Status,
}

struct Sagas {
    inbox: Inbox,
    serving: Arc<ArcSwap<Serving>>,
    releases: Releases,
    clocks: Clocks,
}

struct OutboxRows {
    outbox: Arc<Outbox>,
    journal: Arc<dyn Journal>,
    epoch: Epoch,
}

struct Partitions {
    intake: Arc<Intake>,
    stage: Arc<Stage>,
    transport: Arc<dyn Transport>,
    journal: Arc<dyn Journal>,
}

struct Plugins {
    board: Arc<Board>,
    stats: Arc<Stats>,
}

struct Status {
    stage: Arc<Stage>,
    intake: Arc<Intake>,
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    transport: Arc<dyn Transport>,
    identity: Identity,
    clocks: Clocks,
    app: Arc<str>,
    data: PathBuf,
}

impl Running {
    pub fn of(
        processor: &Processor,
        board: &Arc<Board>,
        transport: &Arc<dyn Transport>,
        identity: &Identity,
        clocks: &Clocks,
        config: &Config,
    ) -> Self {
        let (epoch, journal) = (identity.epoch, || processor.journal.clone());
        let (stage, intake) = (|| processor.stage.clone(), || processor.intake.clone());
        let (outbox, stats) = (|| processor.outbox.clone(), || processor.stats.clone());
        Self {
            sagas: Sagas {
                inbox: processor.inbox.clone(),
                serving: processor.serving.clone(),
                releases: processor.releases(epoch),
                clocks: clocks.clone(),
            },
            outbox: OutboxRows { outbox: outbox(), journal: journal(), epoch },
            partitions: Partitions {
                intake: intake(),
                stage: stage(),
                transport: transport.clone(),
                journal: journal(),
            },
            plugins: Plugins { board: board.clone(), stats: stats() },
            status: Status {
                stage: stage(),
                intake: intake(),
                outbox: outbox(),
                stats: stats(),
                transport: transport.clone(),
                identity: identity.clone(),
                clocks: clocks.clone(),
                app: config.app.clone(),
                data: config.data_dir.clone(),
            },
        }
    }
}

impl Live for Running {
    fn command(&self, saga: &SagaId, command: Command) -> Result<Answer, Refusal> {
        self.sagas.command(saga, command)
    }

    fn outbox(&self, action: OutboxAction) -> Result<Answer, Refusal> {
        self.outbox.change(action)
    }

    fn redrive_record(&self, letter: StoredLetter) -> Result<Answer, Refusal> {
        self.sagas.redrive_record(letter)
    }

    fn discard_record(&self, letter: StoredLetter, by: String, reason: String) -> Result<Answer, Refusal> {
        self.sagas.discard_record(letter, &by, &reason)
    }

    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Answer, Refusal> {
        self.partitions.resume(partition, from)
    }

    fn change_plugin(&self, plugin: &Participant, action: PluginAction) -> Result<Answer, Refusal> {
        self.plugins.order(Order::Plugin(plugin.clone(), action))
    }

    fn reload_config(&self) -> Result<Answer, Refusal> {
        self.plugins.order(Order::ReloadConfig)
    }

    fn plugins(&self) -> PluginsView {
        self.plugins.board.view(&self.plugins.stats)
    }

    fn status(&self) -> LiveStatus {
        self.status.now()
    }
}

impl Sagas {
    fn command(&self, saga: &SagaId, command: Command) -> Result<Answer, Refusal> {
        if matches!(command, Command::Retry { .. }) && self.releases.is_quarantined(saga) {
            return self.release(saga);
        }
        self.ask(saga, |reply| Item::Operator { command, queued: None, reply: Some(reply), receipt: None })
    }

    fn ask(&self, saga: &SagaId, item: impl FnOnce(Reply) -> Item) -> Result<Answer, Refusal> {
        let (reply, answer) = reply();
        self.inbox.post(saga, item(reply));
        await_answer(&answer)
    }

    fn release(&self, saga: &SagaId) -> Result<Answer, Refusal> {
        let mut release = self.releases.of(saga);
        let ended = drive(&mut release, &self.clocks).map(|()| release.released);
        let count = ended.ok().flatten().ok_or_else(|| Refusal::new(Why::Failed, "the host ends"))??;
        let id = notation::id(saga.as_str());
        let text = format!("saga {id} is out of quarantine; {count} events that were kept aside are taken in again");
        Ok(Answer { done: true, text })
    }

    fn redrive_record(&self, letter: StoredLetter) -> Result<Answer, Refusal> {
        let serving = self.serving.load();
        let decoded = serving.codec.decode_letter(&letter);
        let Decoded { event, formerly } = decoded
            .map_err(|why| Refusal::refused(format!("it still cannot be decoded: {}: {}", why.code, why.detail)))?;
        if !serving.topology.concerns(&event.kind) {
            let hint = serving.meant(&event.kind).map(|meant| format!(": {}", lookalike::hint(&meant)));
            let kind = notation::id(event.kind.as_str());
            let text = format!("no plugin of this app handles {kind}{}", hint.unwrap_or_default());
            return Err(Refusal::refused(text));
        }
        self.ask(&event.saga.clone(), |reply| Item::Redelivery {
            event,
            formerly,
            letter: Box::new(letter),
            receipt: None,
            reply: Some(reply),
        })
    }

    fn discard_record(&self, letter: StoredLetter, by: &str, reason: &str) -> Result<Answer, Refusal> {
        let (reply, answer) = reply();
        let how = format!("discarded by {by}: {reason}");
        let done = Answer { done: true, text: how.clone() };
        let letter = LetterWrite::Close { key: letter.key, how, at: self.clocks.now().wall };
        self.inbox.post_loose(Loose { letter, receipt: None, reply: Some((reply, done)) });
        await_answer(&answer)
    }
}

impl OutboxRows {
    fn change(&self, action: OutboxAction) -> Result<Answer, Refusal> {
        let done = match action {
            OutboxAction::Retry => self.outbox.retry(),
            OutboxAction::Skip { batch, index, by, reason } => {
                let refused = self.outbox.refused().is_some_and(|row| row.batch == batch && row.index == index);
                if !refused {
                    return Err(Refusal::not_found(format!("row {index} of batch {} is not refused", batch.0)));
                }
                let reason = format!("{by}: {reason}");
                self.journal.leave_out(self.epoch, batch, index, LeftOut::Row, &reason)?;
                self.outbox.skip(batch, index, &reason)
            }
        };
        let text = if done { "publication resumes" } else { "no outbox row is refused" };
        Ok(Answer { done, text: text.to_owned() })
    }
}

impl Partitions {
    fn resume(&self, partition: &Partition, from: Option<ResumeFrom>) -> Result<Answer, Refusal> {
        if !self.intake.is_held(partition) {
            let text = format!("{partition} is not held; `sagahost status` lists those that are");
            return Err(Refusal::not_found(text));
        }
        // The id first: then a topic that is recreated in between is noticed.
        let ids = self.transport.topic_ids(std::slice::from_ref(&partition.topic))?;
        let topic_id = ids.get(&partition.topic).cloned();
        let Some(from) = from else {
            self.refuse_made_anew(partition, topic_id.as_ref())?;
            self.intake.assign_again(partition);
            return Ok(Answer { done: true, text: format!("{partition} is read from its old position, if it can be") });
        };
        let bounds = self.transport.bounds(std::slice::from_ref(partition))?;
        let missing = || Refusal::not_found(format!("{partition} does not exist"));
        let (first, end) = bounds.get(partition).copied().ok_or_else(missing)?;
        let next = match from {
            ResumeFrom::Earliest => first,
            ResumeFrom::Latest => end,
            ResumeFrom::Offset(offset) if (first..=end).contains(&offset) => offset,
            ResumeFrom::Offset(offset) => {
                let text = format!("{partition} holds {first} to {end}; {offset} is outside that range");
                return Err(Refusal::invalid(text));
            }
        };
        let (reply, answer) = reply();
        self.stage.move_position(Move { partition: partition.clone(), next, topic_id, reply });
        await_answer(&answer)
    }

    /// An offset in the topic before says nothing of this one.
    fn refuse_made_anew(&self, partition: &Partition, topic_id: Option<&TopicId>) -> Result<(), Refusal> {
        let journaled = self.journal.positions()?;
        let known = journaled.get(partition).filter(|position| position.next > 0).and_then(|at| at.topic_id.as_ref());
        match (known, topic_id) {
            (Some(known), Some(now)) if known != now => Err(Refusal::refused(format!(
                "{partition}: the topic was recreated (its id was {known}, now it is {now}), so its old \
                 position means nothing: add --from earliest, --from latest or --from OFFSET"
            ))),
            _ => Ok(()),
        }
    }
}

impl Plugins {
    /// The keeper does one thing after the other, and compiling may be one of them.
    fn order(&self, order: Order) -> Result<Answer, Refusal> {
        const QUEUED: &str = "the plugins are being changed just now (compiled, or still copied); this is done behind \
                              that, unless too much waits there: look at `sagahost plugins list`";
        Ok(await_answer_or(&self.board.order(order), QUEUED)??)
    }
}

impl Status {
    fn now(&self) -> LiveStatus {
        let (stats, now) = (&self.stats, self.clocks.now());
        let mut waiting_for = self.intake.waiting();
        waiting_for.extend(self.intake.held_up());
        // The publisher's trouble is the broker's.
        waiting_for.extend(self.outbox.waiting(now).filter(|waiting| !self.intake.waiting().contains(waiting)));
        let batch = self.stage.last_sealed().0;
        LiveStatus {
            app: self.app.to_string(),
            transport: self.transport.describe(),
            journal: format!("{} in {}", self.identity.journal, self.data.display()),
            incarnation: self.identity.incarnation.to_string(),
            batch,
            published: self.stage.published_batch().0,
            records: Stats::get(&stats.records),
            records_skipped: Stats::get(&stats.records_skipped),
            events: Stats::get(&stats.events),
            duplicates: Stats::get(&stats.duplicates),
            calls: Stats::get(&stats.calls),
            chains_rerun: Stats::get(&stats.chains_rerun),
            journal_commits: Stats::get(&stats.journal_commits),
            publications: Stats::get(&stats.publications),
            waiting_for,
            held: self.intake.held(),
            events_unhandled: stats.unhandled.events(Sort::Unhandled),
            events_ignored: stats.unhandled.events(Sort::Ignored),
            unhandled: stats.unhandled.lines().into_iter().map(Into::into).collect(),
        }
    }
}

/// An answer that a caller waits for.
fn reply() -> (Reply, Receiver<Result<Answer, Declined>>) {
    let (sender, answer) = bounded(1);
    let tell = move |answer| {
        let _ = sender.try_send(answer);
    };
    (Reply::new(tell), answer)
}

fn await_answer(answer: &Receiver<Result<Answer, Declined>>) -> Result<Answer, Refusal> {
    const NOT_YET: &str = "the host could not journal it in time: it may still be carried out; check `sagahost status`";
    Ok(await_answer_or(answer, NOT_YET)??)
}

fn await_answer_or<T>(answer: &Receiver<T>, otherwise: &str) -> Result<T, Refusal> {
    const PATIENCE: Duration = Duration::from_secs(25);
    answer.recv_timeout(PATIENCE).map_err(|_| Refusal::new(Why::TimedOut, otherwise))
}
