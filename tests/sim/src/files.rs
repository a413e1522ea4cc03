//! The plugin directory and the data directory, in memory, with native plugins behind the boundary of admission. Invariant:
//! both outlive every process; what a file holds says which plugin it is, which version, and how that behaves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use sagahost_manifest::{Fault, Manifest, Report};
use sagahost_processor::step::{Next, Now, Part, Signal, Steady, Wait};
use sagahost_saga::id::{Participant, Time};
use sagahost_serving::{
    admission::{
        Admission, Admitted, Archive, ArchiveError, Archived, Compiling, DirectorySnapshot, Look, Plugin,
        PluginSettings, Verdict, Watch,
    },
    view::PluginsView,
};
use sagahost_testkit::Code as _;

use crate::{
    code::{Natives, Version},
    plan,
    world::{self, HostNo, happens, inside, world},
};

pub const DIR: &str = "plugins";
/// How long the directory cannot be read.
const UNREADABLE: Duration = Duration::from_secs(3);

/// How a version behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaves {
    Well,
    /// It is admitted, and traps in each call.
    Badly,
    /// It is not admitted.
    NotAtAll,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Content {
    pub name: Participant,
    pub number: u64,
    pub behaves: Behaves,
}

impl Content {
    pub fn digest(&self) -> Arc<str> {
        let behaves = match self.behaves {
            Behaves::Well => "good",
            Behaves::Badly => "broken",
            Behaves::NotAtAll => "refused",
        };
        format!("{}-{}-{behaves}", self.name, self.number).into()
    }

    pub fn of_digest(digest: &str) -> Option<Self> {
        let mut words = digest.split('-');
        let (name, number) = (words.next()?, words.next()?.parse().ok()?);
        let behaves = match words.next()? {
            "good" => Behaves::Well,
            "broken" => Behaves::Badly,
            "refused" => Behaves::NotAtAll,
            _ => return None,
        };
        Some(Self { name: Participant::new(name), number, behaves })
    }
}

/// A file as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub content: Content,
    /// No other writing has this number.
    pub stamp: u64,
}

#[derive(Default)]
pub struct Files(Mutex<State>);

#[derive(Default)]
struct State {
    directory: BTreeMap<PathBuf, Written>,
    stamp: u64,
    unreadable_until: Option<Steady>,
    watches: Vec<Weak<Signal>>,
    /// Versions by digest, the newest last.
    kept: Vec<(Arc<str>, Time)>,
}

pub fn file_of(name: &Participant) -> PathBuf {
    Path::new(DIR).join(format!("{name}.wasm"))
}

impl Files {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics with it")
    }

    /// Files are written and removed, at once.
    pub fn change(&self, written: Vec<Content>, removed: &[Participant]) {
        let mut state = self.state();
        for content in written {
            state.stamp += 1;
            let stamp = state.stamp;
            state.directory.insert(file_of(&content.name), Written { content, stamp });
        }
        removed.iter().for_each(|name| drop(state.directory.remove(&file_of(name))));
    }

    /// Word of a change, to whoever watches.
    pub fn tell(&self) {
        let mut state = self.state();
        state.watches.retain(|watch| watch.upgrade().inspect(|signal| signal.raise_all()).is_some());
    }

    pub fn written(&self, name: &Participant) -> Option<Written> {
        self.state().directory.get(&file_of(name)).cloned()
    }

    pub fn all(&self) -> Vec<Written> {
        self.state().directory.values().cloned().collect()
    }

    /// Whatever hid it is over.
    pub fn uncover(&self) {
        self.state().unreadable_until = None;
    }
}

/// What one host sees of it.
pub struct Seen {
    pub files: Arc<Files>,
    pub natives: Natives,
    pub host: HostNo,
    pub compilers: Arc<Compilers>,
}

/// What one host has compiled, and what it is at.
#[derive(Default)]
pub struct Compilers {
    state: Mutex<Code>,
    /// Raised when there is something to compile.
    asked: Arc<Signal>,
}

