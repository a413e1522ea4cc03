//! `sagahost run`. Invariant: the first signal drains and commits within a deadline, the second one ends the process at
//! once; nothing that is journaled is lost by either.

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use clap::Args;
use sagahost_journal::Journal;
use sagahost_operator::{Live, desk::Desk, server::Server};
use sagahost_processor::{
    Fatal,
    start::{Decisions, StartError},
};
use sagahost_sandbox::Compiler;
use sagahost_wire::BatchNo;
use tokio::signal::unix::{SignalKind, signal};
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

use super::{
    COMPILES, Place, Site,
    exit::{Exit, Failure},
    output::Output,
    reach,
};
use crate::{
    config::{Config, Faults, LogFormat, LogSettings, format_duration},
    host::{Host, HostError, Parts, StopReport},
    preflight, process,
};

#[derive(Debug, Args)]
pub struct Run {
    /// Directory of *.wasm, instead of a configuration file: embedded topics, defaults everywhere.
    #[arg(long, value_name = "DIR", requires = "data")]
    plugins: Option<PathBuf>,
    #[command(flatten)]
    pub(super) place: Place,
    /// Do not start while a file of the plugin directory is refused.
    #[arg(long)]
    strict: bool,
    /// Continue although the broker speaks of another journal, or of batches that this one does not hold: begins a
    /// new lineage. Read the refusal first.
    #[arg(long)]
    new_lineage: bool,
    /// Batches up to N were published, although the broker no longer says so.
    #[arg(long, value_name = "N")]
    published: Option<u64>,
}

impl Run {
    pub fn carry_out(&self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        process::make_files_private();
        let mut config = self.config(site)?;
        config.strict |= self.strict;
        start_log(&config.log)?;
        process::refuse_huge_pages();
        if !config.core_dumps {
            process::forbid_core_dumps();
        }
        let asked = Asked::default();
        heed_signals(asked.clone())?;
        let decisions = Decisions { new_lineage: self.new_lineage, published: self.published.map(BatchNo) };
        run_host(config, decisions, &asked, out)
    }

    fn config(&self, site: &Site) -> Result<Config, Failure> {
        match (&self.plugins, &site.data) {
            (Some(plugins), Some(data)) => Ok(Config::embedded(plugins, data)),
            (None, Some(_)) => Err(Failure::usage("name the plugin directory too: --plugins DIR --data DIR")),
            (_, None) => valid(site),
        }
    }
}

/// Everything that a start would refuse is refused at once, as `config check` reports it.
fn valid(site: &Site) -> Result<Config, Failure> {
    let Some(file) = site.file()? else { return site.config() };
    let faults = preflight::refused(&file);
    match file.config.file.clone() {
        Some(path) if !faults.is_empty() => Err(Faults { file: path, faults }.into()),
        Some(_) | None => Ok(file.config),
    }
}

/// What signals asked for.
#[derive(Clone, Default)]
pub(super) struct Asked {
    pub(super) stop: Arc<AtomicBool>,
    /// SIGHUP: read the configuration again.
    pub(super) reload: Arc<AtomicBool>,
}

/// The one place where the command line meets the host.
fn run_host(config: Config, decisions: Decisions, asked: &Asked, out: &mut Output) -> Result<(), Failure> {
    let stop_requested = &asked.stop;
    let deadline = config.pipeline.shutdown_deadline;
    let mut parts = Parts::open(config)?;
    parts.compiler = compiler()?;
    reach::remember_plugins(&parts.config)?;
    parts.decisions = decisions;
    parts.stop_requested = stop_requested.clone();
    let journal = parts.journal.clone();
    let Some(host) = start(parts, stop_requested, deadline)? else {
        return ended_before_it_began(&*journal, out);
    };
    let desk = Desk {
        settings: host.config().operator(),
        journal: host.journal(),
        transport: host.transport(),
        live: Some(host.live()),
    };
    let server = Server::start(desk)?;
    info!(socket = %server.path().display(), "serving");
    let fatal = loop {
        if let Some(fatal) = host.fatal(Duration::from_millis(100)) {
            break Some(fatal);
        }
        if stop_requested.load(Ordering::SeqCst) {
            break None;
        }
        if asked.reload.swap(false, Ordering::SeqCst) {
            reload(host.live());
        }
    };
    drop(server);
    // A host that cannot publish or journal any more has nothing to wait for.
    let report = host.stop(if fatal.is_some() { Duration::ZERO } else { deadline });
    ended(fatal, &report, deadline, out)
}

