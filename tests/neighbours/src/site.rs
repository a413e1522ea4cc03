//! A host process on embedded topics, in a directory of its own. Invariant: no process outlives its site.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Seek as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use sagahost_demo::process::{self, Host};
use sagahost_transport::{Assignment, Polled, Transport, waiting::Waiting};
use sagahost_transport_embedded::EmbeddedTransport;
use sagahost_wire::{Partition, Record};
use tempfile::TempDir;

/// Of each topic.
const PARTITIONS: i32 = 4;

/// What a case runs on.
pub struct Bench<'b> {
    pub host: &'b Path,
    pub plugins: &'b Path,
    pub away_minutes: u32,
}

pub struct Site {
    dir: TempDir,
    topics: EmbeddedTransport,
    host: Host,
}

impl Site {
    /// `config`: lines of the configuration beyond name and directories.
    pub fn new(bench: &Bench<'_>, plugins: &[&str], config: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let into = dir.path().join("plugins");
        fs::create_dir(&into)?;
        for plugin in plugins {
            let file = format!("{plugin}.wasm");
            fs::copy(bench.plugins.join(&file), into.join(&file)).with_context(|| format!("failed to copy {file}"))?;
        }
        let file = dir.path().join("sagahost.toml");
        fs::write(&file, format!("app = \"neighbours\"\nplugins = \"plugins\"\ndata = \"data\"\n{config}"))?;
        let host = Host::new(&fs::canonicalize(bench.host)?, file);
        let topics = EmbeddedTransport::open(&dir.path().join("data"), "neighbours-feeder")?;
        Ok(Self { dir, topics, host })
    }

    pub fn topics(&self) -> &EmbeddedTransport {
        &self.topics
    }

    /// Before the host does it.
    pub fn make_topics(&self, names: &[&str]) -> Result<()> {
        let names: Vec<Arc<str>> = names.iter().copied().map(Arc::from).collect();
        Ok(self.topics.create_topics(&names, PARTITIONS)?)
    }

    /// Until it serves.
    pub fn start(&mut self) -> Result<()> {
        self.host.start()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What a command of that host says, whatever it ends with. None: it did not end in time.
    pub fn command(&self, bench: &Bench<'_>, words: &[&str], most: Duration) -> Result<Option<String>> {
        let (mut out, end) = (tempfile::tempfile()?, Instant::now() + most);
        let mut command = Command::new(fs::canonicalize(bench.host)?);
        command.args(words).current_dir(self.dir.path()).stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(out.try_clone()?).spawn()?;
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
        out.rewind()?;
        Ok(Some(io::read_to_string(out)?))
    }

    /// Of the host and of the processes that it has started.
    pub fn resident_bytes_of_all(&self) -> Result<f64> {
        let host = self.process()?;
        let others: Vec<u32> = fs::read_dir(format!("/proc/{host}/task"))?
            .flatten()
            .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
            .flat_map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
            .collect();
        let of_others = others.into_iter().filter_map(|id| process::resident_bytes(id).ok()).sum::<f64>();
        Ok(process::resident_bytes(host)? + of_others)
    }

    fn process(&self) -> Result<u32> {
        self.host.id().context("the host runs")
    }

    pub fn resident_bytes(&self) -> Result<f64> {
        process::resident_bytes(self.process()?)
    }

    /// The most that it ever was.
    pub fn peak_resident_bytes(&self) -> Result<f64> {
        process::peak_resident_bytes(self.process()?)
    }

    /// From the beginning of these topics, as any consumer.
    pub fn reader(&self, names: &[&str]) -> Result<Reader> {
        let names: Vec<Arc<str>> = names.iter().copied().map(Arc::from).collect();
        let there = self.topics.topics(&names)?;
        ensure!(there.len() == names.len(), "of {names:?} there are only {there:?}");
        let partitions = there
            .iter()
            .flat_map(|(topic, count)| (0..*count).map(move |number| Partition { topic: topic.clone(), number }));
        let assignments: Vec<Assignment> = partitions.map(|partition| Assignment::new(partition, 0)).collect();
        let mut source = Waiting::new(self.topics.source()?);
        source.assign(&assignments)?;
        Ok(Reader(source))
    }
}

pub struct Reader(Waiting);

impl Reader {
    /// What has come since.
    pub fn read(&mut self) -> Result<Vec<Record>> {
        let mut records = Vec::new();
        while let Some(polled) = self.0.poll(Duration::from_millis(1))? {
            if let Polled::Record(record) = polled {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// As soon as something has come; nothing: the time is over.
    pub fn wait(&mut self, most: Duration) -> Result<Vec<Record>> {
        let (mut records, until) = (Vec::new(), Instant::now() + most);
        loop {
            // What has come besides is taken with it, and not waited for.
            let wait =
                if records.is_empty() { until.saturating_duration_since(Instant::now()) } else { Duration::ZERO };
            match self.0.poll(wait)? {
                Some(Polled::Record(record)) => records.push(record),
                Some(_) => {}
                None => return Ok(records),
            }
        }
    }

    /// When each saga's first record was published, in milliseconds since 1970, until all `wanted` are there or the time
    /// is over.
    pub fn ends(
        &mut self,
        wanted: &dyn Fn(&BTreeMap<String, f64>) -> bool,
        most: Duration,
    ) -> Result<BTreeMap<String, f64>> {
        let (mut ends, until) = (BTreeMap::new(), Instant::now() + most);
        loop {
            for record in self.read()? {
                let saga = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
                let at = record.timestamp_ms.context("embedded topics have timestamps")?;
                ends.entry(saga).or_insert(at as f64);
            }
            if wanted(&ends) || Instant::now() > until {
                return Ok(ends);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}