#[derive(Default)]
struct Code {
    compiled: BTreeSet<Arc<str>>,
    /// When each is done, and when it began.
    under_way: BTreeMap<Arc<str>, (Steady, Time)>,
    /// Raised when something is compiled.
    changed: Option<Arc<Signal>>,
}

impl Compilers {
    fn state(&self) -> MutexGuard<'_, Code> {
        self.state.lock().expect("nobody panics with it")
    }

    pub fn tell(&self, changed: Arc<Signal>) {
        self.state().changed = Some(changed);
    }

    /// Since when it is under way; None: it is done.
    fn compile(&self, digest: &Arc<str>) -> Option<Time> {
        let under_way = self.state().under_way.get(digest).copied();
        if let Some((_, since)) = under_way {
            return Some(since);
        }
        if self.state().compiled.contains(digest) {
            return None;
        }
        // That is no fault, so it takes its time to the end of a run.
        let slow_at_times = world(|world| world.calm && world.plan.has(plan::Fault::CompilesSlowly));
        let slowly = happens(plan::Fault::CompilesSlowly) || slow_at_times && world::choose(2, 20) == 0;
        let now = world::now();
        let takes = Duration::from_millis([10, 300, 2_000, 8_000][world::choose(4, 19)]);
        let mut state = self.state();
        if !slowly {
            state.compiled.insert(digest.clone());
            return None;
        }
        state.under_way.insert(digest.clone(), (now.steady.after(takes), now.wall));
        self.asked.raise();
        Some(now.wall)
    }
}

/// The process that compiles for one host.
pub struct Compiler(pub Arc<Compilers>);

impl Part for Compiler {
    fn step(&mut self, now: Now) -> Next {
        let seen = self.0.asked.seen();
        let mut state = self.0.state();
        let done: Vec<Arc<str>> =
            state.under_way.iter().filter(|(_, (at, _))| *at <= now.steady).map(|(digest, _)| digest.clone()).collect();
        for digest in done {
            state.under_way.remove(&digest);
            state.compiled.insert(digest);
            state.changed.iter().for_each(|changed| changed.raise());
        }
        let until = state.under_way.values().map(|(at, _)| *at).min();
        Next::Wait(Wait { signal: self.0.asked.clone(), seen, until })
    }
}

impl Seen {
    fn admitted(&self, content: &Content, file: &Path) -> Result<Admitted, Report> {
        let digest = content.digest();
        let native = self.natives.0.get(&content.name).expect("files are of plugins that there are");
        if content.behaves == Behaves::NotAtAll {
            let fault = Fault::new(format!("{digest} is refused"), "the file", "write another one");
            return Err(Report { plugin: Some(content.name.to_string()), ..Report::of(file, fault) });
        }
        let manifest = Arc::new(manifest(native.manifest(), content.number));
        let code = Version::new(native.clone(), digest.clone(), content.behaves == Behaves::Badly, self.host);
        let plugin = Arc::new(Plugin { manifest, code: Arc::new(code) });
        Ok(Admitted { plugin, file: file.to_owned(), bytes: digest.as_bytes().into() })
    }

    /// No other part takes a step here: whoever loads an older version for a call keeps the others from loading it too.
    fn fails(&self) -> Result<(), ArchiveError> {
        world::alive(self.host);
        match happens(plan::Fault::ArchiveFails) {
            true => Err(ArchiveError::Failed { source: "simulated".into() }),
            false => Ok(()),
        }
    }
}

fn manifest(of: &Manifest, number: u64) -> Manifest {
    Manifest { version: format!("{number}.0.0"), ..of.clone() }
}

fn look(written: &Written) -> Look {
    Look::File { device: 0, inode: written.stamp, bytes: 0, modified_ns: 0, changed_ns: 0 }
}

/// The board of a process that has ended is gone, and its signal with it.
struct Watched;

impl Watch for Watched {
    fn is_elsewhere(&self) -> bool {
        false
    }
}

