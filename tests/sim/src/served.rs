//! What serves, against what people put into the plugin directory. Invariant: it knows the files that were written, the
//! calls that trapped and the code that takes a call, and nothing of how a host decides.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use sagahost_journal::{AdmittedRow, Journal};
use sagahost_processor::{Processor, Serving, code::Pick, step::Steady};
use sagahost_saga::{
    event::{Attributes, Event},
    id::{Direction, EventKey, Kind, Participant, SagaId, Time},
    outcome::{Call, Runs},
};

use crate::{
    files::{Behaves, Content, Files, Written},
    plan::{Fault, Plan},
    world::{self, HostNo, world},
};

/// Failures of a version on probation, and how long a host may take to see them.
const FAILURES: usize = 4;
const PATIENCE: Duration = Duration::from_secs(15);

/// Files that were written at once, as versions that never were there before.
pub struct Deployment {
    pub contents: Vec<Content>,
}

/// A version that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Serves {
    digest: Arc<str>,
    since: Steady,
    /// Of its file, where that says the same.
    stamp: Option<u64>,
}

/// What served in the newest host when it was looked at last.
#[derive(Default)]
pub struct Served {
    seen: Option<(HostNo, Arc<Serving>)>,
    directory: u64,
    serves: BTreeMap<Participant, Serves>,
    /// Whoever was there once.
    participants: BTreeSet<Participant>,
    /// Versions that a host took out of service while their files stayed.
    taken_back: BTreeSet<Arc<str>>,
    newest: Option<Deployment>,
}

impl Served {
    pub fn deployed(&mut self, deployment: Option<Deployment>) {
        self.newest = deployment;
    }

    /// Somebody lets versions of this plugin out of quarantine.
    pub fn let_out(&mut self, name: &Participant) {
        self.taken_back.retain(|digest| Content::of_digest(digest).is_some_and(|content| content.name != *name));
    }

    /// Was it there once, as far as this journal is concerned? What comes before that is not for it.
    pub fn knows(&self, name: &Participant) -> bool {
        self.participants.contains(name)
    }

    pub fn serves(&self, name: &Participant) -> Option<&Arc<str>> {
        self.serves.get(name).map(|serves| &serves.digest)
    }

    /// What is wrong with what serves from now on; nothing, where that is what served before.
    pub fn look(&mut self, host: HostNo, processor: &Processor, journal: &dyn Journal, files: &Files) -> Vec<String> {
        let serving = processor.serving.load();
        if self.seen.as_ref().is_some_and(|(seen, known)| *seen == host && Arc::ptr_eq(known, &serving)) {
            return Vec::new();
        }
        let directory = world(|world| world.directory);
        if std::mem::replace(&mut self.directory, directory) != directory {
            // Another journal, which may know less.
            self.participants.clear();
            self.taken_back.clear();
        }
        let rows = journal.admitted().expect("the journal can be read");
        let now = serves(&serving, files, world::now().steady, &self.serves);
        let mut faults = self.vanished(&serving);
        let new = now.iter().filter(|(name, serves)| self.serves(name) != Some(&serves.digest));
        faults.extend(new.filter_map(|(name, serves)| self.wrong(name, &serves.digest, &rows)));
        // Another host may serve the version before while it compiles a file; what came into quarantine is in the journal.
        if self.seen.as_ref().is_some_and(|(seen, _)| *seen == host) {
            self.take_note(&now, files);
        }
        faults.extend(self.in_parts(&now, &rows, files));
        self.seen = Some((host, serving.clone()));
        self.serves = now;
        faults.into_iter().map(|fault| format!("host {host}: {fault}")).collect()
    }

    fn vanished(&mut self, serving: &Serving) -> Vec<String> {
        let there: BTreeSet<Participant> = serving.topology.members.iter().map(|member| member.name.clone()).collect();
        let gone = self.participants.difference(&there).map(|name| format!("{name} is no participant any more"));
        let gone = gone.collect();
        self.participants.extend(there);
        gone
    }

    /// A version that did not serve until now.
    fn wrong(&self, name: &Participant, digest: &Arc<str>, rows: &[AdmittedRow]) -> Option<String> {
        let row = rows.iter().find(|row| row.participant == *name && row.digest == *digest);
        match row {
            _ if self.taken_back.contains(digest) => Some(format!("{digest} was taken back, and serves again")),
            None => Some(format!("{digest} serves, and the journal does not know it")),
            Some(AdmittedRow { quarantined: Some(why), .. }) => Some(format!("{digest} serves in quarantine: {why}")),
            Some(_) => None,
        }
    }

    fn take_note(&mut self, now: &BTreeMap<Participant, Serves>, files: &Files) {
        for (name, before) in &self.serves {
            let stays = files.written(name).is_some_and(|written| Some(written.stamp) == before.stamp);
            if stays && now.get(name).is_some_and(|serves| serves.digest != before.digest) {
                self.taken_back.insert(before.digest.clone());
            }
        }
    }

