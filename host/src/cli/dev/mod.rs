//! `sagahost dev`: a host for a plugin that is being written. Invariant: it is the real host on embedded topics; only
//! its data is thrown away, and a bad build or a bad plugin leaves serving what served before.
//!
//! In reading order: `ground` (where its things are), `sources` (built at each change), `prompt` (what is typed),
//! `shown` (what was printed already).

mod ground;
mod prompt;
mod shown;
mod sources;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use clap::Args;
use crossbeam_channel::Receiver;
use sagahost_operator::{
    desk::Desk,
    protocol::{Reply, Request},
    server::Server,
    stamp::Stamp,
    view::{ExampleView, Placed, SagaPage, SagaView},
};
use sagahost_saga::{
    id::{EventKey, SagaId},
    notation::with_causes,
};
use sagahost_wire::clock::{Clock as _, SystemClock};
use serde::de::DeserializeOwned;

use self::{
    ground::Ground,
    prompt::Typed,
    shown::{SAGAS_MAX, Shown},
    sources::{Builder, News},
};
use super::{
    Site, emit,
    exit::Failure,
    output::Output,
    plugin_text, reach,
    run::{self, Asked},
    sagas, timeline,
};
use crate::{
    config::{Config, LogFormat, LogSettings},
    host::{Host, Parts, StopReport},
};

pub use self::ground::DATA;

#[derive(Debug, Args)]
pub struct Dev {
    /// Directory of a plugin crate; may be repeated.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: Vec<PathBuf>,
    /// Where the plugins are built to; others in that directory serve as well. Else .sagahost-dev/plugins.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
}

impl Dev {
    pub fn carry_out(&self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        let ground = Ground::prepare(&self.dir[0], self.plugins.as_deref())?;
        let config = config(site, &ground)?;
        // The author's own log lines are news, those of the host only where something is wrong.
        run::start_log(&LogSettings { format: LogFormat::Text, filter: "warn,plugin=info".to_owned() })?;
        let stop = Arc::new(AtomicBool::new(false));
        run::heed_signals(Asked { stop: stop.clone(), ..Asked::default() })?;
        let builder = Builder::start(self.dir.clone(), ground.plugins.clone(), stop.clone())
            .map_err(|error| Failure::failed("start the builder", &error))?;
        let lines = prompt::lines().map_err(|error| Failure::failed("read standard input", &error))?;
        let ended = Session { config, stop, builder: &builder, lines, serving: None, shown: Shown::default(), sent: 0 }
            .run(out);
        if !builder.is_finished() {
            out.line("waiting for the build to finish; Ctrl-C again exits immediately")?;
        }
        while !builder.is_finished() {
            // It must not wait for a reader of its news.
            let _ = builder.news.recv_timeout(PAUSE);
        }
        ended
    }
}

/// Embedded topics and no memory; plugins are configured as in the file that was named, if any.
fn config(site: &Site, ground: &Ground) -> Result<Config, Failure> {
    let mut config = Config::embedded(&ground.plugins, &ground.data);
    if site.config.is_some() {
        let named = site.config()?;
        (config.plugins, config.plugin_order) = (named.plugins, named.plugin_order);
        (config.bounds, config.limits) = (named.bounds, named.limits);
    }
    config.watch.settle = Duration::from_millis(50);
    // An author wants to see the version that fails.
    config.watch.probation = Duration::ZERO;
    Ok(config)
}

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

struct Session<'b> {
    config: Config,
    stop: Arc<AtomicBool>,
    builder: &'b Builder,
    lines: Receiver<String>,
    serving: Option<Serving>,
    shown: Shown,
    /// Sagas that were begun at the prompt.
    sent: u64,
}

/// From the first plugin on that is admitted.
struct Serving {
    host: Host,
    desk: Desk,
    _server: Server,
}

