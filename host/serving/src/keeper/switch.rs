//! The switch from one set of plugins to another. Invariant: it is journaled first, and is one pointer then; what follows
//! from it (reading, waking, telling) can be done again.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use sagahost_journal::AdmittedRow;
use sagahost_manifest::manifest::From;
use sagahost_processor::{
    planted::{self, Planted},
    reader::assignment,
};
use sagahost_saga::{
    id::{Kind, Participant},
    notation::with_causes,
};
use sagahost_transport::Assignment;
use sagahost_wire::{Partition, Position};
use tracing::{info, warn};

use super::{ChangeError, Keeper};
use crate::{
    admission::Admitted,
    plugins::{Serving, short},
};

impl Keeper {
    /// From here on events run on `target`, if it is another set than the one that serves.
    pub(super) fn install(&mut self, target: Serving) -> Result<(), ChangeError> {
        let was = by_name(&self.plugins.serving);
        let is = by_name(&target);
        if was.iter().map(|(name, admitted)| (name, identity(admitted))).eq(is.iter().map(|(n, a)| (n, identity(a)))) {
            let files = |named: &BTreeMap<Participant, Admitted>| -> Vec<PathBuf> {
                named.values().map(|admitted| admitted.file.clone()).collect()
            };
            if files(&was) != files(&is) {
                self.keep(&target)?;
            }
            self.plugins.serving = target;
            return Ok(());
        }
        self.install_anew(target)
    }

    /// Whatever can fail comes before the switch.
    pub(super) fn install_anew(&mut self, target: Serving) -> Result<(), ChangeError> {
        let was = by_name(&self.plugins.serving);
        let is = by_name(&target);
        (self.plugins.settings.reached)("plugins-admitted");
        let replaced = self.replaced(&was, &is)?;
        let wanted = self.plugins.wanted(&target);
        let read = self.topics_read();
        let before = self.plugins.wanted(&self.plugins.serving);
        let same = before.outputs == wanted.outputs && wanted.inputs.keys().all(|topic| read.contains(topic));
        // Most switches need nothing of the broker, and so do not depend on it.
        let partitions = if same {
            Vec::new()
        } else {
            wanted.partitions(&*self.transport).map_err(|source| ChangeError::Topics { source })?
        };
        let fresh = self.fresh_positions(&partitions, &wanted.inputs)?;
        let journal = self.switch.journal.clone();
        let epoch = journal.identity().epoch;
        for Assignment { partition, position, last, topic_id } in &fresh {
            let position = Position { next: *position, last: *last, topic_id: topic_id.clone() };
            journal.set_position(epoch, partition, &position)?;
        }
        (self.plugins.settings.reached)("plugin-positions");
        if planted::on(Planted::SwitchBeforeJournal) {
            let previous = std::mem::replace(&mut self.plugins.serving, target.clone());
            self.switch.serve(self.plugins.serve()?);
            self.plugins.serving = previous;
        }
        self.unfinished = Some(target.clone());
        self.keep(&target)?;
        let previous = std::mem::replace(&mut self.plugins.serving, target);
        match self.plugins.serve() {
            Ok(serving) => self.switch.serve(serving),
            Err(error) => {
                self.plugins.serving = previous;
                return Err(error.into());
            }
        }
        self.unfinished = None;
        (self.plugins.settings.reached)("plugins-switched");
        self.read_also(fresh);
        self.say(&was, &is, &read);
        self.begin_probation(&replaced, &is);
        self.plugins.warn_of_cycles();
        self.switched = true;
        Ok(())
    }

    /// A change that failed behind its write into the journal serves before anything else is changed: what is said to be the
    /// version that served last has done so.
    pub(super) fn finish_journaled(&mut self) -> Result<(), ChangeError> {
        let Some(target) = self.unfinished.clone() else { return Ok(()) };
        self.plugins.refresh(&*self.switch.journal)?;
        let is_journaled = |admitted: &Admitted| {
            let (digest, config) = identity(admitted);
            let is_it = |row: &AdmittedRow| row.serving && row.digest == digest && row.config == config;
            self.plugins.rows.iter().any(|row| row.participant == admitted.plugin.name() && is_it(row))
        };
        if target.values().all(is_journaled) {
            self.install_anew(target)?;
        }
        self.unfinished = None;
        Ok(())
    }

    /// After a switch, in a step of its own: the retention of what it took out of service has begun by then.
    pub(super) fn remove_unneeded(&mut self) {
        let journal = self.switch.journal.clone();
        let on_probation = self.on_probation.values().map(|probation| probation.before.plugin.digest().clone());
        if let Err(error) = self.plugins.remove_unneeded(&*journal, on_probation.collect(), self.at.wall) {
            warn!(error = with_causes(&error), "failed to remove old versions of plugins");
        }
        self.show();
    }

    /// What served before: also before its file was gone for a while.
    fn replaced(
        &self,
        was: &BTreeMap<Participant, Admitted>,
        is: &BTreeMap<Participant, Admitted>,
    ) -> Result<BTreeMap<Participant, Admitted>, ChangeError> {
        let mut replaced = was.clone();
        for (name, new) in is.iter().filter(|(name, _)| !was.contains_key(*name)) {
            replaced.extend(self.plugins.last_served(name, &new.file)?.map(|last| (name.clone(), last)));
        }
        Ok(replaced)
    }