impl Admission for Seen {
    fn look(&self) -> Result<DirectorySnapshot, Report> {
        inside(self.host);
        let now = world::now().steady;
        if happens(plan::Fault::DirectoryUnreadable) {
            self.files.state().unreadable_until = Some(now.after(UNREADABLE));
        }
        let state = self.files.state();
        if state.unreadable_until.is_some_and(|until| until > now) {
            let fault = Fault::new("it cannot be read: simulated", "the plugin directory", "wait");
            return Err(Report::of(Path::new(DIR), fault));
        }
        Ok(state.directory.iter().map(|(file, written)| (file.clone(), look(written))).collect())
    }

    fn watch(&self, changed: Arc<Signal>) -> Box<dyn Watch> {
        self.files.state().watches.push(Arc::downgrade(&changed));
        self.compilers.tell(changed);
        Box::new(Watched)
    }

    fn is_of(&self, file: &Path, digest: &str) -> bool {
        inside(self.host);
        self.files.state().directory.get(file).is_some_and(|written| *written.content.digest() == *digest)
    }

    fn is_there(&self, file: &Path) -> bool {
        inside(self.host);
        self.files.state().directory.contains_key(file)
    }

    fn admit(&self, file: &Path, before: &Look, _: &PluginSettings) -> Verdict {
        inside(self.host);
        let written = self.files.state().directory.get(file).cloned();
        let Some(Written { content, .. }) = written.filter(|written| look(written) == *before) else {
            return Verdict::Refused(Report::of(file, Fault::new("it changed while it was read", "the file", "wait")));
        };
        let digest = content.digest();
        if let Some(since) = self.compilers.compile(&digest) {
            let manifest = Some(Arc::new(manifest(self.natives.0[&content.name].manifest(), content.number)));
            return Verdict::Compiling(Compiling { digest, manifest, since });
        }
        self.admitted(&content, file).map_or_else(Verdict::Refused, Verdict::Admitted)
    }

    fn is_compiling(&self, digest: &str) -> bool {
        self.compilers.state().under_way.contains_key(digest)
    }

    fn admit_stored(&self, bytes: Arc<[u8]>, file: &Path, _: &PluginSettings) -> Result<Admitted, Report> {
        world::alive(self.host);
        self.admitted(&content(&bytes), file)
    }

    fn forget_compiled(&self, _: &dyn Fn(&str) -> bool, _: Time) -> io::Result<usize> {
        Ok(0)
    }
}

fn content(bytes: &[u8]) -> Content {
    let digest = std::str::from_utf8(bytes).ok();
    digest.and_then(Content::of_digest).expect("bytes are those of a version")
}

impl Archive for Seen {
    fn put(&self, bytes: &[u8]) -> Result<(), ArchiveError> {
        inside(self.host);
        self.fails()?;
        let digest = content(bytes).digest();
        let mut state = self.files.state();
        state.kept.retain(|(kept, _)| *kept != digest);
        state.kept.push((digest, world::now().wall));
        Ok(())
    }

    fn get(&self, digest: &str) -> Result<Option<Arc<[u8]>>, ArchiveError> {
        self.fails()?;
        Ok(self.has(digest).then(|| digest.as_bytes().into()))
    }

    fn has(&self, digest: &str) -> bool {
        self.files.state().kept.iter().any(|(kept, _)| **kept == *digest)
    }

    fn list(&self) -> Result<Vec<Archived>, ArchiveError> {
        self.fails()?;
        let state = self.files.state();
        let archived = state.kept.iter().rev().filter_map(|(digest, _)| {
            let content = Content::of_digest(digest)?;
            let manifest = manifest(self.natives.0.get(&content.name)?.manifest(), content.number);
            Some(Archived { digest: digest.clone(), manifest, file: PathBuf::from(&**digest) })
        });
        Ok(archived.collect())
    }

    fn retain(&self, needed: &BTreeSet<Arc<str>>, since: Time) -> Result<usize, ArchiveError> {
        inside(self.host);
        self.fails()?;
        let mut state = self.files.state();
        let before = state.kept.len();
        state.kept.retain(|(digest, at)| needed.contains(digest) || *at >= since);
        Ok(before - state.kept.len())
    }

    fn write_listing(&self, _: &PluginsView) -> io::Result<()> {
        Ok(())
    }
}
