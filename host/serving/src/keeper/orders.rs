//! What operators ask for: out of quarantine, back to the version before, pause, resume, retire, other configuration.
//! Invariant: each is journaled before it takes effect, so that a restart finds it so.

use std::sync::Arc;

use sagahost_journal::{AdmittedRow, PluginHistoryEntry, PluginWrite};
use sagahost_manifest::Report;
use sagahost_saga::{id::Participant, input::Answer, notation};
use tracing::{info, warn};

use super::{ChangeError, Keeper, NewValues, Order, PluginAction, board::Waiting, probation::TakenBack};
use crate::{
    admission::{Admitted, DirectorySnapshot},
    plugins::Reading,
};

impl Keeper {
    /// What is about the files as they are waits while they change, for as long as that takes.
    pub(super) fn carry_out_or_wait(&mut self, waiting: Waiting) {
        let about_files = matches!(&waiting.order, Order::ReloadConfig | Order::Plugin(_, PluginAction::Admit { .. }));
        if about_files && self.plugins.look().is_ok_and(|now| now != self.applied) {
            info!("the plugin directory is changing just now; what was asked for is done when it stands still");
            self.later.push(waiting);
        } else {
            self.carry_out(waiting);
        }
    }

    fn carry_out(&mut self, Waiting { order, reply }: Waiting) {
        let done = self.finish_journaled().and_then(|()| match order {
            Order::Plugin(name, action) => self.change_plugin(&name, action),
            Order::ReloadConfig => self.reload(),
        });
        // What is journaled and could not be put in force is tried again.
        self.rescan_due |= done.is_err();
        self.show();
        let _ = reply.send(done.map(|text| Answer { done: true, text }));
    }

    fn change_plugin(&mut self, name: &Participant, action: PluginAction) -> Result<String, ChangeError> {
        let known = self.plugins.rows.iter().any(|row| row.participant == *name);
        if !known {
            return Err(ChangeError::NeverAdmitted { plugin: name.clone() });
        }
        match action {
            PluginAction::Admit { by } => self.admit(name, &by),
            PluginAction::Rollback { by, reason } => self.roll_back_by_order(name, &by, &reason),
            PluginAction::Pause { by, reason } => {
                let why = format!("paused by {by}: {reason}");
                let text = format!("plugin {name} is paused: its events park; what it did is still undone");
                self.pause(name, Some(why.clone()), &why, text)
            }
            PluginAction::Resume { by } => {
                if !self.plugins.paused.contains_key(name) {
                    return Err(ChangeError::NotPaused { plugin: name.clone() });
                }
                let text = format!("plugin {name} is resumed; parked events are being processed");
                self.pause(name, None, &format!("resumed by {by}"), text)
            }
            PluginAction::Retire { by, reason, force } => self.retire(name, &by, &reason, force),
        }
    }

    fn admit(&mut self, name: &Participant, by: &str) -> Result<String, ChangeError> {
        let quarantined = |row: &&AdmittedRow| row.participant == *name && row.quarantined.is_some();
        let rows: Vec<AdmittedRow> = self.plugins.rows.iter().filter(quarantined).cloned().collect();
        if rows.is_empty() {
            return Err(ChangeError::NoneQuarantined { plugin: name.clone() });
        }
        let there = |row: &AdmittedRow| self.plugins.files_there().any(|file| *file.plugin.digest() == row.digest);
        let rows: Vec<AdmittedRow> = rows.into_iter().filter(there).collect();
        if rows.is_empty() {
            return Err(ChangeError::QuarantinedFileGone { plugin: name.clone() });
        }
        let what = format!("let out of quarantine by {by}");
        let digests: Vec<Arc<str>> = rows.iter().map(|row| row.digest.clone()).collect();
        self.write(PluginWrite {
            history: rows.iter().map(|row| self.history_entry(row, &what)).collect(),
            quarantined: rows.into_iter().map(|row| (row.participant, row.digest, None)).collect(),
            ..PluginWrite::default()
        })?;
        self.apply_directory()?;
        let serves = |admitted: &Admitted| {
            admitted.plugin.name() == *name && digests.iter().any(|digest| digest == admitted.plugin.digest())
        };
        let then = if self.plugins.serving.values().any(serves) {
            "its file serves, on probation"
        } else {
            "another version serves: `sagahost plugins list` says why"
        };
        Ok(format!("plugin {name} is out of quarantine; {then}"))
    }

    fn roll_back_by_order(&mut self, name: &Participant, by: &str, reason: &str) -> Result<String, ChangeError> {
        let serving = self.plugins.serving.values().find(|admitted| admitted.plugin.name() == *name).cloned();
        let serving = serving.ok_or_else(|| ChangeError::NotServing { plugin: name.clone() })?;
        let digest = serving.plugin.digest().clone();
        let before = self.plugins.stored(name, Some(&digest), &serving.file)?;
        let before = before.ok_or_else(|| ChangeError::NoOtherVersion { plugin: name.clone() })?;
        let version = before.plugin.manifest().version.clone();
        let why = format!("rolled back by {by}: {reason}");
        self.roll_back(vec![TakenBack { name: name.clone(), digest, before, why }])?;
        Ok(format!("plugin {name} {version} serves again"))
    }