/// This program again, in a process of its own.
pub(super) fn compiler() -> Result<Compiler, Failure> {
    // Also where another file has taken this one's place meanwhile.
    let itself = PathBuf::from("/proc/self/exe");
    let program = match itself.exists() {
        true => itself,
        false => std::env::current_exe().map_err(|error| Failure::failed("find this program's file", &error))?,
    };
    Ok(Compiler::Process { program, arguments: vec![COMPILES.into()] })
}

/// In a thread of its own: the answer comes when the journal has it, and the host must still heed other signals.
fn reload(live: Arc<dyn Live>) {
    thread::spawn(move || match live.reload_config() {
        Ok(answer) => info!("SIGHUP: {}", answer.text),
        Err(why) => error!("SIGHUP: {why}"),
    });
}

/// None: stopped while it waited for the broker. A call that does not come back within the deadline is abandoned;
/// nothing that a start does is harmed by that.
fn start(parts: Parts, stop_requested: &AtomicBool, deadline: Duration) -> Result<Option<Host>, Failure> {
    let starting = thread::Builder::new().name("start".to_owned()).spawn(move || Host::start_with(parts));
    let starting = starting.map_err(|error| Failure::failed("start thread start", &error))?;
    let mut told_at = None;
    while !starting.is_finished() {
        if stop_requested.load(Ordering::SeqCst) && told_at.get_or_insert_with(Instant::now).elapsed() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
    match starting.join() {
        Err(_) => Err(Failure::new(Exit::Failed, "the start panicked")),
        Ok(Err(HostError::Start(StartError::Stopped))) => Ok(None),
        Ok(started) => Ok(Some(started?)),
    }
}

fn ended_before_it_began(journal: &dyn Journal, out: &mut Output) -> Result<(), Failure> {
    let left = journal
        .outbox(journal.identity().confirmed, usize::MAX)
        .map_err(|error| Failure::failed("read the journal", &error))?;
    let report = StopReport::of(&left);
    if !report.unpublished_batches.is_empty() {
        return Err(Failure::new(Exit::Unpublished, unpublished_text(&report)));
    }
    let view = serde_json::json!({ "ended": true, "cut-off": false });
    out.show(&view, |_, _| StartError::Stopped.to_string())
}

pub(super) fn ended(
    fatal: Option<Fatal>,
    report: &StopReport,
    deadline: Duration,
    out: &mut Output,
) -> Result<(), Failure> {
    if let Some(fatal) = fatal {
        error!(%fatal, "the host ends");
        return Err(Failure::new(Exit::EndedItself, fatal.to_string()));
    }
    if report.unpublished_batches.is_empty() {
        return told_end(report, deadline, out);
    }
    Err(Failure::new(Exit::Unpublished, unpublished_text(report)))
}

fn told_end(report: &StopReport, deadline: Duration, out: &mut Output) -> Result<(), Failure> {
    let text = if report.cut_off {
        format!(
            "ended at its deadline of {}: what is not journaled is read again by the next start",
            format_duration(deadline)
        )
    } else {
        "ended: everything is journaled and published".to_owned()
    };
    let view = serde_json::json!({ "ended": true, "cut-off": report.cut_off });
    out.show(&view, |_, _| text)
}

fn unpublished_text(report: &StopReport) -> String {
    let batches: Vec<String> = report.unpublished_batches.iter().map(|batch| batch.0.to_string()).collect();
    let records = report.unpublished_records;
    let batches = batches.join(", ");
    format!(
        "ended with {records} records of batches {batches} journaled and not yet published; the next start publishes them"
    )
}

/// A second signal does not wait for anything: what is journaled is safe, the rest is read again.
pub(super) fn heed_signals(asked: Asked) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed("start the signals' runtime", &error))?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hangup.recv() => {
                        asked.reload.store(true, Ordering::SeqCst);
                        continue;
                    }
                }
                if asked.stop.swap(true, Ordering::SeqCst) {
                    eprintln!("second signal received: exiting immediately; the next start continues from the journal");
                    std::process::exit(Exit::Killed as i32);
                }
                info!("stopping: finishing what was read; a second signal exits immediately");
            }
        });
    })?;
    Ok(())
}

pub(super) fn start_log(settings: &LogSettings) -> Result<(), Failure> {
    let text = std::env::var("RUST_LOG").unwrap_or_else(|_| settings.filter.clone());
    let filter = EnvFilter::try_new(&text).map_err(|error| {
        Failure::usage(format!("log.filter (or RUST_LOG): `{text}` is not a valid filter: {error}"))
    })?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.format {
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
