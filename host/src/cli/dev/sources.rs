//! Builds crates when their sources change. Invariant: what is there is what was built last, and a build that fails
//! changes nothing in the plugin directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use sagahost_sandbox::crate_build::{self, Built, Request};

/// How often the sources are looked at. A few dozen files: cheaper than notifications, and nothing gets lost.
const LOOK: Duration = Duration::from_millis(200);
/// An editor writes several files, and some of them twice: a build begins when they have stood still for so long.
const SETTLE: Duration = Duration::from_millis(100);
/// A crate has fewer; a directory that holds more is not a crate's.
const FILES_MAX: usize = 20_000;

/// What the builder tells.
#[derive(Debug)]
pub enum News {
    /// A line for people.
    Progress(String),
    Built(Vec<Built>),
    /// What cargo said; what served before serves on.
    Failed(String),
}

pub struct Builder {
    pub news: Receiver<News>,
    thread: JoinHandle<()>,
}

impl Builder {
    /// Builds at once, and again at each change until `stop`.
    pub fn start(crates: Vec<PathBuf>, out: PathBuf, stop: Arc<AtomicBool>) -> std::io::Result<Self> {
        const NEWS_MAX: usize = 1_000;
        let (sender, news) = bounded(NEWS_MAX);
        let request = Request { crates, out, ..Request::default() };
        let thread = thread::Builder::new().name("builder".to_owned()).spawn(move || run(&request, &sender, &stop))?;
        Ok(Self { news, thread })
    }

    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }
}

fn run(request: &Request, news: &Sender<News>, stop: &AtomicBool) {
    let mut built: Option<Looks> = None;
    while !stop.load(Ordering::Relaxed) {
        let now = settled(&request.crates);
        if built.as_ref() != Some(&now) {
            // Who does not listen any more is about to end.
            let mut tell = |line: &str| drop(news.send(News::Progress(line.to_owned())));
            let told = match crate_build::build(request, &mut tell) {
                Ok(built) => News::Built(built),
                Err(error) => News::Failed(error.to_string()),
            };
            let _ = news.send(told);
            // What changed meanwhile differs from this, and is built next.
            built = Some(now);
        }
        thread::sleep(LOOK);
    }
}

/// What files are from outside.
type Looks = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

fn settled(crates: &[PathBuf]) -> Looks {
    let mut seen = look(crates);
    loop {
        thread::sleep(SETTLE);
        let now = look(crates);
        if now == seen {
            return seen;
        }
        seen = now;
    }
}

fn look(crates: &[PathBuf]) -> Looks {
    let mut looks = Looks::new();
    for dir in crates {
        look_into(dir, &mut looks);
    }
    looks
}

/// All files but those that a build makes and those that are hidden.
fn look_into(dir: &Path, looks: &mut Looks) {
    for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || looks.len() >= FILES_MAX {
            continue;
        }
        let path = entry.path();
        match entry.metadata() {
            Ok(metadata) if metadata.is_dir() && name == "target" => {}
            Ok(metadata) if metadata.is_dir() => look_into(&path, looks),
            Ok(metadata) if path.extension().is_none_or(|extension| extension != "wasm") => {
                looks.insert(path, (metadata.len(), metadata.modified().ok()));
            }
            Ok(_) | Err(_) => {}
        }
    }
}