    fn pause(
        &mut self,
        name: &Participant,
        paused: Option<String>,
        what: &str,
        text: String,
    ) -> Result<String, ChangeError> {
        let row = self.plugins.rows.iter().find(|row| row.participant == *name && row.serving);
        let row = row.ok_or_else(|| ChangeError::Retired { plugin: name.clone() })?;
        self.write(PluginWrite {
            paused: vec![(name.clone(), paused)],
            history: vec![self.history_entry(row, what)],
            ..PluginWrite::default()
        })?;
        self.switch()?;
        info!(plugin = %name, "{what}");
        Ok(text)
    }

    /// The deliberate end of a participant: nobody subscribes in its name any more. Its counters and its store stay.
    fn retire(&mut self, name: &Participant, by: &str, reason: &str, force: bool) -> Result<String, ChangeError> {
        const NAMED_MAX: usize = 1_000;
        if let Some((file, _)) = self.plugins.serving.iter().find(|(_, admitted)| admitted.plugin.name() == *name) {
            return Err(ChangeError::FileThere { plugin: name.clone(), file: file.clone() });
        }
        let row = self.plugins.rows.iter().find(|row| row.participant == *name && row.serving);
        let row = row.cloned().ok_or_else(|| ChangeError::RetiredAlready { plugin: name.clone() })?;
        let needing = self.plugins.needed_by(name, &*self.switch.journal, NAMED_MAX)?;
        let many = if needing.len() == NAMED_MAX { "at least " } else { "" };
        let some: Vec<_> = needing.iter().take(5).map(|id| notation::id(id.as_str())).collect();
        let some = some.join(", ");
        if !needing.is_empty() && !force {
            return Err(ChangeError::Needed { count: format!("{many}{}", needing.len()), some });
        }
        let retired = self.history_entry(&row, &format!("retired by {by}: {reason}"));
        self.write(PluginWrite {
            admitted: vec![AdmittedRow { serving: false, ..row }],
            paused: vec![(name.clone(), None)],
            history: vec![retired],
            ..PluginWrite::default()
        })?;
        self.switch()?;
        warn!(plugin = %name, by, reason, "retired");
        let left = match needing.len() {
            0 => String::new(),
            count => {
                format!("; {many}{count} unfinished sagas still wait for it ({some}): cancel them, or bring it back")
            }
        };
        Ok(format!("plugin {name} is retired: it subscribes to nothing any more; its counters and store stay{left}"))
    }

    /// Other values for plugins take effect as a switch of their own; everything else waits for the next start.
    fn reload(&mut self) -> Result<String, ChangeError> {
        let configuration = self.configuration.as_mut().ok_or(ChangeError::NoConfiguration)?;
        let read = configuration.read(&self.plugins.rows).map_err(|source| ChangeError::Configuration { source })?;
        let NewValues { values, changed, unknown, place, notes } = read;
        let notes: String = notes.iter().map(|note| format!("; {note}")).collect();
        if changed.is_empty() {
            return Ok(format!("no values for plugins changed in {place}{notes}"));
        }
        let now = self.settled()?;
        let (before, serving) = (self.plugins.configure(values), self.plugins.serving.clone());
        if let Err(error) = self.apply_configuration(&now) {
            self.plugins.configure(before);
            (self.plugins.serving, self.unfinished) = (serving, None);
            self.plugins.read();
            return Err(match error {
                unchanged @ ChangeError::NotAdmitted { .. } => unchanged,
                other => ChangeError::Unchanged { source: Box::new(other) },
            });
        }
        if let Some(configuration) = &mut self.configuration {
            configuration.applied();
        }
        let names: Vec<String> = changed.into_iter().filter(|name| !unknown.contains(name)).collect();
        let names = if names.is_empty() { "no plugin".to_owned() } else { names.join(", ") };
        info!(plugins = names, "new configuration applied; running calls end on the one before");
        Ok(format!("{names}: new configuration applied{notes}"))
    }

    fn apply_configuration(&mut self, now: &DirectorySnapshot) -> Result<(), ChangeError> {
        let reading = self.plugins.read_as(Ok(now.clone()));
        let refused = self.newly_refused(&reading);
        if !refused.is_empty() {
            return Err(ChangeError::NotAdmitted { refused });
        }
        // Versions that serve from the store follow, too.
        for (file, admitted) in self.plugins.serving.clone() {
            if let Some(again) = self.plugins.readmit(&admitted) {
                self.plugins.serving.insert(file, again);
            }
        }
        self.dissolve(&reading);
        self.report_refused(&reading);
        self.install_anew(self.target(now, &reading)?)
    }

    /// Files that serve and would no longer be admitted.
    fn newly_refused(&self, reading: &Reading) -> Vec<Report> {
        let known = |report: &&Report| self.reported.get(&report.file) != Some(report);
        reading.refused.iter().filter(known).cloned().collect()
    }

    fn history_entry(&self, row: &AdmittedRow, what: &str) -> PluginHistoryEntry {
        row.history_entry(self.at.wall, what)
    }

    fn write(&mut self, write: PluginWrite) -> Result<(), ChangeError> {
        let journal = self.switch.journal.clone();
        journal.change_plugins(journal.identity().epoch, &write)?;
        Ok(self.plugins.refresh(&*journal)?)
    }
}