    fn keep(&mut self, target: &Serving) -> Result<(), ChangeError> {
        let admitted: Vec<Admitted> = target.values().cloned().collect();
        let journal = self.switch.journal.clone();
        Ok(self.plugins.keep(&admitted, &*journal, self.at.wall)?)
    }

    /// The same code, with what the journal says of pauses and retirement.
    pub(super) fn switch(&mut self) -> Result<(), ChangeError> {
        self.switch.serve(self.plugins.serve()?);
        self.read_also(Vec::new());
        Ok(())
    }

    /// New partitions are read, those that nobody handles any more rest.
    fn read_also(&self, fresh: Vec<Assignment>) {
        let mut topics = self.topics_read();
        topics.extend(fresh.iter().map(|assignment| assignment.partition.topic.clone()));
        self.switch.intake.read_also(fresh, self.plugins.idle_topics(topics));
    }

    fn topics_read(&self) -> BTreeSet<Arc<str>> {
        self.switch.intake.assigned().into_iter().map(|partition| partition.topic).collect()
    }

    /// Partitions that this app has not read before: from their started, or from what comes now, as the
    /// subscription says.
    fn fresh_positions(
        &self,
        partitions: &[Partition],
        inputs: &BTreeMap<Arc<str>, bool>,
    ) -> Result<Vec<Assignment>, ChangeError> {
        let assigned = self.switch.intake.assigned();
        let new: Vec<Partition> =
            partitions.iter().filter(|partition| !assigned.contains(*partition)).cloned().collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let journaled = self.switch.journal.positions()?;
        let topics: BTreeSet<Arc<str>> = new.iter().map(|partition| partition.topic.clone()).collect();
        // The ids first: then a topic made anew in between is noticed.
        let failed = |source| ChangeError::Positions { source };
        let ids = self.transport.topic_ids(&topics.into_iter().collect::<Vec<_>>()).map_err(failed)?;
        let bounds = self.transport.bounds(&new).map_err(failed)?;
        let place = |partition: Partition| {
            if let Some(position) = journaled.get(&partition) {
                return assignment(partition, position);
            }
            let (first, end) = bounds.get(&partition).copied().unwrap_or((0, 0));
            let whole = inputs.get(&partition.topic).copied().unwrap_or(true);
            if !whole && end > first {
                info!(%partition, records = end - first, "what is in this topic has passed: the new subscription begins with what comes now");
            }
            let topic_id = ids.get(&partition.topic).cloned();
            assignment(partition, &Position::new(if whole { first } else { end }, topic_id))
        };
        Ok(new.into_iter().map(place).collect())
    }

    /// `read`: topics that were read before.
    fn say(
        &self,
        was: &BTreeMap<Participant, Admitted>,
        is: &BTreeMap<Participant, Admitted>,
        read: &BTreeSet<Arc<str>>,
    ) {
        for (name, admitted) in is {
            let (version, digest) = (&admitted.plugin.manifest().version, short(admitted.plugin.digest()));
            let before = was.get(name);
            match before {
                None => info!(plugin = %name, version, digest, "serves now"),
                Some(before) if identity(before) != identity(admitted) => {
                    info!(plugin = %name, version, digest, before = before.plugin.manifest().version, "serves now; running calls end on the version before");
                }
                Some(_) => continue,
            }
            for note in self.plugins.notes(admitted) {
                info!(plugin = %name, "{note}");
            }
            self.say_what_has_passed(admitted, before, read);
        }
        for name in was.keys().filter(|name| !is.contains_key(*name)) {
            warn!(plugin = %name, "its file is gone: its events park until one is back; what it did is still undone");
        }
    }

    /// Of a topic that was read before, a new subscription does not see what is there already.
    fn say_what_has_passed(&self, admitted: &Admitted, before: Option<&Admitted>, read: &BTreeSet<Arc<str>>) {
        let plugin = admitted.plugin.name();
        let known = |kind: &str| before.is_some_and(|before| before.plugin.manifest().subscription(kind).is_some());
        for subscription in admitted.plugin.manifest().subscriptions.iter().filter(|sub| !known(&sub.kind)) {
            let kind = &subscription.kind;
            let topic = self.plugins.settings.topics.topic_of(&Kind::new(kind));
            match subscription.from {
                _ if !read.contains(&topic) => {}
                From::Now => info!(%plugin, kind, "events of this kind that were taken in before are not for it"),
                From::Earliest => warn!(
                    %plugin, kind, %topic,
                    "`from = earliest` has no effect, for this topic was read before: it begins with what comes now"
                ),
            }
        }
    }
}

pub(super) fn by_name(serving: &Serving) -> BTreeMap<Participant, Admitted> {
    serving.values().map(|admitted| (admitted.plugin.name(), admitted.clone())).collect()
}

/// Code and configuration.
fn identity(admitted: &Admitted) -> (Arc<str>, Arc<str>) {
    let behaviour = admitted.plugin.behaviour();
    (behaviour.digest, behaviour.config)
}
