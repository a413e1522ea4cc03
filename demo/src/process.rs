//! A host as a process, and what the system says of processes. Invariant: none outlives whoever started it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// A start compiles plugins.
const START_MAX: Duration = Duration::from_secs(120);
/// Of the clock in `/proc`.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is ready: it has said `ready`. All that it says is in the file `log`.
///
/// # Errors
/// It ended, or did not say so within two minutes; then it does not run.
pub fn start(mut command: Command, log: &Path, ready: &str) -> Result<Child> {
    let file = File::create(log)?;
    let mut child = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
    if let Err(why) = await_ready(&mut child, log, ready) {
        let _ = child.kill();
        let _ = child.wait();
        return Err(why.context(format!("failed to start {}", command.get_program().display())));
    }
    Ok(child)
}

fn await_ready(child: &mut Child, log: &Path, ready: &str) -> Result<()> {
    let end = Instant::now() + START_MAX;
    loop {
        let said = fs::read_to_string(log)?;
        if said.contains(ready) {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            bail!("it ended ({status}):\n{said}");
        }
        ensure!(Instant::now() < end, "it is not ready:\n{said}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A host that runs, or ran, with a configuration.
pub struct Host {
    binary: PathBuf,
    pub config: PathBuf,
    /// None: it is away.
    child: Option<Child>,
}

impl Host {
    /// It does not run yet.
    pub fn new(binary: &Path, config: PathBuf) -> Self {
        Self { binary: binary.to_owned(), config, child: None }
    }

    /// It serves when this returns.
    ///
    /// # Errors
    /// It ended, or does not serve within two minutes.
    pub fn start(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        command.args(["run", "--config"]).arg(&self.config).env_remove("RUST_LOG");
        self.child = Some(start(command, &self.config.with_extension("log"), "serving socket=")?);
        Ok(())
    }

    /// As `kill -9`.
    ///
    /// # Errors
    /// The system does not kill it.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Its process; none while it does not run.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `sagahost WORDS --json` on the host's configuration.
    ///
    /// # Errors
    /// It fails, or says no JSON.
    pub fn ask(&self, words: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.binary);
        let output = command.args(words).arg("--json").arg("--config").arg(&self.config).output()?;
        let error = || format!("`{}`: {}", words.join(" "), String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).with_context(error)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Seconds of processor time, so far.
///
/// # Errors
/// There is no such process.
pub fn cpu_seconds(process: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name in parentheses may contain anything.
    let rest = stat.rsplit_once(')').context("a name")?.1;
    let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>).collect::<Result<Vec<_>, _>>()?;
    Ok(ticks.iter().sum::<f64>() / TICKS_PER_SECOND)
}

/// Bytes of its memory that are in RAM.
///
/// # Errors
/// There is no such process.
pub fn resident_bytes(process: u32) -> Result<f64> {
    memory(process, "VmRSS:")
}

/// The most that these ever were.
///
/// # Errors
/// There is no such process.
pub fn peak_resident_bytes(process: u32) -> Result<f64> {
    memory(process, "VmHWM:")
}

fn memory(process: u32, line: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|all| all.strip_prefix(line)).context("its memory")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// Bytes that went over this machine's own network, so far.
///
/// # Errors
/// Linux does not say it.
pub fn loopback_bytes() -> Result<f64> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let line = devices.lines().find_map(|line| line.trim().strip_prefix("lo:")).context("the loopback device")?;
    Ok(line.split_whitespace().next().context("a number")?.parse()?)
}
