//! What people do with plugins in a run: files that come, go, are broken or refused, and orders. Invariant: in the end each
//! plugin has a file that is admitted.

use std::{collections::BTreeSet, time::Duration};

use sagahost_saga::id::Participant;
use sagahost_serving::{Order, keeper::PluginAction, view::PluginLine};

use super::{LEDGER, Run};
use crate::{
    files::{Behaves, Content, Written},
    host::Begun,
    plan::Fault,
    served::Deployment,
    world::{self, choose, happens, world},
};

impl Run {
    /// People change files, or leave orders about plugins.
    pub(super) fn change_plugins(&mut self) {
        if !self.all_are_known() {
            return;
        }
        if happens(Fault::Switch) {
            self.switch();
        }
        if happens(Fault::RolledBack) {
            self.number = self.number.saturating_sub(1);
            self.deploy(self.versions(&BTreeSet::new()), &[]);
        }
        if happens(Fault::BrokenVersion) {
            self.replace_one(16, Behaves::Badly);
        }
        if happens(Fault::RefusedFile) {
            self.replace_one(17, Behaves::NotAtAll);
        }
        let name = || self.one_of_them(18);
        let (by, reason) = ("ann".to_owned(), "simulated".to_owned());
        if happens(Fault::PluginPaused) {
            self.order_about(name(), PluginAction::Pause { by: by.clone(), reason: reason.clone() });
        }
        if happens(Fault::TakenBackByOrder) {
            self.order_about(name(), PluginAction::Rollback { by, reason });
        }
    }

    /// Each was there once. Whoever comes later sees nothing of what was before, and orders would never end.
    pub(super) fn all_are_known(&self) -> bool {
        self.place.natives.names().all(|name| self.served.knows(name) || !self.ledger && name.as_str() == LEDGER)
    }

    fn order_about(&self, name: Participant, action: PluginAction) {
        if let Some(Begun { board, .. }) = self.begun() {
            world(|world| world.note(|| format!("a person orders {action:?} of {name}")));
            drop(board.order(Order::Plugin(name, action)));
        }
    }

    fn one_of_them(&self, stream: u64) -> Participant {
        let mut names = self.place.natives.names();
        let at = choose(names.len(), stream);
        names.nth(at).expect("there are as many").clone()
    }

    /// The version of today, of all that are not `away`.
    fn versions(&self, away: &BTreeSet<Participant>) -> Vec<Content> {
        let there = |name: &Participant| (self.ledger || name.as_str() != LEDGER) && !away.contains(name);
        let names = self.place.natives.names().filter(|name| there(name));
        names.map(|name| Content { name: name.clone(), number: self.number, behaves: Behaves::Well }).collect()
    }

    /// One plugin is away, or all are there; and all are another version.
    fn switch(&mut self) {
        let mut names = self.place.natives.names();
        let at = choose(2 * names.len(), 4);
        let away: BTreeSet<Participant> = names.nth(at).cloned().into_iter().collect();
        self.number = self.next_number();
        self.ledger = true;
        self.deploy(self.versions(&away), &away.into_iter().collect::<Vec<_>>());
    }

    /// None had it before.
    fn next_number(&mut self) -> u64 {
        self.newest_number += 1;
        self.newest_number
    }

    /// One plugin is another version, and sometimes a good one of another plugin comes with it.
    fn replace_one(&mut self, stream: u64, behaves: Behaves) {
        let name = self.one_of_them(stream);
        let there = |name: &Participant| {
            self.place.files.written(name).filter(|written| written.content.behaves == Behaves::Well)
        };
        if there(&name).is_none() {
            return;
        }
        let other = self.one_of_them(stream + 2);
        let with = (other != name && there(&other).is_some() && choose(2, stream + 4) == 0).then_some(other);
        let number = self.next_number();
        let other = with.map(|name| Content { name, number, behaves: Behaves::Well });
        self.deploy(other.into_iter().chain([Content { name, number, behaves }]).collect(), &[]);
    }

