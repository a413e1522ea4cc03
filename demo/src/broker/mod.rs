//! A real Kafka broker for the demonstration and the tests: fetched once, started on free ports, gone with the process
//! that started it. Invariant: two brokers never share a directory or a port.

mod install;
mod settings;
mod tls;
mod tools;

use std::{
    fs::{self, File, OpenOptions},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use sagahost_transport_kafka::{KafkaSettings, KafkaTransport};
use tempfile::TempDir;

pub use install::VERSION;
pub use settings::{Options, PASSWORD, USER};
pub use tools::Line;

/// On a busy machine; three seconds are usual.
const READY_MAX: Duration = Duration::from_secs(90);
const STOP_MAX: Duration = Duration::from_secs(90);
/// Of directories in the system's temporary directory; the process id follows.
const PREFIX: &str = "sagahost-kafka-";

#[derive(Clone, Copy, Debug)]
struct Ports {
    plain: u16,
    controller: u16,
    sasl: u16,
    tls: u16,
}

pub struct Broker {
    directory: TempDir,
    libraries: PathBuf,
    options: Options,
    ports: Ports,
    /// Behind a lock, so that a test can stop a broker that others still talk to.
    running: Mutex<Option<Running>>,
}

/// The process, and the thread that started it: it must live as long, for the process ends with it.
struct Running {
    child: Arc<Mutex<Child>>,
    pid: u32,
}

impl Broker {
    /// Ready when this returns. The first time it fetches Kafka, and says so.
    pub fn start(options: Options) -> Result<Self> {
        let libraries = install::libraries()?;
        remove_leftovers();
        let prefix = format!("{PREFIX}{}-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        let broker = Self { directory, libraries, options, ports: free_ports()?, running: Mutex::default() };
        if broker.options.tls {
            tls::make(broker.path())?;
        }
        broker.write_settings()?;
        broker.format()?;
        broker.restart()?;
        Ok(broker)
    }

    /// Without credentials; with ACLs this listener's clients may do everything.
    pub fn bootstrap(&self) -> String {
        address(self.ports.plain)
    }

    /// SASL without TLS: PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER.
    pub fn sasl_bootstrap(&self) -> String {
        address(self.ports.sasl)
    }

    /// Trust `ca_file`.
    pub fn tls_bootstrap(&self) -> String {
        address(self.ports.tls)
    }

    pub fn ca_file(&self) -> PathBuf {
        self.path().join(tls::CA)
    }

    /// Where the broker keeps its records.
    pub fn log_dir(&self) -> PathBuf {
        self.path().join("logs")
    }

    /// What the broker printed.
    pub fn output_file(&self) -> PathBuf {
        self.path().join("broker.log")
    }

    /// The transport of an app at this broker, with nothing configured.
    pub fn transport(&self, app: &str) -> Result<KafkaTransport> {
        let settings = KafkaSettings { bootstrap_servers: self.bootstrap(), ..KafkaSettings::default() };
        Ok(KafkaTransport::new(&settings, app)?)
    }

    /// Its process; none while it does not run.
    pub fn process(&self) -> Option<u32> {
        lock(&self.running).as_ref().map(|running| running.pid)
    }

    /// Orderly.
    pub fn stop(&self) -> Result<()> {
        let Some(running) = lock(&self.running).take() else {
            return Ok(());
        };
        run(Command::new("kill").arg("-TERM").arg(running.pid.to_string()))?;
        let started = Instant::now();
        while lock(&running.child).try_wait()?.is_none() {
            if started.elapsed() > STOP_MAX {
                end(&running);
                bail!("the broker did not stop within {} s; it was killed", STOP_MAX.as_secs());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// As `kill -9`.
    pub fn kill(&self) {
        if let Some(running) = lock(&self.running).take() {
            end(&running);
        }
    }

    /// It keeps its connections and answers nothing, until it is thawed.
    pub fn freeze(&self) -> Result<()> {
        self.signal("-STOP")
    }

    pub fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = lock(&self.running).as_ref().context("the broker does not run")?.pid;
        run(Command::new("kill").arg(signal).arg(pid.to_string())).map(drop)
    }

    /// Starts it again at the same addresses, with what it had; stops it first if it runs.
    pub fn restart(&self) -> Result<()> {
        self.stop()?;
        let output = OpenOptions::new().create(true).append(true).open(self.output_file())?;
        let mut java = self.java("-Xmx768m");
        java.arg("kafka.Kafka").arg(self.settings_file());
        let mut java = tied(java);
        java.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        *lock(&self.running) = Some(keep(java)?);
        self.wait_until_ready()
    }

    fn wait_until_ready(&self) -> Result<()> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.bootstrap()).set("log_level", "0");
        config.set("reconnect.backoff.max.ms", "200");
        let consumer: BaseConsumer = config.create()?;
        let started = Instant::now();
        loop {
            let child = lock(&self.running).as_ref().context("the broker was not started")?.child.clone();
            if let Some(status) = lock(&child).try_wait()? {
                bail!("the broker ended at its start ({status}):\n{}", self.last_output());
            }
            if consumer.fetch_metadata(None, Duration::from_millis(500)).is_ok_and(|all| !all.brokers().is_empty()) {
                return Ok(());
            }
            if started.elapsed() > READY_MAX {
                bail!("the broker is not ready after {} s:\n{}", READY_MAX.as_secs(), self.last_output());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn last_output(&self) -> String {
        let output = fs::read_to_string(self.output_file()).unwrap_or_default();
        let lines: Vec<_> = output.lines().rev().take(30).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn write_settings(&self) -> Result<()> {
        fs::write(self.path().join("log4j2.properties"), settings::LOGGING)?;
        fs::write(self.settings_file(), self.options.properties_file(self.ports, self.path()))?;
        Ok(())
    }

    fn format(&self) -> Result<()> {
        let mut tool = self.java("-Xmx256m");
        tool.args(["kafka.tools.StorageTool", "format", "--standalone", "-t"]).arg(tools::random_id());
        tool.arg("-c").arg(self.settings_file());
        if self.options.sasl {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                tool.arg("--add-scram").arg(format!("{mechanism}=[name={USER},password={PASSWORD}]"));
            }
        }
        run(&mut tool).map(drop).context("failed to format the broker's directory")
    }

    fn java(&self, memory: &str) -> Command {
        let mut java = Command::new("java");
        java.arg(memory).args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=4", "-cp"]);
        java.arg(format!("{}/*", self.libraries.display()));
        java.arg(format!("-Dlog4j2.configurationFile={}", self.path().join("log4j2.properties").display()));
        java.stdin(Stdio::null());
        java
    }

    fn settings_file(&self) -> PathBuf {
        self.path().join("server.properties")
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a process that ends with this one, however this one ends. Linux tells it when the *thread* that started it
/// is gone, so that thread stays.
fn keep(mut command: Command) -> Result<Running> {
    let (sender, receiver) = mpsc::channel();
    thread::Builder::new().name("broker keeper".into()).spawn(move || {
        let child = match command.spawn() {
            Ok(child) => Arc::new(Mutex::new(child)),
            Err(error) => {
                let _ = sender.send(Err(error));
                return;
            }
        };
        let _ = sender.send(Ok(child.clone()));
        while let Ok(None) = lock(&child).try_wait() {
            thread::sleep(Duration::from_millis(100));
        }
    })?;
    let child = receiver.recv()?.context("failed to start java (apt-get install default-jre-headless)")?;
    let pid = lock(&child).id();
    Ok(Running { child, pid })
}

/// The same command, ended by Linux when its parent is gone. `setpriv` is a part of every Debian; without it a broker outlives a process that is killed.
fn tied(command: Command) -> Command {
    let known = Command::new("setpriv").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !known.is_ok_and(|status| status.success()) {
        return command;
    }
    let mut tied = Command::new("setpriv");
    tied.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    tied
}

fn end(running: &Running) {
    let mut child = lock(&running.child);
    let _ = child.kill();
    let _ = child.wait();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What it printed; an error has what it complained about.
fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to start {name}"))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{name} failed ({}):\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(printed)
}

/// A broker in a static is never dropped, nor is one whose process was killed: their directories go here.
fn remove_leftovers() {
    // Without it nobody can tell whose process lives.
    if !Path::new("/proc/self").exists() {
        return;
    }
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Held all together, so that they differ.
fn free_ports() -> Result<Ports> {
    let listeners: Vec<TcpListener> =
        (0..4).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<_>>()?;
    let port = |index: usize| listeners[index].local_addr().map(|address| address.port());
    Ok(Ports { plain: port(0)?, controller: port(1)?, sasl: port(2)?, tls: port(3)? })
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// A lock between processes.
fn locked(file: &Path) -> Result<File> {
    let file = OpenOptions::new().create(true).append(true).open(file)?;
    file.lock()?;
    Ok(file)
}
