//! The keeper step by step: time is passed in, nobody sleeps, and admission reads real files.

#![expect(clippy::unwrap_used, reason = "tests may panic")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use expect_test::expect;
use sagahost_codec::TopicSettings;
use sagahost_journal::Journal;
use sagahost_journal_sqlite::{OpenOptions, SqliteJournal};
use sagahost_manifest::Limits;
use sagahost_processor::{
    Processor,
    letters_kept::LetterBounds,
    read_ahead::ReadAhead,
    schedule::ScheduleBounds,
    stage::BatchBounds,
    step::{Next, Now, Part as _, Steady},
    worker::ChainBounds,
};
use sagahost_saga::topology::Bounds;
use sagahost_sandbox::admission::digest;
use sagahost_serving::{
    Board, Keeper, Order, WatchSettings,
    keeper::{PluginAction, Reach},
    plugins::Started,
    settings::{NewTopics, Values},
};
use sagahost_transport::StartAt;
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_wire::clock::SystemClock;

use super::*;

const APP: &str = "app";
const SETTLE: Duration = Duration::from_millis(100);
const RESCAN: Duration = Duration::from_secs(2);
/// How often the keeper looks while something may be due that no file tells of.
const PROBATION_LOOK: Duration = Duration::from_millis(100);

struct Bench {
    dir: tempfile::TempDir,
    keeper: Keeper,
    processor: Arc<Processor>,
    board: Arc<Board>,
    now: Now,
}

fn settings(dir: &Path) -> Settings {
    Settings {
        app: APP.into(),
        plugins_dir: dir.join("plugins"),
        data_dir: dir.to_owned(),
        strict: false,
        watch: WatchSettings { settle: SETTLE, rescan: RESCAN, ..WatchSettings::default() },
        limits: Limits::default(),
        bounds: Bounds::default(),
        topics: TopicSettings::of_app(APP),
        record_bytes_max: 1_000_000,
        new_topics: NewTopics { create: true, partitions: 1, start: StartAt::Earliest },
        plugin_order: Vec::new(),
        values: Values::default(),
        outside: BTreeSet::new(),
        reached: |_| {},
    }
}

fn processor_settings() -> sagahost_processor::Settings {
    let second = Duration::from_secs(1);
    sagahost_processor::Settings {
        batch: BatchBounds {
            chains_max: 10,
            bytes_max: 1 << 20,
            wait: Duration::ZERO,
            wait_max: Duration::ZERO,
            interval: Duration::ZERO,
            position_wait: second,
            unpublished_max: 2,
        },
        schedule: ScheduleBounds { slots: 1, slow_max: 0, slow_after: Duration::from_millis(20) },
        read_ahead: ReadAhead { events_max: 10, bytes_max: 1 << 20, record_bytes_max: 1_000, queued_bytes_max: 0 },
        chain: ChainBounds { steps_max: 10, bytes_max: 1 << 20, call_bytes_max: 1 << 20 },
        reservation_max: second,
        cache_bytes_max: 1 << 20,
        letters: LetterBounds { letters_max: 100, bytes_max: 1 << 20, retention: Duration::from_secs(60) },
        stall_wait_max: second,
        due_per_second_max: 10,
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = settings(dir.path());
        fs::create_dir(&settings.plugins_dir).unwrap();
        let journal: Arc<dyn Journal> = Arc::new(SqliteJournal::open(dir.path(), APP, OpenOptions::default()).unwrap());
        let transport = Arc::new(EmbeddedTransport::open(dir.path(), APP).unwrap());
        let now = Now { wall: Time(1_000_000), steady: Steady(Duration::from_secs(1000)) };
        let clocks = Clocks::new(Arc::new(SystemClock));
        let services = Services { settings: Default::default(), manifests: Arc::default(), clocks: clocks.clone() };
        let key = Err(KeyError::Off);
        let plugins = plugins(settings, key, clocks, Compiler::Here, Compiling::Awaited, services).unwrap();
        let serving = plugins.serve().unwrap();
        let processor =
            Arc::new(Processor::new(journal, serving, TopicSettings::of_app(APP), processor_settings(), None));
        let board = Arc::<Board>::default();
        let reach =
            Reach { switch: processor.switch(), transport, board: board.clone(), configuration: None, services: None };
        let started = Started {
            looked: plugins.look(),
            refused: Vec::new(),
            compiling: BTreeMap::new(),
            waiting: BTreeSet::new(),
            replaced: BTreeMap::new(),
        };
        let keeper = Keeper::new(plugins, started, reach, now);
        Self { dir, keeper, processor, board, now }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join("plugins").join(name)
    }

    /// Steps at this moment until the keeper waits; for how long.
    fn until_it_waits(&mut self) -> Option<Duration> {
        for _ in 0..100 {
            match self.keeper.step(self.now) {
                Next::Again => {}
                Next::Wait(wait) => return Some(wait.until.unwrap().since(self.now.steady)),
                Next::Ended(ended) => {
                    ended.unwrap();
                    return None;
                }
            }
        }
        panic!("it never waits");
    }

    fn later(&mut self, by: Duration) {
        self.now.steady = self.now.steady.after(by);
        self.now.wall = self.now.wall.after(by);
    }

    fn refused(&self) -> usize {
        self.board.view(&self.processor.stats).refused.len()
    }
}

