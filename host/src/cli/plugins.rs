//! `sagahost plugins`. Invariant: listing checks the files as a host would, and changes nothing.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Subcommand;
use sagahost_operator::{
    PluginAction,
    desk::Desk,
    plugin_view::{PluginLine, PluginView, PluginsView},
    protocol::{Reply, Request},
    topics::{self, Sources},
    view::{CounterLine, StoreLine},
};
use sagahost_saga::{
    id::Participant,
    notation::{self, typed},
};
use sagahost_sandbox::{graph::Graph, pack};
use sagahost_wire::clock::SystemClock;

use super::{
    Operator, Site,
    exit::{Exit, Failure},
    output::Output,
    plugin_text::{graph_text, list_text, show_text},
    plugins_await, reach,
    run::compiler,
    sagas::told,
    table::{Cell, Table},
};
use crate::{
    admission::{self, Compiling, Services},
    config::{Config, parse_duration},
    threads::Clocks,
};

#[derive(Debug, Subcommand)]
pub enum Plugins {
    /// Which plugins serve, which files are refused and why.
    List,
    /// Everything about one plugin: its versions, what it subscribes to, who needs it, its history.
    Show {
        /// The plugin.
        plugin: String,
    },
    /// Wait until the host serves exactly these files, for scripts that copy them into its directory.
    Await {
        /// Plugin files, from anywhere.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// How long at most: 500ms, 30s, 2m.
        #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time_span)]
        timeout: Duration,
    },
    /// Let a version serve that is in quarantine.
    Admit {
        /// The plugin.
        plugin: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Let a plugin handle nothing for now: its events park, what it did is still undone.
    Pause {
        /// The plugin.
        plugin: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Let a paused plugin continue, with what parked first.
    Resume {
        /// The plugin.
        plugin: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// End a participant for good, when its file is gone: it subscribes to nothing any more.
    Retire {
        /// The plugin.
        plugin: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Even if unfinished sagas need it.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        operator: Operator,
    },
    /// Put the previous version back, and the one that serves into quarantine.
    Rollback {
        /// The plugin.
        plugin: String,
        /// Why, for the journal.
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        operator: Operator,
    },
    /// Who reads and emits what, with cycles and dead ends.
    Graph {
        /// As a flow chart in Mermaid's language.
        #[arg(long)]
        mermaid: bool,
    },
    /// Turn a module or component and a manifest into a plugin file.
    Pack {
        /// A core module of wit-bindgen's, or a finished component.
        file: PathBuf,
        /// The manifest, JSON.
        #[arg(long, value_name = "FILE")]
        manifest: PathBuf,
        /// Where the plugin goes.
        #[arg(long, short, value_name = "FILE")]
        out: PathBuf,
    },
    /// Counters that plugins keep: balances, stock.
    Counters {
        /// Only those of this plugin.
        plugin: Option<String>,
    },
    /// What a plugin keeps in its store.
    Store {
        /// The plugin.
        plugin: String,
        /// Only keys that begin like this.
        #[arg(long, value_name = "TEXT", default_value = "", value_parser = typed)]
        prefix: String,
        /// Only keys after this one.
        #[arg(long, value_name = "KEY", value_parser = typed)]
        after: Option<String>,
        /// How many at most; fewer where they have more than 4 MiB together.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
}

fn time_span(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "a number with a unit is needed, such as 30s".to_owned())
}

impl Plugins {
    pub fn carry_out(self, site: &Site, out: &mut Output) -> Result<(), Failure> {
        match self {
            Self::List => list(&site.config()?, out),
            Self::Show { plugin } => {
                let request = Request::Plugin { plugin: Participant::new(plugin) };
                let view: PluginView = reach::ask(&site.config()?, request)?;
                out.show(&view, show_text)
            }
            Self::Await { files, timeout } => plugins_await::carry_out(&site.config()?, &files, timeout, out),
            Self::Admit { plugin, operator } => change(site, plugin, PluginAction::Admit { by: operator.by }, out),
            Self::Rollback { plugin, reason, operator } => {
                change(site, plugin, PluginAction::Rollback { by: operator.by, reason }, out)
            }
            Self::Pause { plugin, reason, operator } => {
                change(site, plugin, PluginAction::Pause { by: operator.by, reason }, out)
            }
            Self::Resume { plugin, operator } => change(site, plugin, PluginAction::Resume { by: operator.by }, out),
            Self::Retire { plugin, reason, force, operator } => {
                change(site, plugin, PluginAction::Retire { by: operator.by, reason, force }, out)
            }
            Self::Graph { mermaid } => graph(&site.config()?, mermaid, out),
            Self::Pack { file, manifest, out: to } => {
                let name = pack(&file, &manifest, &to)?;
                let view = serde_json::json!({ "plugin": name, "file": to.display().to_string() });
                out.show(&view, |_, _| notation::line(&format!("plugin {name} is in {}", to.display())).into_owned())
            }
            Self::Counters { plugin } => {
                let participant = plugin.map(Participant::new);
                let counters: Vec<CounterLine> = reach::ask(&site.config()?, Request::Counters { participant })?;
                out.show(&counters, |counters, out| counters_text(counters, out))
            }
            Self::Store { plugin, prefix, after, limit } => {
                let request = Request::Store { participant: Participant::new(plugin), prefix, after, limit };
                let entries: Vec<StoreLine> = reach::ask(&site.config()?, request)?;
                out.show(&entries, |entries, out| store_text(entries, out))
            }
        }
    }
}

fn list(config: &Config, out: &mut Output) -> Result<(), Failure> {
    let view = match reach::host(config)? {
        Some(_) => reach::ask(config, Request::Plugins)?,
        None => without_host(config)?,
    };
    out.show(&view, list_text)?;
    match view.refused.len() {
        0 => Ok(()),
        count => Err(Failure::new(Exit::Failed, format!("{count} not admitted"))),
    }
}

/// What the journal knows, and what the next start would make of the files.
fn without_host(config: &Config) -> Result<PluginsView, Failure> {
    reach::secure(config)?;
    let clocks = Clocks::new(Arc::new(SystemClock));
    let services = Services::of(config, &clocks);
    let (settings, key) = (config.serving(), config.code_key());
    let mut set = admission::plugins(settings, key, clocks, compiler()?, Compiling::Awaited, services)?;
    let mut view = match reach::journal_if_any(config)? {
        None => PluginsView::sorted(Vec::new(), Vec::new(), config.values().configured()),
        Some(journal) => {
            set.refresh(&*journal)?;
            let desk = Desk { settings: config.operator(), journal, transport: reach::transport(config)?, live: None };
            match desk.reply(Request::Plugins) {
                Reply::Ok(value) => serde_json::from_value(value)?,
                Reply::Refused(refusal) => return Err(refusal.into()),
            }
        }
    };
    let reading = set.read();
    for admitted in &reading.admitted {
        let new = PluginLine::of_file(admitted, "new");
        if let Some(line) = view.plugins.iter_mut().find(|line| line.digest == new.digest && line.state != "stored") {
            line.file = new.file;
            continue;
        }
        if let Some(line) = view.plugins.iter_mut().find(|line| line.name == new.name && line.state != "stored") {
            line.note = Some("the file has another version; the next start of the host serves it".to_owned());
        }
        view.plugins.push(new);
    }
    view.refused = reading.refused;
    Ok(view)
}

fn change(site: &Site, plugin: String, action: PluginAction, out: &mut Output) -> Result<(), Failure> {
    let request = Request::ChangePlugin { plugin: Participant::new(plugin), action };
    told(&reach::ask(&site.config()?, request)?, out)
}

fn graph(config: &Config, mermaid: bool, out: &mut Output) -> Result<(), Failure> {
    let graph: Graph = match reach::host(config)? {
        Some(_) => reach::ask(config, Request::Graph)?,
        None => {
            let journal = reach::journal_if_any(config)?;
            Graph::of(&topics::manifests(Sources {
                settings: &config.operator(),
                journal: journal.as_deref(),
                host_runs: false,
            })?)
        }
    };
    out.show(&graph, |graph, out| if mermaid { graph.mermaid() } else { graph_text(graph, out) })
}

fn pack(file: &PathBuf, manifest: &PathBuf, to: &PathBuf) -> Result<String, Failure> {
    let read = |path: &PathBuf| {
        fs::read(path).map_err(|error| Failure::usage(format!("failed to read {}: {error}", path.display())))
    };
    let component = pack::encode(&read(file)?)?;
    let packed = pack::append_manifest(&component, &read(manifest)?)?;
    // Under another name first: a plugin directory never has half a file.
    let partial = to.with_extension("wasm.partial");
    fs::write(&partial, &packed)
        .and_then(|()| fs::rename(&partial, to))
        .map_err(|error| Failure::new(Exit::Failed, format!("failed to write {}: {error}", to.display())))?;
    Ok(pack::manifest_of(&packed).map_or_else(String::new, |manifest| manifest.name))
}

pub fn counters_text(counters: &[CounterLine], out: &Output) -> String {
    if counters.is_empty() {
        return "no counter\n".to_owned();
    }
    let mut table = Table::new(["plugin", "counter", "value"]);
    let mut sums = BTreeMap::<&str, (i128, usize)>::new();
    for counter in counters {
        table.row([(&counter.participant).into(), (&counter.name).into(), Cell::number(counter.value)]);
        let sum = sums.entry(&counter.participant).or_default();
        *sum = (sum.0 + i128::from(counter.value), sum.1 + 1);
    }
    let mut text = table.render(out.colour) + "\n";
    for (plugin, (sum, count)) in sums {
        text += &format!("{}: {count} counters, {sum} together\n", notation::line(plugin));
    }
    text
}

pub fn store_text(entries: &[StoreLine], out: &Output) -> String {
    if entries.is_empty() {
        return "nothing in the store\n".to_owned();
    }
    let mut table = Table::new(["key", "bytes", "value"]);
    for entry in entries {
        let short: String = entry.value.chars().take(80).collect();
        let value = if short.len() < entry.value.len() { short + " …" } else { short };
        table.row([Cell::id(&entry.key), Cell::number(entry.bytes), value.into()]);
    }
    table.render(out.colour)
}