    /// Files come, at once or not, and go.
    fn deploy(&mut self, mut contents: Vec<Content>, removed: &[Participant]) {
        self.later = None;
        if let Some(host) = self.hosts.last().map(|host| host.host).filter(|_| happens(Fault::StoppedForFiles)) {
            world::kill(host);
        }
        if contents.len() > 1 && happens(Fault::FilesApart) {
            // Within the time in which they belong together, or not.
            let pause = Duration::from_millis([20, 60, 95, 300][choose(4, 23)]);
            let rest = contents.split_off(contents.len() / 2);
            self.later = Some((world::now().steady.after(pause), rest));
        }
        let fresh = contents.iter().all(|content| content.number == self.newest_number);
        let together = fresh && self.later.is_none();
        self.served.deployed(together.then(|| Deployment { contents: contents.clone() }));
        self.write(contents, removed);
    }

    pub(super) fn write(&self, contents: Vec<Content>, removed: &[Participant]) {
        world(|world| world.note(|| format!("files: {contents:?}, without {removed:?}")));
        self.place.files.change(contents, removed);
        if !happens(Fault::WatchSilent) {
            self.place.files.tell();
        }
    }

    /// What serves in the newest host from now on.
    pub(super) fn watch(&mut self) {
        let Some(host) = self.hosts.last().filter(|host| world(|world| world.is_alive(host.host))) else { return };
        let Some(Begun { processor, journal, .. }) = host.begun() else { return };
        self.unexpected.extend(self.served.look(host.host, &processor, &*journal, &self.place.files));
        if self.asked.ledger_joined == u64::MAX && self.served.serves(&Participant::new(LEDGER)).is_some() {
            // What is in the open batch is staged already.
            self.asked.ledger_joined = processor.stage.last_sealed().0 + 1;
        }
    }

    /// Every file is a good one, of a version that is new.
    pub(super) fn mend_plugins(&mut self) {
        // A version that is broken is left to the host as long as that watches it.
        let on_probation: BTreeSet<String> = self.lines("probation").into_iter().map(|line| line.digest).collect();
        let broken = |content: &Content| {
            let left = |written: &Written| {
                written.content.behaves == Behaves::Badly && on_probation.contains(&*written.content.digest())
            };
            self.place.files.written(&content.name).is_some_and(|written| left(&written))
        };
        self.number = self.newest_number + 1;
        self.newest_number = self.number;
        let contents = self.versions(&BTreeSet::new()).into_iter().filter(|content| !broken(content)).collect();
        self.deploy(contents, &[]);
    }

    /// Of plugins in this state, as operators see them.
    fn lines(&self, state: &str) -> Vec<PluginLine> {
        let Some(Begun { processor, board, .. }) = self.begun() else { return Vec::new() };
        board.view(&processor.stats).plugins.into_iter().filter(|line| line.state == state).collect()
    }

    /// What is paused goes on, what is in quarantine is let out now and then, and what stays broken is replaced.
    pub(super) fn look_after_plugins(&mut self) {
        for line in self.lines("paused") {
            if line.note.is_some_and(|note| note.starts_with("paused by")) {
                let by = "ann".to_owned();
                self.order_about(Participant::new(&line.name), PluginAction::Resume { by });
            }
        }
        if let Some(host) = self.hosts.last() {
            self.unexpected.extend(self.served.endured(&self.plan, host.host));
        }
        let names: Vec<Participant> = self.place.natives.names().cloned().collect();
        for name in names {
            let Some(written) = self.place.files.written(&name) else { continue };
            let digest = written.content.digest();
            let serves = self.served.serves(&name) == Some(&digest);
            if !serves && written.content.behaves != Behaves::NotAtAll && happens(Fault::LetOutByOrder) {
                self.served.let_out(&name);
                self.order_about(name.clone(), PluginAction::Admit { by: "ann".to_owned() });
            }
            let watched = self.lines("probation").iter().any(|line| line.digest == *digest);
            if self.calm_since.is_some() && written.content.behaves == Behaves::Badly && serves && !watched {
                let number = self.next_number();
                self.deploy(vec![Content { name, number, behaves: Behaves::Well }], &[]);
            }
        }
    }

    pub(super) fn wrong_in_the_end(&self) -> Vec<String> {
        let Some(Begun { journal, .. }) = self.begun() else { return vec!["no host runs".to_owned()] };
        self.served.wrong_in_the_end(&*journal, &self.place.files)
    }
}