#[test]
fn a_change_is_applied_when_the_directory_has_stood_still() {
    let mut bench = Bench::new();
    assert_eq!(bench.until_it_waits(), Some(RESCAN), "nothing changed");
    fs::write(bench.file("a.wasm"), "no plugin").unwrap();
    assert_eq!(bench.until_it_waits(), Some(SETTLE / 4), "it is looked at more often while it changes");
    bench.later(SETTLE / 2);
    fs::write(bench.file("b.wasm"), "no plugin either").unwrap();
    bench.until_it_waits();
    bench.later(SETTLE / 2);
    bench.until_it_waits();
    assert_eq!(bench.refused(), 0, "the second file came too late for that");
    bench.later(SETTLE / 2);
    assert_eq!(bench.until_it_waits(), Some(RESCAN));
    assert_eq!(bench.refused(), 2);
}

#[test]
fn the_signal_moves_with_files_and_orders_and_orders_are_answered_in_steps() {
    let mut bench = Bench::new();
    bench.until_it_waits();
    let (board, seen) = (bench.board.clone(), bench.board.changed.seen());
    let resume = |plugin: &str| Order::Plugin(plugin.into(), PluginAction::Resume { by: "ann".to_owned() });
    let answers = [board.order(resume("a")), board.order(Order::ReloadConfig)];
    assert!(board.changed.seen() > seen, "whoever drives it is woken");
    assert!(answers.iter().all(|answer| answer.try_recv().is_err()), "nothing is done before a step");
    assert_eq!(bench.until_it_waits(), Some(PROBATION_LOOK), "what failed may be due again");
    let said = answers.map(|answer| answer.try_recv().unwrap().unwrap_err().to_string());
    assert!(said[0].starts_with("no plugin a was ever admitted here"), "{said:?}");
    assert!(said[1].starts_with("this host runs without a configuration file"), "{said:?}");
}

#[test]
fn it_ends_when_the_host_stops_reading() {
    let mut bench = Bench::new();
    bench.until_it_waits();
    bench.processor.stop_reading();
    assert_eq!(bench.until_it_waits(), None);
}

#[test]
fn a_directory_is_looked_at_whole() {
    let dir = tempfile::tempdir().unwrap();
    let read = |path: &Path| {
        let said = match directory::snapshot(path) {
            Err(report) => report.to_string(),
            Ok(files) => {
                let read = |(file, look): (&PathBuf, &Look)| match directory::read(file, look, 4) {
                    Ok(bytes) => format!("{}: {}", file.display(), String::from_utf8_lossy(&bytes)),
                    Err(report) => report.to_string(),
                };
                files.iter().map(read).collect::<Vec<_>>().join("\n")
            }
        };
        said.replace(&dir.path().display().to_string(), "DIR")
    };
    expect![[r#"
        DIR/absent is not admitted: 1 fault
          - it does not exist
            where: the plugin directory
            do:    make it and copy plugins (*.wasm) there"#]]
    .assert_eq(&read(&dir.path().join("absent")));
    assert_eq!(read(dir.path()), "");
    for name in ["b.wasm", "a.wasm", ".upload.wasm", "readme.txt"] {
        fs::write(dir.path().join(name), "code").unwrap();
    }
    fs::write(dir.path().join("c.wasm"), "much code").unwrap();
    fs::create_dir(dir.path().join("d.wasm")).unwrap();
    expect![[r#"
        DIR/a.wasm: code
        DIR/b.wasm: code
        DIR/c.wasm is not admitted: 1 fault
          - it has 9 bytes, 4 are allowed
            where: the file
            do:    raise `component-bytes-max` in `[limits]`
        DIR/d.wasm is not admitted: 1 fault
          - it is a directory
            where: the file
            do:    put the plugin file itself there"#]]
    .assert_eq(&read(dir.path()));
    let before = directory::snapshot(dir.path()).unwrap();
    fs::write(dir.path().join("a.wasm"), "coda").unwrap();
    let report = directory::read(&dir.path().join("a.wasm"), &before[&dir.path().join("a.wasm")], 4).unwrap_err();
    assert_eq!(report.faults[0].what, "it changed while it was read");
}

/// Between the look and the reading the name may be given to anything.
#[test]
fn what_is_read_is_what_was_looked_at() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.wasm");
    let looked_at = || {
        let _ = fs::remove_file(&file);
        fs::write(&file, "code").unwrap();
        directory::snapshot(dir.path()).unwrap()[&file].clone()
    };
    let refusal = |before: &Look| {
        let (sender, answer) = std::sync::mpsc::channel();
        let (file, before) = (file.clone(), before.clone());
        std::thread::spawn(move || sender.send(directory::read(&file, &before, 1 << 20)));
        let report = answer.recv_timeout(Duration::from_secs(60)).expect("it waits for whoever writes into the pipe");
        report.unwrap_err().faults[0].what.clone()
    };
    let changed = "it changed while it was read";

    let before = looked_at();
    fs::remove_file(&file).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&file).status().unwrap().success());
    assert_eq!(refusal(&before), changed, "a pipe");

    let before = looked_at();
    fs::File::options().append(true).open(&file).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(refusal(&before), changed, "a file that grew far beyond what may be read");

    let before = looked_at();
    let other = dir.path().join("other");
    fs::write(&other, "coda").unwrap();
    fs::rename(&other, &file).unwrap();
    assert_eq!(refusal(&before), changed, "another file of the same size");

    looked_at();
    fs::rename(&file, &other).unwrap();
    std::os::unix::fs::symlink(&other, &file).unwrap();
    let before = directory::snapshot(dir.path()).unwrap()[&file].clone();
    assert_eq!(&*directory::read(&file, &before, 4).unwrap(), b"code", "a link is followed");
    assert!(directory::is_of(&file, &digest(b"code"), 4) && !directory::is_of(&file, &digest(b"code"), 3));
}
