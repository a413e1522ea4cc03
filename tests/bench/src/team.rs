//! Those who are measured: the host, and three services written by hand. Invariant: all of them get the same records on the same
//! topics, one after the other, and none of them runs while another is measured.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
};

use anyhow::{Context as _, Result};
use sagahost_bench::{OPENING_BALANCE_CENTS, OPENING_STOCK};
use sagahost_demo::{
    process::{self, Host, cpu_seconds, peak_resident_bytes, resident_bytes},
    workload::LIMIT_CENTS,
};
use tempfile::TempDir;

use crate::Bench;

/// Of plugins, and of services.
const NAMES: [&str; 3] = ["order", "payment", "inventory"];

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Team {
    /// One host with the three plugins.
    Host,
    /// The same, whose plugins keep their instances.
    HostReusing,
    /// The three services; they wait for delivery reports before they commit.
    ByHand,
    /// They do not.
    ByHandUndrained,
}

impl Team {
    pub const ALL: [Self; 4] = [Self::ByHand, Self::Host, Self::HostReusing, Self::ByHandUndrained];

    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "sagahost",
            Self::HostReusing => "sagahost, reuse",
            Self::ByHand => "by hand",
            Self::ByHandUndrained => "by hand, undrained",
        }
    }

    /// Ready when this returns. `config`: more lines of the host's.
    pub fn start(self, bench: &Bench, run: usize, config: &str) -> Result<Running> {
        let dir = tempfile::tempdir()?;
        let (host, services) = match self {
            Self::Host => (Some(start_host(bench, run, dir.path(), config)?), Vec::new()),
            Self::HostReusing => {
                let reuse = NAMES.map(|name| format!("\n[plugin.{name}]\nisolation = \"reuse\"\n")).concat();
                (Some(start_host(bench, run, dir.path(), &format!("{config}{reuse}"))?), Vec::new())
            }
            Self::ByHand | Self::ByHandUndrained => {
                let undrained = self == Self::ByHandUndrained;
                let start = |name: &&str| Service::start(bench, run, dir.path(), name, undrained);
                (None, NAMES.iter().map(start).collect::<Result<Vec<_>>>()?)
            }
        };
        Ok(Running { host, services, broker: bench.broker.process().context("the broker runs")?, dir })
    }
}

fn start_host(bench: &Bench, run: usize, dir: &Path, config: &str) -> Result<Host> {
    let into = dir.join("plugins");
    fs::create_dir(&into)?;
    for plugin in NAMES {
        let file = format!("{plugin}.wasm");
        fs::copy(bench.plugins.join(&file), into.join(&file)).with_context(|| format!("failed to copy {file}"))?;
    }
    let text = format!(
        "app = \"shop-{run}\"\nplugins = \"plugins\"\ndata = \"data\"\n\
         [plugin.payment.config]\nlimit-cents = {LIMIT_CENTS}\nopening-balance-cents = {OPENING_BALANCE_CENTS}\n\
         [plugin.inventory.config]\nopening-stock = {OPENING_STOCK}\n\
         [kafka]\nbootstrap-servers = \"{}\"\nstart = \"latest\"\ncreate-topics = true\npartitions = 4\n{config}",
        bench.broker.bootstrap()
    );
    let file = dir.join("sagahost.toml");
    fs::write(&file, text)?;
    let mut host = Host::new(&bench.host, file);
    host.start()?;
    Ok(host)
}

/// One service that is written by hand.
struct Service(Child);

impl Service {
    fn start(bench: &Bench, run: usize, dir: &Path, name: &str, undrained: bool) -> Result<Self> {
        let mut command = Command::new(&bench.handwritten);
        command.arg(name).args(["--bootstrap", &bench.broker.bootstrap(), "--group", &format!("by-hand-{run}")]);
        command.arg("--data").arg(dir).args(undrained.then_some("--undrained"));
        process::start(command, &dir.join(format!("{name}.log")), "ready").map(Self)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A team at work.
pub struct Running {
    pub host: Option<Host>,
    services: Vec<Service>,
    broker: u32,
    dir: TempDir,
}

/// Seconds of processor time, so far.
#[derive(Clone, Copy, Debug)]
pub struct Cpu {
    pub team: f64,
    pub broker: f64,
}

impl Running {
    fn processes(&self) -> impl Iterator<Item = u32> + '_ {
        self.host.iter().filter_map(Host::id).chain(self.services.iter().map(|service| service.0.id()))
    }

    pub fn cpu(&self) -> Result<Cpu> {
        let team = self.processes().map(cpu_seconds).sum::<Result<f64>>()?;
        Ok(Cpu { team, broker: cpu_seconds(self.broker)? })
    }

    pub fn resident_bytes(&self) -> Result<f64> {
        self.processes().map(resident_bytes).sum()
    }

    pub fn peak_resident_bytes(&self) -> Result<f64> {
        self.processes().map(peak_resident_bytes).sum()
    }

    /// What its parts said, for whoever looks for the reason of a failure.
    pub fn logs(&self) -> PathBuf {
        self.dir.path().to_owned()
    }
}