    /// What came together serves together, or not at all.
    fn in_parts(&self, now: &BTreeMap<Participant, Serves>, rows: &[AdmittedRow], files: &Files) -> Option<String> {
        let Deployment { contents } = self.newest.as_ref()?;
        let there = |content: &Content| files.written(&content.name).is_some_and(|written| written.content == *content);
        let out = |content: &Content| {
            let digest = content.digest();
            rows.iter().any(|row| row.digest == digest && row.quarantined.is_some())
        };
        // What served before may serve on while the directory cannot be read, whoever was let out of quarantine meanwhile.
        let changes =
            |content: &Content| self.serves(&content.name) != now.get(&content.name).map(|serves| &serves.digest);
        if !contents.iter().all(there) || contents.iter().any(out) || !contents.iter().any(changes) {
            return None;
        }
        let serve = |content: &&Content| now.get(&content.name).is_some_and(|serves| serves.digest == content.digest());
        let (serving, waiting): (Vec<&Content>, Vec<&Content>) = contents.iter().partition(serve);
        let parts = !serving.is_empty() && !waiting.is_empty();
        parts.then(|| format!("{serving:?} came together with {waiting:?}, and serve without them"))
    }

    /// A version that traps in each call, took another's place and has done so often enough, is taken back in time.
    pub fn endured(&self, plan: &Plan, host: HostNo) -> Option<String> {
        // What makes a probation shorter than it is here, leaves nothing to go back to, or takes the host's time to see it.
        let shortening =
            [Fault::ClockForward, Fault::ClockBack, Fault::JournalRestored, Fault::ArchiveFails, Fault::Asleep];
        if shortening.iter().any(|fault| plan.has(*fault)) {
            return None;
        }
        let now = world::now().steady;
        self.serves.values().find_map(|Serves { digest, since, .. }| {
            let calls = world(|world| world.broke.get(&(host, digest.clone())).cloned())?;
            // What it is compared with must not be as bad.
            let name = Content::of_digest(digest)?.name;
            let others = |(other, broke): &(HostNo, Arc<str>)| {
                *other == host
                    && broke != digest
                    && Content::of_digest(broke).is_some_and(|content| content.name == name)
            };
            if world(|world| world.broke.keys().any(others)) {
                return None;
            }
            let end = since.after(plan.probation.saturating_sub(Duration::from_secs(1)));
            // It may have served before, and been let out of quarantine.
            let last = calls.into_iter().filter(|at| (*since..end).contains(at)).nth(FAILURES - 1)?;
            let late = now.since(last) > PATIENCE;
            late.then(|| format!("host {host}: {digest} trapped on probation, and serves on"))
        })
    }

    /// In the end the files serve, each as it is; but a version that was taken back does not.
    pub fn wrong_in_the_end(&self, journal: &dyn Journal, files: &Files) -> Vec<String> {
        let rows = journal.admitted().expect("the journal can be read");
        let wrong = |Written { content, .. }: &Written| {
            let (name, digest) = (&content.name, content.digest());
            let row = |digest: &str| rows.iter().find(|row| row.participant == *name && *row.digest == *digest);
            let serves = self.serves(name);
            let out = content.behaves == Behaves::NotAtAll
                || row(&digest).is_some_and(|row| row.quarantined.is_some())
                || self.taken_back.contains(&digest);
            let right = match serves {
                None => false,
                Some(serves) => (*serves != digest) == out && row(serves).is_some_and(|row| row.serving),
            };
            (!right).then(|| format!("the file is {digest}, and {serves:?} serves"))
        };
        files.all().iter().filter_map(wrong).collect()
    }
}

/// Versions that take calls.
fn serves(
    serving: &Serving,
    files: &Files,
    now: Steady,
    before: &BTreeMap<Participant, Serves>,
) -> BTreeMap<Participant, Serves> {
    let of = |name: &Participant| {
        let Pick::Plugin(code) = serving.code.pick(&call(name)) else { return None };
        let digest = code.digest().clone();
        let since = before.get(name).filter(|before| before.digest == digest).map_or(now, |before| before.since);
        let written = files.written(name).filter(|written| written.content.digest() == digest);
        Some((name.clone(), Serves { digest, since, stamp: written.map(|written| written.stamp) }))
    };
    serving.topology.members.iter().filter_map(|member| of(&member.name)).collect()
}

/// Never made: to see who would take it.
fn call(participant: &Participant) -> Call {
    Call {
        participant: participant.clone(),
        step_id: String::new(),
        direction: Direction::Forward,
        ordinal: 0,
        attempt: 1,
        idempotency_key: String::new(),
        event: Event {
            key: EventKey::new("/simulation", "none"),
            saga: SagaId::new("none"),
            kind: Kind::new("None"),
            time: Time(0),
            content_type: "".into(),
            data: Arc::from([]),
            attributes: Attributes::default(),
            hops: 0,
            origin: None,
            record_key: None,
        },
        state: None,
        undo: None,
        now: Time(0),
        runs: Runs::Here,
        send: 0,
    }
}