impl Session<'_> {
    fn run(mut self, out: &mut Output) -> Result<(), Failure> {
        let fatal = loop {
            out.now = SystemClock.now();
            while let Ok(news) = self.builder.news.try_recv() {
                self.tell(news, out)?;
            }
            while let Ok(line) = self.lines.try_recv() {
                self.obey(&line, out)?;
            }
            self.show(out)?;
            if self.stop.load(Ordering::SeqCst) {
                break None;
            }
            match &self.serving {
                Some(serving) => {
                    if let Some(fatal) = serving.host.fatal(PAUSE) {
                        break Some(fatal);
                    }
                }
                None => thread::sleep(PAUSE),
            }
        };
        self.stop.store(true, Ordering::SeqCst);
        let Some(Serving { host, .. }) = self.serving.take() else {
            return Ok(());
        };
        let deadline = if fatal.is_some() { Duration::ZERO } else { self.config.pipeline.shutdown_deadline };
        let report: StopReport = host.stop(deadline);
        run::ended(fatal, &report, deadline, out)
    }

    fn tell(&mut self, news: News, out: &mut Output) -> Result<(), Failure> {
        match news {
            News::Progress(line) => out.line(&line),
            News::Failed(why) => {
                out.line(&why)?;
                let then =
                    if self.serving.is_some() { "the previous version still serves" } else { "nothing serves yet" };
                out.line(&format!("{then}; it is built again when a file changes"))
            }
            News::Built(built) => {
                for plugin in built.iter().filter(|built| !built.changed && self.serving.is_some()) {
                    out.line(&format!("{} is the same as before", plugin.name))?;
                }
                self.serve(out)
            }
        }
    }

    /// Starts the host when there is something to serve; from then on it looks after the directory by itself.
    fn serve(&mut self, out: &mut Output) -> Result<(), Failure> {
        if self.serving.is_some() {
            return Ok(());
        }
        let mut parts = Parts::open(self.config.clone())?;
        parts.stop_requested = self.stop.clone();
        reach::remember_plugins(&self.config)?;
        let host = match Host::start_with(parts) {
            Ok(host) => host,
            Err(error) => return out.line(&with_causes(&error)),
        };
        let desk = Desk {
            settings: host.config().operator(),
            journal: host.journal(),
            transport: host.transport(),
            live: Some(host.live()),
        };
        let server = Server::start(desk.clone())?;
        self.serving = Some(Serving { host, desk, _server: server });
        self.show(out)?;
        out.line("serving; `help` lists what can be typed here, Ctrl-C ends")
    }

    /// What has happened since the last look.
    fn show(&mut self, out: &mut Output) -> Result<(), Failure> {
        let Some(Serving { desk, host, .. }) = &self.serving else {
            return Ok(());
        };
        let mut news = self.shown.plugins(&host.live().plugins());
        let page: SagaPage = ask(desk, list(SAGAS_MAX))?;
        let look_up = |id: &str| ask::<SagaView>(desk, Request::Saga { id: SagaId::new(id) });
        news.extend(self.shown.sagas(&page, Stamp(out.now), out.colour, look_up)?);
        news.iter().try_for_each(|news| out.line(news.trim_end_matches('\n')))
    }

    fn obey(&mut self, line: &str, out: &mut Output) -> Result<(), Failure> {
        let typed = match prompt::parse(line) {
            Ok(typed) => typed,
            Err(why) => return out.line(&why),
        };
        let Some(Serving { desk, host, .. }) = &self.serving else {
            return match typed {
                Typed::Nothing => Ok(()),
                Typed::Help => out.line(prompt::HELP),
                Typed::Quit => {
                    self.stop.store(true, Ordering::SeqCst);
                    Ok(())
                }
                Typed::Emit { .. } | Typed::Sagas | Typed::Show { .. } | Typed::Plugins => {
                    out.line("nothing serves yet: there is no plugin that was built and admitted")
                }
            };
        };
        let text = match typed {
            Typed::Nothing => return Ok(()),
            Typed::Help => Ok(prompt::HELP.to_owned()),
            Typed::Quit => {
                self.stop.store(true, Ordering::SeqCst);
                return Ok(());
            }
            Typed::Sagas => ask(desk, list(SAGAS_MAX)).map(|page| sagas::list_text(&page, out)),
            Typed::Show { saga } => {
                let saga: Result<SagaView, Failure> = ask(desk, Request::Saga { id: SagaId::new(saga) });
                saga.map(|saga| timeline::text(&saga, out.now, out.colour))
            }
            Typed::Plugins => Ok(plugin_text::list_text(&host.live().plugins(), out)),
            Typed::Emit { kind, saga, data } => {
                let saga = saga.unwrap_or_else(|| format!("dev-{}", self.sent + 1));
                let sent = send(&self.config, desk, &kind, &saga, data);
                self.sent += u64::from(sent.is_ok());
                sent
            }
        };
        // What a person typed may be wrong: that ends nothing.
        out.line(text.unwrap_or_else(|failure| failure.to_string()).trim_end_matches('\n'))
    }
}

/// Without data: the example.
fn send(config: &Config, desk: &Desk, kind: &str, saga: &str, data: Option<String>) -> Result<String, Failure> {
    let data = match data {
        Some(data) => data,
        None => ask::<ExampleView>(desk, Request::Example { kind: kind.to_owned() })?.data.to_string(),
    };
    let key = EventKey::new("sagahost-dev", emit::random_id()?);
    let record = emit::encoded(config, &emit::event(kind, saga, key, data.into_bytes()));
    let placed: Placed = ask(desk, Request::Emit { record, kind: Some(kind.to_owned()) })?;
    Ok(emit::sent_text(kind, Some(saga), &placed))
}

fn list(limit: usize) -> Request {
    Request::Sagas { status: None, notes: Vec::new(), before: None, limit }
}

fn ask<T: DeserializeOwned>(desk: &Desk, request: Request) -> Result<T, Failure> {
    match desk.reply(request) {
        Reply::Ok(value) => Ok(serde_json::from_value(value)?),
        Reply::Refused(refusal) => Err(refusal.into()),
    }
}
